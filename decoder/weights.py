"""The weights of networks, as arrays and back: a network is filled from a file, or kept as one."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hvf_core.problem import Problem

Network = TypeVar("Network", bound=nn.Module)


def filled(
    make: Callable[[], Network], tensors: Mapping[str, Tensor | np.ndarray], file: Path
) -> Network:
    """A network with the tensors of a file, in evaluation mode.

    It is made once its sizes are known to be the tensors': a manifest can ask for any.

    Raises:
        Problem: when they are not the network's.
    """
    found = {name: torch.as_tensor(tensor) for name, tensor in tensors.items()}
    try:
        with torch.device("meta"):  # where tensors have a size, and take no memory
            make().load_state_dict(found, assign=True)
        network = make()
        network.load_state_dict(found)
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise Problem(
            f"'{file}' does not fit the manifest beside it ({reason}): make its folder again"
        ) from None
    return network.eval()


def arrays_of(network: nn.Module) -> dict[str, np.ndarray]:
    """All parameters and buffers of a network on the CPU, by name."""
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def weights_sha256(network: nn.Module, settings: str = "") -> str:
    """Names a network by its weights, and by settings that these do not tell."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
