"""The exponential mean of weights: what a training of a Fusion Prior leaves as its result."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """The exponential mean of what is learnt, by the name of the parameter."""

    def __init__(self, networks: nn.Module, decay: float) -> None:
        self._parameters = dict(networks.named_parameters())
        self._decay = decay
        self.tensors = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        # Early on a short memory, as the first weights say nothing.
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.tensors.values()), list(self._parameters.values()), 1 - decay
        )

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the mean in the place of the weights."""
        kept = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._fill(self.tensors)
        try:
            yield
        finally:
            self._fill(kept)

    def settle(self) -> None:
        """The same for good."""
        self._fill(self.tensors)

    @torch.no_grad()
    def _fill(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])
