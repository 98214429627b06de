"""Frozen image encoders."""
