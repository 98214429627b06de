"""The page that a session leaves: what it came to, in numbers, curves and pictures."""
