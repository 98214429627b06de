"""Engines: what runs a network live, and how the fastest one is found."""
