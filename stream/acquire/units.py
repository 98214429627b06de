"""Kinds and units of channels: as streams and files name them, and as they are kept here."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from hvf_core.problem import Problem

MICROVOLTS = "microvolts"

_KEPT_AS = {
    **dict.fromkeys(("microvolts", "microvolt", "uv", "µv", "μv"), (MICROVOLTS, 1.0)),
    **dict.fromkeys(("volts", "volt", "v"), (MICROVOLTS, 1e6)),
    **dict.fromkeys(("millivolts", "millivolt", "mv"), (MICROVOLTS, 1e3)),
    **dict.fromkeys(("nanovolts", "nanovolt", "nv"), (MICROVOLTS, 1e-3)),
    **dict.fromkeys(("femtoteslas", "femtotesla", "ft"), ("femtoteslas", 1.0)),
    **dict.fromkeys(("teslas", "tesla", "t"), ("femtoteslas", 1e15)),
    **dict.fromkeys(("femtoteslas/cm", "ft/cm"), ("femtoteslas/cm", 1.0)),
    **dict.fromkeys(("teslas/meter", "t/m"), ("femtoteslas/cm", 1e13)),
}
_UNITS = {unit for unit, _ in _KEPT_AS.values()}
_KINDS = {"eeg": "eeg", "meg": "meg", "mag": "meg", "grad": "meg"}  # of MNE and of LSL


class Signal(NamedTuple):
    """`eeg` or `meg`, and the unit in which it is kept; "" where that is not known."""

    kind: str
    unit: str

    @classmethod
    def of(cls, kinds: Sequence[str], units: Sequence[str]) -> "Signal":
        """What most of these channels record; words that mean nothing here are passed over."""
        kinds = [_KINDS.get(kind.lower(), "") for kind in kinds]
        return cls(_commonest(kinds), _commonest([unit for unit in units if unit in _UNITS]))

    def check(self, needed: "Signal", whose: str) -> None:
        """Raises `Problem` where kind or unit are known of both, and differ."""
        if any(has and needs and has != needs for has, needs in zip(self, needed, strict=True)):
            raise Problem(
                f"{whose} has {self}, expected {needed}: choose other channels or another stream, "
                "or train a bundle for it"
            )

    def __str__(self) -> str:
        return f"{(self.kind or 'signals').upper()} in {self.unit or 'an unknown unit'}"


EEG = Signal("eeg", MICROVOLTS)


def kept_as(unit: str) -> tuple[str, float]:
    """The unit in which values of this one are kept, and the factor that takes them to it."""
    return _KEPT_AS.get(unit.lower(), (unit, 1.0))


def kept(units: Iterable[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The units in which channels of these units are kept, and the factors (channels,)."""
    names, factors = zip(*map(kept_as, units), strict=True)
    return names, np.array(factors)


def _commonest(names: Sequence[str]) -> str:
    counts = Counter(filter(None, names)).most_common(1)
    return counts[0][0] if counts else ""
