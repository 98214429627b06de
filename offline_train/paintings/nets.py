"""Networks whose features score painted pictures, loaded.

A network that the painter has learnt from is a lenient judge: where it is one of the encoders that
z_f is made of, as the demo's classifier is, its scores show that something came through, and say
little about how it would look to another network.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file
from torch import Tensor, nn

from hvf_core.hub.load import Source, file_at, from_hub
from hvf_core.problem import Problem, needed
from hvf_core.specs import is_path, loading
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.classifier import load_classifier
from index.encoders.clip import open_visual
from offline_train.paintings.metrics import resized
from offline_train.paintings.spec import PAPER, SCORES, SOURCES, FeatureNetSpec

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
BATCH = 16


@dataclass(frozen=True)
class FeatureNet:
    """A loaded network."""

    spec: FeatureNetSpec
    _embed: Callable[[Tensor], Tensor] = field(repr=False)
    _device: str = "cpu"

    @torch.inference_mode()
    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Of pictures, uint8 (n, height, width, 3), as float32 (n, values)."""
        parts = []
        for first in range(0, len(pictures), BATCH):
            images = resized(pictures[first : first + BATCH], self.spec.size_px)
            parts.append(self._embed(images.to(self._device)).flatten(1).float().cpu())
        return torch.cat(parts).numpy()


def load_feature_net(spec: FeatureNetSpec, device: str = "cpu") -> FeatureNet:
    """Loads a network's weights, from a file or through its library's own cache.

    Raises:
        Problem: they cannot be had or are damaged, or there is no such layer.
    """
    loader = {
        "torchvision": _load_torchvision,
        "open_clip": _load_open_clip,
        "classifier": _load_classifier,
    }[spec.kind]
    way_out = "connect to the network once, or give 'source' as a local .safetensors"
    what = _what(spec)
    with loading(what, spec.source, way_out, EOFError, HTTPError, pickle.UnpicklingError):
        network, prepare = loader(spec)
    network.eval().requires_grad_(False).to(device)
    embed = network if spec.layer is None else _output_of(network, spec.layer, what)
    return FeatureNet(spec, lambda images: embed(prepare(images)), device)


def _what(spec: FeatureNetSpec) -> str:
    return f"the feature network '{spec.name}'"


def _fetched(spec: FeatureNetSpec) -> tuple[tuple[Source, ...], str]:
    """What to fetch for it, and what that is called."""
    return (SOURCES, SCORES) if spec in PAPER else ((), "")


def _output_of(network: nn.Module, name: str, what: str) -> Callable[[Tensor], Tensor]:
    """What one layer gives."""
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        raise Problem(
            f"{what} has no layer '{name}': name one of "
            f"{', '.join(there for there, _ in network.named_children())}, or one within"
        ) from None
    caught: list[Tensor] = []
    # A copy, as the next layer may compute in place.
    layer.register_forward_hook(lambda module, args, output: caught.append(output.clone()))

    def embed(images: Tensor) -> Tensor:
        network(images)
        return caught.pop()

    return embed


_Loaded = tuple[nn.Module, Callable[[Tensor], Tensor]]
# What torchvision sets besides when it loads weights of its own: these were trained on pictures
# normalised otherwise, and put that right themselves.
_BUILT_WITH = {
    name: {"transform_input": True, "init_weights": False} for name in ("inception_v3", "googlenet")
}
_HEAD = "fc"


def _load_torchvision(spec: FeatureNetSpec) -> _Loaded:
    declare_missing_ops()
    from torchvision import models

    if spec.source.endswith(".safetensors"):
        tensors = load_file(spec.source)
    else:
        is_address = spec.source.startswith("https://")
        place = spec.source if is_address else models.get_weight(spec.source).url
        file = file_at(_what(spec), place, *_fetched(spec))
        # Downloads come as pickles: `weights_only` refuses whatever is more than tensors.
        found = torch.load(file, map_location="cpu", weights_only=True)
        tensors = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    with torch.device("meta"):  # initial weights would take longer than all else
        more = _BUILT_WITH.get(needed(spec.architecture), {})
        network = models.get_model(spec.architecture, weights=None, **more)
    # What trained itself has no classes but heads of its own; neither is needed here.
    wanted = network.state_dict().keys()
    lacking = [n for n in wanted - tensors.keys() if not n.startswith(f"{_HEAD}.")]
    if lacking:
        raise ValueError(
            f"its tensors are not those of {spec.architecture}: {', '.join(sorted(lacking)[:3])}"
        )
    if f"{_HEAD}.weight" in wanted - tensors.keys():
        setattr(network, _HEAD, nn.Identity())
    kept = {name: tensors[name] for name in network.state_dict()}
    network.load_state_dict(kept, assign=True)
    return network.float(), _normalised(*_IMAGENET)


def _load_open_clip(spec: FeatureNetSpec) -> _Loaded:
    def load() -> nn.Module:
        return open_visual(spec.architecture, spec.source)[0]

    is_file = is_path(spec.source)
    visual = load() if is_file else from_hub(_what(spec), *_fetched(spec), load)
    return visual, _normalised(*_CLIP)


def _load_classifier(spec: FeatureNetSpec) -> _Loaded:
    network = load_classifier(spec.source)
    return nn.Sequential(*network.body, *network.neck), lambda images: images * 2 - 1


def _normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Tensor], Tensor]:
    offset, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return lambda images: (images - offset.to(images)) / scale.to(images)
