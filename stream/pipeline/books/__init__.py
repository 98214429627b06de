"""The books of a session: ledger, summary, terminal, the file of trials."""
