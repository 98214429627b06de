"""HVF: fuses what several frozen image encoders see into one embedding."""

from collections.abc import Mapping

from torch import Tensor, nn

from decoder.bundle import Bundle
from decoder.residual import ResMLP
from decoder.weights import filled


class HVF(nn.Module):
    """Sums a linear map of every encoder's embedding, then one residual block (HVF, ICLR 2026).

    The embeddings enter as the encoders give them: they are not normalised first. The result is
    (n, dim), not normalised either. `encoder_dims` are the widths by the encoders' names; `hidden`
    and `dropout` are of the residual block.
    """

    def __init__(
        self,
        encoder_dims: Mapping[str, int],
        dim: int = 1024,
        hidden: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.dims, self.dim, self.hidden = dict(encoder_dims), dim, hidden
        self.maps = nn.ModuleDict({name: nn.Linear(d, dim) for name, d in encoder_dims.items()})
        self.head = ResMLP(dim, hidden, dropout)

    def forward(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Takes (n, dim_k) by encoder name; raises ValueError unless every encoder is there."""
        if embeddings.keys() != set(self.maps):
            raise ValueError(
                f"embeddings are of the encoders {sorted(embeddings)}, "
                f"this HVF fuses {sorted(self.maps)}"
            )
        return self.head(sum(linear(embeddings[name]) for name, linear in self.maps.items()))


def load_hvf(bundle: Bundle) -> HVF:
    """Builds a bundle's HVF, in evaluation mode.

    Raises:
        Problem: when the bundle's tensors are not those of its HVF.
    """
    manifest = bundle.manifest
    dims = {encoder.name: encoder.dim for encoder in manifest.image_encoders}
    sizes = (dims, manifest.embedding_dim, manifest.hvf.hidden)
    return filled(lambda: HVF(*sizes), bundle.arrays("hvf"), bundle.file("hvf"))
