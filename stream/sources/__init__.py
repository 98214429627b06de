"""Sources: recordings, read and written, and whatever plays them as LSL streams."""
