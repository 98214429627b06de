"""From LSL to trials: pure but for the inlet."""
