"""The Hugging Face hub: bundles shared there, and weights that others have published."""
