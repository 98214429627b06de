"""HVF: fuses what several frozen image encoders see into one embedding."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoder.bundle import Bundle
from decoder.residual import ResMLP
from decoder.weights import filled

_PACE = 20.0
"""How much faster weights of encoders change than other weights, which move by hundredths."""


class HVF(nn.Module):
    """Sums a linear map of every encoder's embedding, then one residual block (HVF, ICLR 2026).

    The embeddings enter as the encoders give them: they are not normalised first. The result is
    (n, dim), not normalised either. `encoder_dims` are the widths by the encoders' names; `hidden`
    and `dropout` are of the residual block. Where it is `gated`, every map's result is normalised
    (as by a LayerNorm), and weighted by the encoder's share, a softmax that is learnt.
    """

    def __init__(
        self,
        encoder_dims: Mapping[str, int],
        dim: int = 1024,
        hidden: int = 1024,
        dropout: float = 0.1,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.dims, self.dim, self.hidden = dict(encoder_dims), dim, hidden
        self.maps = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in encoder_dims.items()})
        self.gates = nn.Parameter(torch.zeros(len(self.dims))) if gated else None
        self.head = ResMLP(dim, hidden, dropout)

    def forward(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Takes (n, dim_k) by encoder name; raises ValueError unless every encoder is there."""
        if embeddings.keys() != set(self.maps):
            raise ValueError(
                f"embeddings are of the encoders {sorted(embeddings)}, "
                f"this HVF fuses {sorted(self.maps)}"
            )
        blocks = [linear(embeddings[name]) for name, linear in self.maps.items()]
        if self.gates is not None:
            weights = len(blocks) * self._softmax(self.gates)
            blocks = [
                weight * functional.layer_norm(block, (self.dim,))
                for weight, block in zip(weights, blocks, strict=True)
            ]
        return self.head(sum(blocks))

    @property
    def shares(self) -> dict[str, float]:
        """How much of the sum is each encoder's, where that is learnt."""
        if self.gates is None:
            return {}
        return dict(zip(self.dims, self._softmax(self.gates.detach()).tolist(), strict=True))

    def _softmax(self, gates: Tensor) -> Tensor:
        return (_PACE * gates).softmax(dim=0)


def hvf_as_given(encoder: str, dim: int) -> HVF:
    """One that leaves the embeddings of its only encoder as they are, but centres and scales each.

    They can then be targets that nothing is learnt of.
    """
    hvf = HVF({encoder: dim}, dim, hidden=1, dropout=0.0).requires_grad_(False)
    linear = hvf.maps[encoder]
    nn.init.eye_(linear.get_parameter("weight"))
    nn.init.zeros_(linear.get_parameter("bias"))
    nn.init.zeros_(hvf.head.contract.weight)
    return hvf.eval()


def load_hvf(bundle: Bundle) -> HVF:
    """Builds a bundle's HVF, in evaluation mode.

    Raises:
        Problem: when the bundle's tensors are not those of its HVF.
    """
    manifest = bundle.manifest
    dims = {encoder.name: encoder.dim for encoder in manifest.image_encoders}
    sizes = (dims, manifest.embedding_dim, manifest.hvf.hidden)
    make = partial(HVF, *sizes, gated=manifest.hvf.gated)
    return filled(make, bundle.arrays("hvf"), bundle.file("hvf"))
