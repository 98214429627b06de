"""The web page of a session: a client like any other, in a process of its own."""
