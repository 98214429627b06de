"""SDXL with random weights: as large and as slow as the real one, and of what it paints nothing is.

It is built where it is to run, from the settings that stabilityai/stable-diffusion-xl-base-1.0 and
madebyollin/taesdxl have; nothing is fetched. The empty prompt is drawn as well.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from decoder.painting.attention import cross_attentions
from decoder.painting.base import DiffusionBase
from decoder.painting.sampler import N_TOKENS, Sampler, SamplerSettings
from decoder.painting.spec import PRESETS
from stream.bench.gpu.card import Card

# Once decoder.painting.base has made it importable.
from diffusers import EulerAncestralDiscreteScheduler, EulerDiscreteScheduler  # isort: skip
from diffusers.models import (  # isort: skip
    AutoencoderKL,
    AutoencoderTiny,
    UNet2DConditionModel,
)

N_STEPS = 4
_BLOCKS_OF_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
}
_NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


class Size(NamedTuple):
    """What tells the real size from one that a CPU paints with in no time."""

    px: int
    dim: int
    width: int
    pooled: int
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    tiny_vae: Mapping[str, Any]


FULL = Size(
    512,
    1024,
    2048,
    1280,
    {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "addition_time_embed_dim": 256,
    },
    {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 1024},
    {},
)
TINY = Size(
    64,
    12,
    32,
    16,
    {
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "transformer_layers_per_block": (1, 1),
        "attention_head_dim": (2, 4),
        "addition_time_embed_dim": 8,
        "norm_num_groups": 8,
    },
    {"block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 8},
    {
        "encoder_block_out_channels": (8,) * 4,
        "decoder_block_out_channels": (8,) * 4,
        "num_encoder_blocks": (1,) * 4,
        "num_decoder_blocks": (1,) * 4,
    },
)


def size_of(card: Card) -> Size:
    return TINY if card.tiny else FULL


def drawn_networks(size: Size) -> tuple[Any, Any, Any, Tensor, Tensor]:
    """UNet, VAE, tiny VAE, and the empty prompt, by token and pooled, made where torch makes."""
    unet = UNet2DConditionModel(
        sample_size=size.px // 8,
        cross_attention_dim=size.width,
        use_linear_projection=True,
        addition_embed_type="text_time",
        projection_class_embeddings_input_dim=6 * size.unet["addition_time_embed_dim"]
        + size.pooled,
        **size.unet,
    )
    vae, tiny_vae = AutoencoderKL(**_BLOCKS_OF_VAE, **size.vae), AutoencoderTiny(**size.tiny_vae)
    for network in (unet, vae, tiny_vae):
        network.eval().requires_grad_(False)
    return unet, vae, tiny_vae, torch.randn(1, 77, size.width), torch.randn(1, size.pooled)


def random_base(card: Card, *, trains: bool = False) -> DiffusionBase:
    """A diffusion model of SDXL's kind on the card, in half precision there.

    `trains` gives it the schedule of SDXL itself, and else it has that of SDXL-Turbo.
    """
    spec = PRESETS["sdxl-base" if trains else "sdxl-turbo"]
    with torch.device(card.device), _made_in(card.half):
        torch.manual_seed(0)
        unet, vae, tiny_vae, prompt, pooled = drawn_networks(size_of(card))
    scheduler = (
        EulerDiscreteScheduler(**_NOISE, timestep_spacing="leading", steps_offset=1)
        if trains
        else EulerAncestralDiscreteScheduler(**_NOISE, timestep_spacing="trailing")
    )
    return DiffusionBase(spec, unet, vae, scheduler, prompt, pooled, tiny_vae)


def random_sampler(card: Card, base: DiffusionBase, size_px: int) -> Sampler:
    """Paints with a random IP-Adapter in four steps, with the tiny decoder's previews."""
    size = size_of(card)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, device=card.device, dtype=card.half) / shape[-1] ** 0.5

    maps = {
        f"{i}.to_{kind}_ip.weight": drawn(layer.inner_dim, size.width)
        for i, (_, layer) in cross_attentions(base.unet).items()
        for kind in "kv"
    }
    projection = {
        "proj.weight": drawn(N_TOKENS * size.width, size.dim),
        "proj.bias": drawn(N_TOKENS * size.width),
        "norm.weight": 1 + drawn(size.width),
        "norm.bias": drawn(size.width),
    }
    settings = SamplerSettings(
        steps=N_STEPS, size_px=size_px, preview="tiny", channels_last=card.is_gpu, captured=True
    )
    sampler = Sampler(base, {"image_proj": projection, "ip_adapter": maps}, settings)
    sampler.warm_up()
    return sampler


def embedding(card: Card) -> Tensor:
    """What is painted, (1, dim), on the host."""
    return torch.randn(1, size_of(card).dim, generator=torch.Generator().manual_seed(0))


@contextmanager
def _made_in(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
