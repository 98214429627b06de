"""What other programs open, made of a session's folder: BIDS, MNE's epochs, Parquet."""
