"""What some minutes of a person tell: of today, and of whom a bundle is to decode."""
