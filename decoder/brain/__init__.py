"""Brain encoders: networks from a trial's EEG to an embedding, one family a file."""
