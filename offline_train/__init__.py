"""Produces every model that the live part loads."""
