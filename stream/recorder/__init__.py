"""Streams into one XDF file, as they are sent: for `record`, and for what a session records too."""
