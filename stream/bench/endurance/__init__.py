"""A long session in which nothing breaks, and what any long session is held to."""
