"""The processes of a session and the wire between them."""
