"""The brain encoders by name, as data: nothing here imports torch."""

from collections.abc import Mapping
from typing import Literal

OwnEncoderName = Literal["mbp", "ubp", "shallownet", "deepnet", "eegnet", "nice", "atm"]
BraindecodeName = Literal["labram", "cbramod", "reve", "biot", "eegconformer"]
BrainEncoderName = Literal[OwnEncoderName, BraindecodeName]

CLASSES: Mapping[str, str] = {
    "mbp": "decoder.brain.mbp:MBP",
    "ubp": "decoder.brain.mbp:UBP",
    "shallownet": "decoder.brain.convolutional:ShallowNet",
    "deepnet": "decoder.brain.convolutional:DeepNet",
    "eegnet": "decoder.brain.convolutional:EEGNet",
    "nice": "decoder.brain.convolutional:NICE",
    "atm": "decoder.brain.atm:ATM",
}
"""Classes of `BrainEncoder`, made with `n_channels, n_times, dim` and, where asked, `dropout`."""
BRAINDECODE: Mapping[str, str] = {
    "labram": "Labram",
    "cbramod": "CBraMod",
    "reve": "REVE",
    "biot": "BIOT",
    "eegconformer": "EEGConformer",
}
"""Classes of `braindecode.models`, which `decoder.brain.of_braindecode` makes encoders of."""
