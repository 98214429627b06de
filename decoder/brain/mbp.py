"""Brain encoders of one linear map of the whole trial and one residual block: MBP and UBP."""

from decoder.brain.base import LinearInputEncoder
from decoder.residual import ResLinear, ResMLP


class MBP(LinearInputEncoder):
    """The paper's brain encoder (HVF, ICLR 2026); `hidden` is the width in its residual block."""

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
    """The brain encoder of the Uncertainty-aware Blur Prior (UBP, CVPR 2025)."""

    def __init__(
        self, n_channels: int, n_times: int, dim: int = 1024, dropout: float = 0.3
    ) -> None:
        super().__init__(n_channels, n_times, dim)
        self.head = ResLinear(dim, dropout)
