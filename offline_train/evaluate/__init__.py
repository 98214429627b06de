"""How good answers are, and how honest."""
