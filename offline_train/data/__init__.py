"""Trials, features and latents: what models learn from."""
