"""How galleries are searched: how long that takes, and what is found."""
