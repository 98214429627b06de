"""The brain encoders by name, and the one that a bundle holds."""

from collections.abc import Callable

import torch

from decoder.brain.atm import ATM
from decoder.brain.base import BrainEncoder
from decoder.brain.convolutional import NICE, DeepNet, EEGNet, ShallowNet
from decoder.brain.mbp import MBP, UBP
from decoder.bundle import BrainEncoderName, Bundle

_WITHOUT_HIDDEN: dict[BrainEncoderName, Callable[..., BrainEncoder]] = {
    "ubp": UBP,
    "shallownet": ShallowNet,
    "deepnet": DeepNet,
    "eegnet": EEGNet,
    "nice": NICE,
    "atm": ATM,
}


def make_brain_encoder(
    name: BrainEncoderName,
    n_channels: int,
    n_times: int,
    dim: int,
    hidden: int,
    dropout: float | None = None,
) -> BrainEncoder:
    """Makes an untrained brain encoder.

    Args:
        name: which one.
        n_channels: EEG channels of a trial.
        n_times: samples of a trial.
        dim: width of the embedding.
        hidden: inner width of MBP's residual block; the others have the widths of their papers.
        dropout: in training only; None takes the rate of the encoder's own paper.

    Raises:
        Problem: when a trial is too short for the encoder's convolutions.
    """
    rate = {} if dropout is None else {"dropout": dropout}
    if name == "mbp":
        return MBP(n_channels, n_times, dim, hidden, **rate)
    return _WITHOUT_HIDDEN[name](n_channels, n_times, dim, **rate)


def load_brain_encoder(bundle: Bundle) -> BrainEncoder:
    """Builds a bundle's brain encoder, in evaluation mode.

    Raises:
        Problem: when the bundle's tensors are not those of its encoder, or its trials are too
            short for it.
    """
    manifest = bundle.manifest
    encoder = make_brain_encoder(
        manifest.brain_encoder.name,
        n_channels=len(manifest.channels),
        n_times=manifest.n_times,
        dim=manifest.embedding_dim,
        hidden=manifest.brain_encoder.hidden,
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    arrays = bundle.arrays("brain", shapes)
    encoder.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return encoder.eval()
