"""Brain encoders of braindecode, which their users install, with weights that they have fetched."""

import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HTTPError
from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from decoder.brain.base import BrainEncoder
from hvf_core.artifact import file_sha256
from hvf_core.hub.load import Source, from_hub
from hvf_core.problem import Problem, needed
from hvf_core.specs import loading

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_HEAD = "final_layer."
_TIMES = "temporal_embedding"
_TOLD_HERE = {
    *("n_outputs", "n_chans", "chs_info", "n_times", "input_window_seconds", "sfreq"),
    *("return_encoder_output", "return_feature", "return_features", "braindecode_version"),
}
"""Of a network's configuration: what follows from the trials, or from giving embeddings."""


class OfBraindecode(BrainEncoder):
    """A network of braindecode whose last layer gives the embedding.

    Args:
        model: its class in `braindecode.models`.
        channels: names of a trial's channels; some networks know places by them.
        n_times, dim: as in `BrainEncoder`.
        rate_hz: of the trials.
        options: what else its class is told, such as the number of its layers.

    Raises:
        Problem: braindecode cannot be imported, or its network does not take such trials.
    """

    def __init__(
        self,
        model: str,
        channels: Sequence[str],
        n_times: int,
        rate_hz: float,
        dim: int,
        options: Mapping[str, JsonValue],
    ) -> None:
        super().__init__(len(channels), n_times, dim)
        trial = f"trials of {len(channels)} channels and {n_times} samples at {rate_hz:g} Hz"
        told: dict[str, Any] = {
            "n_outputs": dim,
            "n_chans": len(channels),
            "chs_info": [{"ch_name": name} for name in channels],
            "n_times": n_times,
            "sfreq": float(rate_hz),
        }
        self.options = dict(options)
        _refuse_code(options)
        make = partial(_class(model).from_config, {**options, **told})
        try:
            # What it computes while it is made needs numbers, wherever its weights are to be.
            with torch.device("cpu"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.network: nn.Module = make()
                by_name = "ch_names" in inspect.signature(self.network.forward).parameters
                self._named = {"ch_names": list(channels)} if by_name else {}
                shape = self._tried()
        except Exception as fault:  # of any kind, and of the network's own layers
            raise Problem(
                f"{model} of braindecode does not take {trial} ({_told(fault)}): prepare them as "
                "it was trained, as docs/encoders.md tells"
            ) from fault
        if shape != (1, dim):
            raise Problem(
                f"{model} of braindecode gives {shape} of a trial, an embedding is {(1, dim)}: "
                "take other options, or another encoder"
            )

    def embed(self, trials: Tensor) -> Tensor:
        return self.network(trials, **self._named)

    def _tried(self) -> tuple[int, ...]:
        """The shape of what it gives, without a change to it."""
        with torch.no_grad():
            given = self.network.eval()(
                torch.zeros(1, self.n_channels, self.n_times), **self._named
            )
        self.network.train()
        return tuple(given.shape)

    def take(self, weights: Mapping[str, Tensor], source: str) -> list[nn.Parameter]:
        """Takes weights for all but the last layer, and gives back the parameters that have them.

        Raises:
            Problem: they are of another network, or of other sizes.
        """
        ours = {n: t for n, t in self.network.state_dict().items() if not n.startswith(_HEAD)}
        fitting = dict(weights)
        if (whole := fitting.get(_TIMES)) is not None and _TIMES in ours:
            # One for each second of a trial, the first of which ours are.
            fitting[_TIMES] = whole[:, : ours[_TIMES].shape[1]]
        for name, tensor in ours.items():
            found = fitting.get(name)
            if found is None or found.shape != tensor.shape:
                has = "none" if found is None else f"one of {tuple(found.shape)}"
                raise Problem(
                    f"the weights '{source}' have no '{name}' of {tuple(tensor.shape)} but {has}: "
                    f"give those of {type(self.network).__name__}, and trials as it was trained"
                )
        self.network.load_state_dict({name: fitting[name] for name in ours}, strict=False)
        return [p for name, p in self.network.named_parameters() if name in ours]


def _refuse_code(options: Mapping[str, JsonValue]) -> None:
    """Options may name layers, by the module that has them: of torch alone."""
    for name, value in options.items():
        if isinstance(value, str) and "." in value and not value.startswith("torch.nn.modules."):
            raise Problem(
                f"the brain encoder's option '{name}' is '{value}', which is no layer of torch: "
                "take weights or a bundle of somebody else"
            )


def _class(model: str) -> Any:
    """A class of braindecode; what it says while it is imported is of no use to anybody here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = import_module("braindecode.models")
    except (ImportError, OSError, RuntimeError) as fault:  # as of a torchaudio of another torch
        raise Problem(
            f"{model} is of braindecode, which cannot be imported here ({_told(fault)}): install "
            "it with a torchaudio that is made for this torch, as docs/encoders.md tells"
        ) from fault
    return getattr(found, model)


def _told(fault: Exception) -> str:
    return " ".join(f"{type(fault).__name__}: {fault}".split())[:200]


@dataclass(frozen=True)
class Weights:
    """Weights that somebody has trained, in a folder or on the hub as braindecode keeps them."""

    source: str
    """The folder, or `OWNER/NAME` on the hub."""
    options: Mapping[str, JsonValue]
    """Of the network that has them."""
    rate_hz: float | None
    """Of the trials that it was trained with, where that is said."""
    file: Path
    licence: str
    """As the card beside them has it; "" where it has none."""

    @property
    def sha256(self) -> str:
        return file_sha256(self.file)

    def tensors(self) -> dict[str, Tensor]:
        """By name; raises `Problem` where the file is damaged."""
        try:
            return load_file(self.file)
        except (SafetensorError, OSError) as fault:
            raise Problem(f"'{self.file}' is damaged ({_told(fault)}): fetch it again") from fault


def find_weights(source: str) -> Weights:
    """Weights in a folder, in the hub's cache, or on the hub; nothing but tensors is read of them.

    Raises:
        Problem: they are not there, or their configuration cannot be read.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        files = {name: folder / name for name in (CONFIG, WEIGHTS, CARD)}
    elif len(parts := source.split("/")) == 2 and all(parts) and not source.startswith("."):
        what = f"the weights '{source}'"
        published = (Source(place=source, files=(CONFIG, WEIGHTS)),)
        way_out = "name others, agree to their terms on the hub, or give a folder"
        with loading(what, source, way_out, HTTPError):
            files = from_hub(what, published, "", partial(_fetched, source))
    else:
        raise Problem(
            f"the weights '{source}' are no folder here: give one that has {CONFIG} and {WEIGHTS}, "
            "or OWNER/NAME on the hub"
        )
    for name in (CONFIG, WEIGHTS):
        if not files[name].is_file():
            raise Problem(
                f"the weights '{source}' lack {name}: braindecode writes both with save_pretrained"
            )
    try:
        config = json.loads(files[CONFIG].read_text(encoding="utf-8"))
        options = {name: value for name, value in config.items() if name not in _TOLD_HERE}
    except (ValueError, TypeError) as fault:
        raise Problem(f"'{files[CONFIG]}' is no configuration ({_told(fault)})") from fault
    rate_hz, licence = config.get("sfreq"), _licence(files.get(CARD))
    return Weights(source, options, rate_hz, files[WEIGHTS], licence)


def _fetched(source: str) -> dict[str, Path]:
    """The files from the hub's cache, or else from there; without a card where it has none."""
    files = {name: Path(hf_hub_download(source, name)) for name in (CONFIG, WEIGHTS)}
    with suppress(EntryNotFoundError):
        files[CARD] = Path(hf_hub_download(source, CARD))
    return files


def _licence(card: Path | None) -> str:
    """What the head of a hub's card says of it."""
    is_there = card is not None and card.is_file()
    lines = needed(card).read_text(encoding="utf-8").splitlines() if is_there else []
    said = (line.partition(":")[2].strip() for line in lines if line.startswith("license:"))
    return next(said, "")
