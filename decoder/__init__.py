"""The networks, and what runs them: from a trial's EEG to an embedding."""
