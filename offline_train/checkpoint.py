"""The state of a training, in one file, so that it can go on from there.

The file is called by what decides the training's result, wherever that is to be written: other data
or settings begin for themselves, the same ones go on.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW

from hvf_core.artifact import usual_mode, whole_file
from hvf_core.problem import Problem

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
    """Writes the state of a training into a directory, in place of an earlier one.

    `history` says how far it is; `average` holds running means of parameters, by their names. A
    disk that is full is a `Problem`; the earlier state is then still there.
    """
    tensors = {f"average/{name}": tensor for name, tensor in (average or {}).items()}
    for name, parameter in model.named_parameters():
        tensors[name] = parameter.detach()
        for moment in MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    tensors |= dict(model.named_buffers())  # the running means of batch normalisation
    directory.mkdir(parents=True, exist_ok=True)
    path = state_file(directory, training)
    with whole_file(path) as draft, usual_mode(draft):
        save_file(tensors, draft, {"training": training, "history": json.dumps([*history])})


def load_checkpoint(
    directory: Path,
    training: str,
    model: nn.Module,
    optimizer: AdamW,
    average: Mapping[str, Tensor] | None = None,
) -> list[dict[str, float]]:
    """Puts the state of an interrupted training into `model`, `optimizer` and `average`.

    Returns the history so far, empty when there is no checkpoint; a damaged one is a `Problem`.
    """
    path = state_file(directory, training)
    for draft in directory.glob(f".{path.name}.draft-*"):  # of a training that was killed
        draft.unlink(missing_ok=True)
    if not path.exists():
        return []
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise Problem(f"{path} is damaged ({error}): delete it to train from the start") from error
    if metadata is None or metadata.get("training") != training:
        raise Problem(f"{path} is of another training: delete it to train from the start")
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


def state_file(directory: Path, training: str) -> Path:
    """Where the state of a training is, or will be."""
    return directory / f"{training[:16]}.safetensors"
