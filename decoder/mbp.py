"""MBP, the paper's brain encoder: one linear map of the whole trial and one residual block."""

from torch import Tensor, nn

from decoder.residual import ResMLP


class MBP(nn.Module):
    """Embeds trials: (n, channels, times) -> (n, dim), not normalised (HVF, ICLR 2026).

    The trial is flattened channel by channel: sample t of channel c is input `c * n_times + t`.
    Because `project` is linear, the shares of a trial's slices, and the repeats of a stimulus, can
    be summed before `head`; that is why the two are separate.

    Args:
        n_channels: EEG channels of a trial.
        n_times: samples of a trial.
        dim: width of the embedding.
        hidden: inner width of the residual block.
        dropout: of the residual block, in training only.
    """

    def __init__(
        self,
        n_channels: int,
        n_times: int,
        dim: int = 1024,
        hidden: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.n_times = n_times
        self.project = nn.Linear(n_channels * n_times, dim)
        self.head = ResMLP(dim, hidden, dropout)

    def forward(self, trials: Tensor) -> Tensor:
        """Raises ValueError when the trials are not (n, n_channels, n_times)."""
        if trials.ndim != 3 or trials.shape[1:] != (self.n_channels, self.n_times):
            raise ValueError(
                f"trials have shape {tuple(trials.shape)}, this encoder takes "
                f"(n, {self.n_channels} channels, {self.n_times} times)"
            )
        return self.head(self.project(trials.flatten(1)))
