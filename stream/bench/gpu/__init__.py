"""What a CUDA card gives: answers, galleries, painting and training, beside the chip's limits."""
