"""Image encoders that are the VAE of a diffusion model: how an image looks."""

import torch
from torch import Tensor

from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.parts import Parts, squared
from index.encoders.spec import EncoderSpec


def load(spec: EncoderSpec) -> Parts:
    """Loads one; raises what diffusers does where its weights cannot be had."""
    declare_missing_ops()
    from diffusers.models import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(
        spec.source,
        subfolder=spec.subfolder,
        torch_dtype=torch.float32,
        use_safetensors=True,
        low_cpu_mem_usage=False,
    )

    def embed(images: Tensor) -> Tensor:
        # The mode, as a sample would differ between machines.
        latent = vae.encode(images * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
        return latent.flatten(1)

    return Parts(vae, lambda image: squared(image, spec.size_px), embed)
