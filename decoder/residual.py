"""The residual blocks that brain encoders, the image fusion and the projector share."""

from torch import Tensor, nn
from torch.nn import functional


class ResMLP(nn.Module):
    """`LayerNorm(x + W2 · Dropout(GELU(W1 x)))`, without biases in W1 and W2 (HVF, ICLR 2026).

    GELU is the exact one (erf). Maps (..., dim) to (..., dim).

    `hidden` is the width between W1 and W2; without `norm` the LayerNorm is left out, as in the
    projector of the Fusion Prior.
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.1, norm: bool = True) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.contract = nn.Linear(hidden, dim, bias=False)
        self.norm = nn.LayerNorm(dim, eps=1e-6) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.contract(self.dropout(functional.gelu(self.expand(x)))))


class ResLinear(nn.Module):
    """`LayerNorm(x + Dropout(W GELU(x) + b))`, the projection's end in NICE, ATM and UBP.

    GELU is the exact one (erf). Maps (..., dim) to (..., dim).
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.dropout(self.linear(functional.gelu(x))))
