"""The demo world: procedural images, a simulated subject, and what shows a first session."""
