"""The models that the demo ships, and how they are made: image encoders, and what paints."""
