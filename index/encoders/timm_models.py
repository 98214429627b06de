"""Image encoders of timm, at any layer: DINOv2, SynCLR, and whatever else it has."""

import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from hvf_core.hub.load import file_at
from hvf_core.problem import Problem, needed
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.parts import Parts
from index.encoders.published import TIMM_FILE, on_hub, to_fetch
from index.encoders.spec import EncoderSpec, Pool


def load(spec: EncoderSpec) -> Parts:
    """Loads one; raises OSError where weights cannot be had, ValueError where they do not fit."""
    declare_missing_ops()
    architecture = needed(spec.architecture)
    options, found = _options(spec, architecture), _weights(spec)
    network = _made(architecture, options, found, "meta")
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        network = _made(architecture, options, found, "cpu")  # some compute tensors of their own
    prepare, prepared = _preparation(spec, network.pretrained_cfg)
    pool = _pool(network, spec)
    told = {
        "architecture": architecture.partition(".")[0],
        "layer": spec.layer,
        "pool": pool,
        "prepared": prepared,
    }
    return Parts(network, prepare, _embedding(network, spec.layer, pool), told)


def _options(spec: EncoderSpec, architecture: str) -> dict[str, Any]:
    """The size, for networks that have to know it when they are made; refuses what timm lacks."""
    import timm

    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), 3, 0.4)
        raise Problem(
            f"image encoder '{spec.name}': timm has no model '{architecture}': correct it, perhaps "
            f"to {' or '.join(near) or 'one of timm.list_models()'}"
        )
    config = timm.models.get_pretrained_cfg(architecture, allow_unregistered=True)
    fixed = spec.size_px and config is not None and config.fixed_input_size
    return {"img_size": spec.size_px} if fixed else {}


def _made(
    architecture: str, options: Mapping[str, Any], found: Mapping[str, Tensor], device: str
) -> Any:
    """A network of these tensors; on `meta` no others are drawn before: 40 s for a giant."""
    import timm

    with torch.device(device):
        network = timm.create_model(architecture, num_classes=0, **options)
    _fill(network, found)
    return network


def _weights(spec: EncoderSpec) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint; from a .pth nothing else is read."""
    from huggingface_hub import hf_hub_download
    from timm.models import load_state_dict

    if spec.path:
        file = spec.path
    elif on_hub(spec):
        file = Path(hf_hub_download(spec.source, TIMM_FILE))
    else:
        file = file_at(f"image encoder '{spec.name}'", spec.source, *to_fetch(spec))
    return load_state_dict(str(file), use_ema=False, weights_only=True)


def _fill(network: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Fills a network by timm's own rules for its family, and refuses what it would pass over.

    Positions are interpolated without antialiasing, as DINOv2's authors and transformers do.
    """
    from timm.models.vision_transformer import VisionTransformer

    first = next(iter(network.state_dict()))
    ends = (name.removesuffix(first) for name in found if name.endswith(f".{first}"))
    prefix = "" if first in found else next(ends, "")  # of whatever held it in training
    tensors = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert and isinstance(network, VisionTransformer):
        convert = partial(convert, antialias=False)
    tensors = convert(tensors, network) if convert else tensors
    lacking, more = network.load_state_dict(tensors, strict=False, assign=True)
    modules = {n for n, module in network.named_children() if not isinstance(module, nn.Identity)}
    wrong = lacking or [name for name in more if name.partition(".")[0] in modules]
    if wrong:
        raise ValueError(f"its tensors are not this architecture's: {', '.join(wrong[:3])}")


def _preparation(
    spec: EncoderSpec, config: Mapping[str, object]
) -> tuple[Callable[..., Tensor], dict[str, object]]:
    """What makes a PIL image the network's input, and all numbers that decide it."""
    from timm.data import create_transform, resolve_data_config
    from torchvision import transforms

    asked = {"img_size": spec.size_px or None, "mean": spec.mean, "std": spec.std}
    data = resolve_data_config(asked, pretrained_cfg=config)
    if not spec.resize:
        return _of_array(create_transform(**data)), data
    size_px = data["input_size"][-1]
    if spec.resize[-1][0] < size_px:
        raise ValueError(f"'resize' ends at {spec.resize[-1][0]} px, and it sees {size_px} px")
    first, *then = (
        transforms.Resize(px, transforms.InterpolationMode(how)) for px, how in spec.resize
    )
    cut = (transforms.CenterCrop(size_px), transforms.Normalize(data["mean"], data["std"]))
    steps = transforms.Compose([first, transforms.ToTensor(), *then, *cut])
    told = {"size_px": size_px, "mean": data["mean"], "std": data["std"], "resize": spec.resize}
    return _of_array(steps), told


def _of_array(transform: Callable[[Image.Image], Tensor]) -> Callable[..., Tensor]:
    return lambda image: transform(Image.fromarray(image))


def _pool(network: Any, spec: EncoderSpec) -> Pool | None:
    """How tokens become a vector; None: as timm does it. Refuses what a network does not have."""
    if spec.layer is None and spec.pool is None:
        return None
    n_blocks = len(getattr(network, "blocks", ()))
    if not n_blocks or (spec.layer or 0) > n_blocks:
        raise ValueError(f"it has {n_blocks} blocks of tokens, of which to take 'layer' and 'pool'")
    n_prefix = network.num_prefix_tokens
    pool = spec.pool or ("cls" if n_prefix else "mean")
    if pool == "cls" and not n_prefix:
        raise ValueError("it has no class token: 'pool' can be 'mean' or 'patches'")
    return pool


def _embedding(network: Any, layer: int | None, pool: Pool | None) -> Callable[[Tensor], Tensor]:
    """From a batch to vectors; the blocks after `layer` are dropped."""
    if pool is None:
        return network
    n_prefix, tokens = network.num_prefix_tokens, network.forward_features
    if layer is not None:
        network.prune_intermediate_layers([layer - 1], prune_norm=True)  # the norm, too

    def embed(images: Tensor) -> Tensor:
        of_all = tokens(images)
        if pool == "cls":
            return of_all[:, 0]
        return of_all[:, n_prefix if pool == "patches" else 0 :].mean(1)

    return embed
