"""The brain encoder: a network from a trial to a vector in the images' space."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from pydantic import JsonValue
from torch import Tensor, nn


class BrainEncoder(nn.Module, ABC):
    """Embeds trials: (n, channels, times) -> (n, dim), not normalised.

    Args:
        n_channels: EEG channels of a trial.
        n_times: samples of a trial.
        dim: width of the embedding.
    """

    options: Mapping[str, JsonValue] = MappingProxyType({})
    """What it was made with beside these, where that is not always the same."""

    def __init__(self, n_channels: int, n_times: int, dim: int) -> None:
        super().__init__()
        self.n_channels, self.n_times, self.dim = n_channels, n_times, dim

    def forward(self, trials: Tensor) -> Tensor:
        """Raises ValueError when the trials are not (n, n_channels, n_times)."""
        if trials.ndim != 3 or trials.shape[1:] != (self.n_channels, self.n_times):
            raise ValueError(
                f"trials have shape {tuple(trials.shape)}, this encoder takes "
                f"(n, {self.n_channels} channels, {self.n_times} times)"
            )
        return self.embed(trials)

    @abstractmethod
    def embed(self, trials: Tensor) -> Tensor:
        """The embeddings of trials whose shape is right."""


class LinearInputEncoder(BrainEncoder):
    """Starts with one linear map of the whole trial, `project`; the rest is `head`.

    The trial is flattened channel by channel: sample t of channel c is input `c * n_times + t`.
    Because `project` is linear, the shares of a trial's slices, and the repeats of a stimulus, can
    be summed before `head`; that is why the two are separate.
    """

    head: nn.Module
    """Maps (n, dim) to (n, dim); each encoder makes its own."""

    def __init__(self, n_channels: int, n_times: int, dim: int) -> None:
        super().__init__(n_channels, n_times, dim)
        self.project = nn.Linear(n_channels * n_times, dim)

    def embed(self, trials: Tensor) -> Tensor:
        return self.head(self.project(trials.flatten(1)))
