"""The state of a training, in one file, so that it can go on from there."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW

from hvf_core.problem import Problem

FILE = "checkpoint.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What AdamW keeps for each parameter."""


def identify(facts: JsonValue) -> str:
    """Names a training by everything that decides its result."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_checkpoint(
    directory: Path,
    training: str,
    model: nn.Module,
    optimizer: AdamW,
    history: Sequence[dict[str, float]],
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes the state of a training, in place of an earlier one.

    `history` says how far it is; `average` holds running means of parameters, by their names.
    """
    tensors = {f"average/{name}": tensor for name, tensor in (average or {}).items()}
    for name, parameter in model.named_parameters():
        tensors[name] = parameter.detach()
        for moment in MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    tensors |= dict(model.named_buffers())  # the running means of batch normalisation
    directory.mkdir(parents=True, exist_ok=True)
    draft = directory / f".{FILE}.draft-{os.getpid()}"
    save_file(tensors, draft, {"training": training, "history": json.dumps(list(history))})
    draft.replace(directory / FILE)


def load_checkpoint(
    directory: Path,
    training: str,
    model: nn.Module,
    optimizer: AdamW,
    average: Mapping[str, Tensor] | None = None,
) -> list[dict[str, float]]:
    """Puts the state of an interrupted training into `model`, `optimizer` and `average`.

    Returns the history so far, empty when there is no checkpoint; a damaged one, or one of another
    training, is a `Problem`.
    """
    path = directory / FILE
    if not path.exists():
        return []
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise Problem(f"{path} is damaged ({error}): delete it to train from the start") from error
    if metadata is None or metadata.get("training") != training:
        raise Problem(
            f"{path} is of a training with other data or settings: "
            "delete it, or give another checkpoint directory"
        )
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[name])
        optimizer.state[parameter] = {
            moment: tensors[f"{moment}/{name}"].to(parameter.device) for moment in MOMENTS
        }
    for name, buffer in model.named_buffers():
        buffer.copy_(tensors[name])
    for name, mean in (average or {}).items():
        mean.copy_(tensors[f"average/{name}"])
    return json.loads(metadata["history"])
