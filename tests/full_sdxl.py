"""SDXL at its full size, without its numbers: a base and an adapter on torch's meta device."""

from collections.abc import Mapping

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import Tensor

from decoder.painting.attention import CROSS
from decoder.painting.base import DiffusionBase
from decoder.painting.sampler import N_TOKENS
from decoder.painting.spec import BaseSpec
from tests.tiny_sdxl import tiny_scheduler

DIM = 1024
WIDTH = 2048
POOLED = 1280


def full_base(spec: BaseSpec, dtype: torch.dtype) -> DiffusionBase:
    """As stabilityai/stable-diffusion-xl-base-1.0 and madebyollin/taesdxl configure it."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(320, 640, 1280),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=WIDTH,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=6 * 256 + POOLED,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=1024,
            scaling_factor=0.13025,
        )
        tiny_vae = AutoencoderTiny()
        prompt, pooled = torch.empty(1, 77, WIDTH), torch.empty(1, POOLED)
    for network in (unet, vae, tiny_vae):
        network.to(dtype).eval().requires_grad_(False)
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
