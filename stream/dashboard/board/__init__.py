"""What pages show of a session, made of its messages: pure, without sockets and clocks."""
