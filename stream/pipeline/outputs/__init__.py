"""What a session comes to, for programs that do not listen to its bus."""
