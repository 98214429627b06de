"""From an embedding to a picture: diffusion model, Fusion Prior, sampler, previews."""
