"""The brain encoders by name, as data: nothing here imports torch."""

from collections.abc import Mapping
from typing import Literal

BrainEncoderName = Literal["mbp", "ubp", "shallownet", "deepnet", "eegnet", "nice", "atm"]

CLASSES: Mapping[BrainEncoderName, str] = {
    "mbp": "decoder.brain.mbp:MBP",
    "ubp": "decoder.brain.mbp:UBP",
    "shallownet": "decoder.brain.convolutional:ShallowNet",
    "deepnet": "decoder.brain.convolutional:DeepNet",
    "eegnet": "decoder.brain.convolutional:EEGNet",
    "nice": "decoder.brain.convolutional:NICE",
    "atm": "decoder.brain.atm:ATM",
}
"""Classes of `BrainEncoder`, made with `n_channels, n_times, dim` and, where asked, `dropout`."""
