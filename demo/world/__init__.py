"""The demo's pictures: shapes, materials, places, and how they are drawn."""
