"""Image encoders that are the VAE of a diffusion model: how an image looks."""

import torch
from torch import Tensor

from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.parts import Parts, squared
from index.encoders.spec import EncoderSpec

_SIZE_PX = 128
"""The paper's, which the demo has too."""


def load(spec: EncoderSpec) -> Parts:
    """Loads one; raises what diffusers does where its weights cannot be had.

    A folder can be that of a whole pipeline, or of the VAE alone.
    """
    declare_missing_ops()
    from diffusers.models import AutoencoderKL

    alone = spec.path is not None and (spec.path / "config.json").exists()
    vae = AutoencoderKL.from_pretrained(
        spec.source,
        subfolder=None if alone else spec.subfolder,
        torch_dtype=torch.float32,
        use_safetensors=True,
        low_cpu_mem_usage=False,
    )

    def embed(images: Tensor) -> Tensor:
        # The mode, as a sample would differ between machines.
        latent = vae.encode(images * 2 - 1).latent_dist.mode() * vae.config.scaling_factor
        return latent.flatten(1)

    size_px = spec.size_px or _SIZE_PX
    return Parts(vae, lambda image: squared(image, size_px), embed)
