"""Training of brain encoders, their calibration, their galleries."""
