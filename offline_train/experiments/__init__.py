"""Experiments as data: a grid of settings, run as far as it is missing, and a table of it."""
