"""The books of a session: ledger, summary, report, terminal."""
