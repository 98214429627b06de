"""How streams are, beside the way of their trials: health, rate, signals, agreeing triggers."""
