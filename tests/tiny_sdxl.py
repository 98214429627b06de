"""Random models of SDXL's shape and a fraction of its size, and the stock pipelines around them."""

import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerDiscreteScheduler,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor

from decoder.painting.base import EMPTY_PROMPT, DiffusionBase, load_base
from decoder.painting.spec import BASE, BaseSpec

SIZE_PX = 64
DIM = 12
WIDTH = 64
POOLED = 32


def tiny_unet() -> UNet2DConditionModel:
    """Time, sizes and a pooled prompt as in SDXL; eight cross-attention layers."""
    return UNet2DConditionModel(
        sample_size=SIZE_PX // 8,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        cross_attention_dim=WIDTH,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + POOLED,
        norm_num_groups=8,
    )


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16,) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE_PX,
        scaling_factor=0.13025,
    )


def tiny_decoder() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    )


def tiny_scheduler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )


@cache
def _networks(seed: int) -> Path:
    """Made once in a process, as that takes a while."""
    folder = Path(mkdtemp())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tiny_unet().save_pretrained(folder / "unet")
        tiny_vae().save_pretrained(folder / "vae")
        tiny_decoder().save_pretrained(folder / "tiny_vae")
        tiny_scheduler().save_pretrained(folder / "scheduler")
        prompt = {
            "prompt_embeds": torch.randn(1, 7, WIDTH),
            "pooled_prompt_embeds": torch.randn(1, POOLED),
        }
    save_file(prompt, folder / EMPTY_PROMPT)
    return folder


def write_tiny_base(folder: Path, seed: int = 0, **spec: object) -> Path:
    """A base's folder, as `load_base` reads it; returns it."""
    shutil.copytree(_networks(seed), folder, dirs_exist_ok=True)
    told = {
        "name": "tiny",
        "family": "tiny",
        "source": "./",
        "tiny_vae": "./tiny_vae",
        "scheduler": "EulerDiscreteScheduler",
        "steps": 4,
        "guidance": 0.0,
        "size_px": SIZE_PX,
        "latent_rgb": ((60, -60, 25, -70, 150), (60, -5, 15, -50, 140), (60, 10, -5, -35, 130)),
    }
    text = BaseSpec(**(told | spec)).model_dump_json(indent=2)
    (folder / BASE).write_text(text, encoding="utf-8")
    return folder


def write_text_encoders(folder: Path) -> tuple[Any, ...]:
    """Two random CLIP text encoders, whose widths together are those of the tiny UNet's tokens."""
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "!": 2, "a</w>": 3}
    written = []
    for n, kind in enumerate((CLIPTextModel, CLIPTextModelWithProjection)):
        suffix = "_2" * n
        tokenizer = CLIPTokenizer(
            vocab=words, merges=[], pad_token="!" if n else "<|endoftext|>", model_max_length=77
        )
        tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
        torch.manual_seed(n)
        config = CLIPTextConfig(
            vocab_size=4,
            hidden_size=WIDTH // 2,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            projection_dim=32,
            bos_token_id=0,
            eos_token_id=1,
        )
        written.append(kind(config).eval())
        written[-1].save_pretrained(folder / f"text_encoder{suffix}")
    return tuple(written)


def tiny_base(folder: Path, seed: int = 0, **spec: object) -> DiffusionBase:
    """The same, loaded."""
    return load_tiny_base(write_tiny_base(folder, seed, **spec))


def load_tiny_base(folder: Path) -> DiffusionBase:
    read = BaseSpec.model_validate_json((folder / BASE).read_text(encoding="utf-8"))
    return load_base(read.at(folder))


def tiny_adapter(
    unet: UNet2DConditionModel, dim: int = DIM, seed: int = 1
) -> Mapping[str, Mapping[str, Tensor]]:
    """A random plain IP-Adapter for a UNet, as stock diffusers names it."""
    rng = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng) / shape[-1] ** 0.5

    width = unet.config.cross_attention_dim
    maps = {}
    for i, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            inner = unet.get_submodule(name.removesuffix(".processor")).inner_dim
            for kind in "kv":
                maps[f"{i}.to_{kind}_ip.weight"] = random(inner, width)
    projection = {
        "proj.weight": random(4 * width, dim),
        "proj.bias": 0.1 * random(4 * width),
        "norm.weight": 1 + 0.1 * random(width),
        "norm.bias": 0.1 * random(width),
    }
    return {"image_proj": projection, "ip_adapter": maps}
