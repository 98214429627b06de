"""`bench live`: the certificate, how late a session answers here, and what this machine may run."""
