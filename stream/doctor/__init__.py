"""The doctor: whether this machine, and what a person names, will do for a session."""
