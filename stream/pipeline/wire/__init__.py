"""The wire: messages between the processes of a session, and the sockets that they go over."""
