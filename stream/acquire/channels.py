"""Channels by label and kind: which are of the brain, what they are called, where they are."""

import re
from collections.abc import Mapping, Sequence

from hvf_core.problem import Problem

_BRAIN = {"eeg", "meg", "mag", "grad", "seeg", "ecog", "dbs"}  # kinds of MNE and of LSL
# Labels of what is recorded beside EEG, which many programs declare as EEG with all the rest.
_BESIDE = re.compile(
    r"[vh]?eog|ecg|ekg|emg|gsr|eda|resp|pleth|ppg|temp|photo|aux|acc|trig|status|sti(m| ?\d)",
    re.IGNORECASE,
)


def brain_channels(labels: Sequence[str], kinds: Sequence[str]) -> tuple[str, ...]:
    """Those that record EEG or MEG, by the stream's or file's words for their kinds, and by labels.

    Where it says that of none all count for which no label speaks against it, or all there are.
    """
    beside = {label for label in labels if _BESIDE.match(label)}
    kinds = [kind.casefold() for kind in kinds] or [""] * len(labels)
    named = [label for label, kind in zip(labels, kinds, strict=True) if kind in _BRAIN]
    chosen = [label for label in named or labels if label not in beside]
    return tuple(chosen or named or labels)


def beside_columns(labels: Sequence[str], kinds: Sequence[str]) -> list[int]:
    """Where channels are that may hold anything but EEG or MEG, codes among it.

    A channel whose kind is not known is of the brain, unless its label or its neighbours' kinds
    speak against it; where all do so, none is.
    """
    kinds = [kind.casefold() for kind in kinds] or [""] * len(labels)
    is_told = not _BRAIN.isdisjoint(kinds)
    return [
        column
        for column, (label, kind) in enumerate(zip(labels, kinds, strict=True))
        if _BESIDE.match(label)
        or (kind not in _BRAIN and (is_told or kind == "misc" or _BESIDE.match(kind)))
    ]


def renamed(labels: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """The labels of a stream by the names that they have here, their own if `names` has none.

    Raises:
        Problem: a channel would be called like another one.
    """
    channels = tuple(names.get(label, label) for label in labels)
    for label, name in names.items():
        if label in labels and channels.count(name) > 1:
            raise Problem(
                f"the channel '{label}' cannot be called '{name}', as another channel is: give "
                "that one another name with --rename too, or leave this one out"
            )
    return channels


def order_of(labels: Sequence[str], there: Sequence[str]) -> tuple[int, ...] | None:
    """Where each of these labels is in a stream that has the same ones; None where that is unclear.

    Labels that come more than once are clear only in the same order.
    """
    if list(labels) == list(there):
        return tuple(range(len(there)))
    if len(set(there)) < len(there) or set(labels) != set(there):
        return None
    return tuple(there.index(label) for label in labels)


def column_of(name: str, stream_channels: Sequence[str]) -> int | None:
    """Where a channel is in a stream, by its name, if need be in other capitals (FP1, Fp1)."""
    if name in stream_channels:
        return stream_channels.index(name)
    folded = [other.casefold() for other in stream_channels]
    return folded.index(name.casefold()) if folded.count(name.casefold()) == 1 else None
