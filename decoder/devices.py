"""The devices that settings name, and the streams by which one kind of work gives way to another.

Torch is imported where it is needed: settings are read by processes without it.
"""

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from hvf_core.problem import Problem

if TYPE_CHECKING:
    import torch


def _is_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError(f"there is no device '{name}': give auto, cpu, cuda or cuda:1")
    return name


Device = Annotated[str, AfterValidator(_is_device)]
"""auto, cpu, cuda (the first card) or cuda:N."""


def device_of(name: Device, *, last: bool = False) -> "torch.device":
    """The device of a setting; a card that it names is this process's own from now on.

    Args:
        name: `auto` takes a card where there is one.
        last: `auto` takes the last of several cards, and not the first.

    Raises:
        Problem: there is no such card.
    """
    import torch

    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        name = f"cuda:{torch.cuda.device_count() - 1}" if last else "cuda"
    device = torch.device(name)
    if device.type == "cpu":
        return device
    n_cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= max(1, n_cards) or not torch.cuda.is_available():
        raise Problem(
            f"the device '{name}' is not there, torch sees {n_cards or 'no'} CUDA cards here: give "
            "auto or cpu, or see what `python run_realtime.py doctor` says of cards"
        )
    if device.index is not None:
        torch.cuda.set_device(device)
    return device


def stream_on(device: "torch.device", *, urgent: bool) -> "torch.cuda.Stream":
    """A stream of a card: of what one process has queued, a card takes what is urgent first."""
    import torch

    return torch.cuda.Stream(device, priority=-1 if urgent else 0)  # 0: the lowest that there is
