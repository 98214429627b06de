"""Builds the brain encoder that a bundle names."""

import torch

from decoder.bundle import Bundle
from decoder.mbp import MBP


def load_brain_encoder(bundle: Bundle) -> MBP:
    """Builds a bundle's brain encoder, in evaluation mode.

    Raises:
        Problem: when the bundle's tensors are not those of its encoder.
    """
    manifest = bundle.manifest
    encoder = MBP(
        n_channels=len(manifest.channels),
        n_times=manifest.n_times,
        dim=manifest.embedding_dim,
        hidden=manifest.brain_encoder.hidden,
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    arrays = bundle.arrays("brain", shapes)
    encoder.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return encoder.eval()
