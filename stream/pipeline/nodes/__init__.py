"""The processes of a session: thin loops around pure classes."""
