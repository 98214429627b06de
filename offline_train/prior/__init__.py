"""Training of Fusion Priors."""
