"""The commands of `python -m offline_train`."""
