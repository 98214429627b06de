"""Whether what is beside a session delays its answers: clients, and a painter."""
