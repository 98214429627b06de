"""What comes from the Hugging Face hub and other places of weights, or is told to be missing."""
