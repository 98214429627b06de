"""Cached cross-attention against diffusers' own processors, and on SDXL at its full size."""

from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from torch import Tensor

from decoder.painting.attention import CROSS, CachedCrossAttention, install
from decoder.painting.base import DiffusionBase
from decoder.painting.sampler import Sampler, SamplerSettings
from decoder.painting.spec import PRESETS
from tests.full_sdxl import DIM, full_adapter, full_base
from tests.tiny_sdxl import WIDTH, tiny_adapter, tiny_base

pytestmark = pytest.mark.slow

POSITIONS = 9


@pytest.fixture
def base(tmp_path: Path) -> DiffusionBase:
    return tiny_base(tmp_path)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def cached(base: DiffusionBase, scale: float) -> tuple[str, CachedCrossAttention]:
    """The adapter's first layer: its name, and its processor."""
    install(base.unet, base.prompt_embeds, tiny_adapter(base.unet)["ip_adapter"], scale)
    return next((n, p) for n, p in base.unet.attn_processors.items() if n.endswith(CROSS))


def stock(base: DiffusionBase, name: str, hidden: Tensor, tokens: Tensor, scale: float) -> Tensor:
    """What diffusers' processor gives."""
    layer = base.unet.get_submodule(name.removesuffix(".processor"))
    processor = IPAdapterAttnProcessor2_0(layer.inner_dim, WIDTH, (4,), scale)
    place = list(base.unet.attn_processors).index(name)
    maps = tiny_adapter(base.unet)["ip_adapter"]
    for kind in "kv":
        weight = maps[f"{place}.to_{kind}_ip.weight"]
        getattr(processor, f"to_{kind}_ip")[0].weight.data.copy_(weight)
    prompt = base.prompt_embeds.expand(len(hidden), -1, -1)
    return processor(layer, hidden, (prompt, [tokens[:, None]]))


@pytest.mark.parametrize("scale", [1.0, 0.3])
@torch.no_grad()
def test_a_layer_gives_what_stock_gives(base: DiffusionBase, scale: float) -> None:
    name, processor = cached(base, scale)
    layer = base.unet.get_submodule(name.removesuffix(".processor"))
    hidden, tokens = random(3, POSITIONS, layer.inner_dim), random(3, 4, WIDTH, seed=1)
    processor.bind(tokens)
    assert torch.equal(processor(layer, hidden), stock(base, name, hidden, tokens, scale))


@torch.no_grad()
def test_at_scale_0_a_layer_attends_to_the_prompt_only(base: DiffusionBase) -> None:
    name, processor = cached(base, 0.0)
    layer = base.unet.get_submodule(name.removesuffix(".processor"))
    hidden = random(2, POSITIONS, layer.inner_dim)
    processor.bind(torch.full((2, 4, WIDTH), torch.nan))
    prompt = base.prompt_embeds.expand(2, -1, -1)
    assert torch.equal(processor(layer, hidden), AttnProcessor2_0()(layer, hidden, prompt))


@torch.no_grad()
def test_keys_and_values_are_computed_once_and_kept_in_place(
    base: DiffusionBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, processor = cached(base, 1.0)
    layer = base.unet.get_submodule(name.removesuffix(".processor"))
    hidden = random(1, POSITIONS, layer.inner_dim)
    processor.bind(random(1, 4, WIDTH, seed=1))
    place = processor._image[1][0].data_ptr()
    first = processor(layer, hidden)
    for module in (layer.to_k, layer.to_v):
        monkeypatch.setattr(module, "forward", lambda x: pytest.fail("computed again"))
    processor.bind(random(1, 4, WIDTH, seed=2))
    assert processor._image[1][0].data_ptr() == place  # which a captured graph goes on to read
    second = processor(layer, hidden)
    assert not torch.allclose(first, second, atol=1e-3)


def test_sdxl_at_its_full_size_is_painted_with_without_its_memory() -> None:
    """On the meta device: every shape of the real model, and none of its numbers."""
    spec = PRESETS["sdxl-turbo"]
    base = full_base(spec, torch.float16)
    adapter = full_adapter(base.unet)
    assert sum(p.numel() for p in base.unet.parameters()) == 2_567_463_684
    assert len(base.unet.attn_processors) == 140
    assert (base.n_cross_attentions, base.cross_attention_dim) == (70, 2048)
    # The numbers in the files of published adapters: every second attention is a cross-attention.
    assert {name.partition(".")[0] for name in adapter["ip_adapter"]} == {
        str(i) for i in range(1, 140, 2)
    }
    assert sum(t.numel() for t in adapter["ip_adapter"].values()) == 340_787_200
    assert sum(t.numel() for t in adapter["image_proj"].values()) == 8_400_896

    sampler = Sampler(base, adapter, SamplerSettings(steps=1, preview="none"))
    latents = sampler.denoise(torch.zeros(2, DIM), [1, 2])
    assert latents.shape == (2, 4, 64, 64)
    assert latents.dtype == torch.float16
    assert base.vae.decode(latents).sample.shape == (2, 3, 512, 512)
    assert base.tiny_vae.decode(latents).sample.shape == (2, 3, 512, 512)
