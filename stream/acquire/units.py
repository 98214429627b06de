"""Kinds and units of channels: as streams and files name them, and as they are kept here."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hvf_core.problem import Problem
from hvf_core.text import some_of

MICROVOLTS = "microvolts"

_PREFIXES = {"milli": -3, "micro": -6, "nano": -9, "pico": -12, "femto": -15}
_PREFIXES |= {"m": -3, "u": -6, "µ": -6, "μ": -6, "n": -9, "p": -12, "f": -15, "": 0}
_SPELLING = re.compile(
    rf"(?P<prefix>{'|'.join(_PREFIXES)})"
    r"(?:(?P<volt>v|volts?)|(?:t|teslas?)(?P<per>/(?:m|meters?|metres?|(?P<cm>c)m))?)"
)
_POWER_OF_TEN = re.compile(r"[+-]?\d{1,2}(?:\.0+)?")  # of the base unit: mne-lsl's, after MNE's
_BASE = {"mag": "t", "meg": "t", "grad": "t/m"}  # by kind of channel
_EXPONENTS = {MICROVOLTS: -6, "femtoteslas": -15, "femtoteslas/cm": -13}  # of what is kept
_EEG_UV = (0.05, 5_000.0)  # SD over a second: a thousandth of quiet EEG, electrodes that hang free
_KINDS = {"eeg": "eeg", "meg": "meg", "mag": "meg", "grad": "meg"}  # of MNE and of LSL


class Signal(NamedTuple):
    """`eeg` or `meg`, and the unit in which it is kept; "" where that is not known."""

    kind: str
    unit: str

    @classmethod
    def of(cls, kinds: Sequence[str], units: Sequence[str]) -> "Signal":
        """What most of these channels record; words that mean nothing here are passed over."""
        kinds = [_KINDS.get(kind.lower(), "") for kind in kinds]
        return cls(_commonest(kinds), _commonest([unit for unit in units if unit in _EXPONENTS]))

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


def kept_as(unit: str, kind: str = "") -> tuple[str, float]:
    """The unit in which values of this one are kept, and the factor that takes them to it.

    `unit` may be a power of ten of a volt, or of what channels of this `kind` measure. One that is
    not known is kept as it is.
    """
    plain = re.sub(r"[\s_-]", "", unit.casefold())
    exponent = 0
    if _POWER_OF_TEN.fullmatch(unit.strip()):
        plain, exponent = _BASE.get(kind.casefold(), "v"), round(float(unit))
    found = _SPELLING.fullmatch(plain)
    if found is None:
        return unit, 1.0
    name = MICROVOLTS if found["volt"] else "femtoteslas/cm" if found["per"] else "femtoteslas"
    exponent += _PREFIXES[found["prefix"]] + 2 * bool(found["cm"]) - _EXPONENTS[name]
    return name, float(f"1e{exponent}")


def unknown_units(units: Mapping[str, str]) -> str | None:
    """A sentence about channels whose unit, as it is kept, is none that is known."""
    unknown = [
        f"{name} ('{unit}')" if unit else name
        for name, unit in units.items()
        if unit not in _EXPONENTS
    ]
    if not unknown:
        return None
    listed = some_of(unknown)
    return f"the unit of {listed} is not known: the values are taken for microvolts as they come"


def odd_size(samples: np.ndarray, signal: Signal) -> str | None:
    """A sentence where a second or more of samples (n, channels) cannot be EEG in its unit.

    It goes by the SD of the median channel; what does not move at all says nothing.
    """
    if signal.unit not in (MICROVOLTS, "") or signal.kind == "meg":
        return None
    sizes = samples.std(axis=0, dtype=np.float64)
    moving = sizes[sizes > 0]  # NaN is not, either
    if not len(moving):
        return None
    size_uv = float(np.median(moving))
    if _EEG_UV[0] <= size_uv <= _EEG_UV[1]:
        return None
    return (
        f"the EEG moves by {size_uv:.3g} microvolts (SD of the median channel), which no EEG does "
        f"(a few to a few hundred): is its unit another one than '{signal.unit or 'none'}'?"
    )


def _commonest(names: Sequence[str]) -> str:
    counts = Counter(filter(None, names)).most_common(1)
    return counts[0][0] if counts else ""
