"""SDXL at its full size, without its numbers: a base and an adapter on torch's meta device."""

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from decoder.painting.attention import CROSS
from decoder.painting.base import DiffusionBase
from decoder.painting.sampler import N_TOKENS
from decoder.painting.spec import BaseSpec
from stream.bench.gpu.sdxl import FULL, drawn_networks
from tests.tiny_sdxl import tiny_scheduler

DIM, WIDTH = FULL.dim, FULL.width


def full_base(spec: BaseSpec, dtype: torch.dtype) -> DiffusionBase:
    """As stabilityai/stable-diffusion-xl-base-1.0 and madebyollin/taesdxl configure it."""
    with torch.device("meta"):
        unet, vae, tiny_vae, prompt, pooled = drawn_networks(FULL)
    for network in (unet, vae, tiny_vae):
        network.to(dtype)
    return DiffusionBase(
        spec, unet, vae, tiny_scheduler(), prompt.to(dtype), pooled.to(dtype), tiny_vae
    )


def full_adapter(unet: UNet2DConditionModel) -> Mapping[str, Mapping[str, Tensor]]:
    """A plain IP-Adapter for it, as stock diffusers names it."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=unet.dtype, device="meta")

    maps = {
        f"{i}.to_{kind}_ip.weight": empty(
            unet.get_submodule(name.removesuffix(".processor")).inner_dim, WIDTH
        )
        for i, name in enumerate(unet.attn_processors)
        if name.endswith(CROSS)
        for kind in "kv"
    }
    projection = {
        "proj.weight": empty(N_TOKENS * WIDTH, DIM),
        "proj.bias": empty(N_TOKENS * WIDTH),
        "norm.weight": empty(WIDTH),
        "norm.bias": empty(WIDTH),
    }
    return {"image_proj": projection, "ip_adapter": maps}
