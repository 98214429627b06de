"""What the demo's pictures are made of: shapes, materials, places, and how they are drawn."""
