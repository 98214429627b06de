"""Sets of channels by the names that the field has for them, and lists of channels in files."""

import re
from collections.abc import Sequence
from pathlib import Path

from hvf_core.problem import Problem
from offline_train.data.pieces.piece import check_channels
from stream.acquire.channels import column_of

_POSTERIOR = "P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2"
_OTHERS = (
    "Fp1 Fp2 AF7 AF3 AFz AF4 AF8 F7 F5 F3 F1 F2 F4 F6 F8 FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 "
    "FT10 T7 C5 C3 C1 Cz C2 C4 C6 T8 TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10"
)
SETS = {"17": tuple(_POSTERIOR.split()), "63": tuple(f"{_OTHERS} {_POSTERIOR}".split())}
"""The posterior channels that HVF and its peers decode, and all of THINGS-EEG2, in their order."""
ALL_OF = {"271": "MEG"}
"""All there are of a kind, so many: THINGS-MEG's editions call its channels differently."""


def channels_of(
    asked: Sequence[str], there: Sequence[str], brain: Sequence[str], whose: str
) -> tuple[str, ...]:
    """The channels that a list asks for, as the recording spells them.

    A list may be one word: the name of a set, or of a file of names.

    Args:
        there: the channels of a recording, and `brain` those of them that record EEG or MEG.

    Raises:
        Problem: a channel that is asked for is not there, or a file has none.
    """
    word = asked[0] if len(asked) == 1 and column_of(asked[0], there) is None else ""
    if word in ALL_OF:
        if len(brain) != int(word):
            raise Problem(
                f"'{whose}' has {len(brain)} channels of EEG or MEG, and {word} means all "
                f"{ALL_OF[word]} of THINGS-MEG: leave --channels out, or list those that you want"
            )
        return tuple(brain)
    wanted = SETS.get(word, tuple(asked))
    if Path(word).is_file():
        wanted = tuple(filter(None, re.split(r"[\s,;]+", Path(word).read_text("utf-8-sig"))))
        if not wanted:
            raise Problem(f"the file '{word}' names no channel: write one into each line")
    elif "/" in word or word.endswith((".txt", ".csv", ".tsv")):
        raise Problem(f"there is no file '{word}' of channels: write one name into each line of it")
    check_channels(wanted, there, whose)
    columns = [column_of(name, there) for name in wanted]
    return tuple(there[column] for column in columns if column is not None)
