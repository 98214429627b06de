"""What a session does when something breaks: one fault a session, or many in a long one."""
