"""Brain encoders of one linear map of the whole trial and one residual block: MBP and UBP."""

from decoder.brain.base import LinearInputEncoder
from decoder.residual import ResLinear, ResMLP


class MBP(LinearInputEncoder):
    """The paper's brain encoder (HVF, ICLR 2026).

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
        super().__init__(n_channels, n_times, dim)
        self.head = ResMLP(dim, hidden, dropout)


class UBP(LinearInputEncoder):
    """The brain encoder of the Uncertainty-aware Blur Prior (UBP, CVPR 2025).

    Args:
        n_channels: EEG channels of a trial.
        n_times: samples of a trial.
        dim: width of the embedding.
        dropout: of the residual block, in training only.
    """

    def __init__(
        self, n_channels: int, n_times: int, dim: int = 1024, dropout: float = 0.3
    ) -> None:
        super().__init__(n_channels, n_times, dim)
        self.head = ResLinear(dim, dropout)
