"""Markers out of a trigger channel, a channel of the EEG stream that carries codes."""

from collections.abc import Sequence

import numpy as np
from pydantic import field_validator

from hvf_core.problem import Problem, WrongUsage
from hvf_core.settings import Settings, setting

_N_BITS = 53


class TriggerSettings(Settings):
    """Which channel, which of its bits, and how long a code must hold."""

    channel: str = setting(option="--trigger")
    """Channel of the EEG stream that carries codes; beside markers it is compared with them."""
    bits: tuple[int, int] | None = setting(None, option="--trigger-bits")
    """First and last bit of the codes, as 8,15; all bits by default, but 0,15 of a channel called
    Status, as BioSemi's, whose other bits tell of the amplifier."""
    shortest_samples: int = setting(1, option="--shortest-pulse", ge=1)
    """Codes that hold for fewer samples are transitions of the port's lines, not codes."""

    @field_validator("bits")
    @classmethod
    def _is_a_range(cls, bits: tuple[int, int] | None) -> tuple[int, int] | None:
        if bits is not None and not 0 <= bits[0] <= bits[1] < _N_BITS:
            raise WrongUsage(
                f"the trigger bits {bits[0]},{bits[1]} are no range of bits; give the first and "
                f"the last, from 0 to {_N_BITS - 1}, as 0,15"
            )
        return bits


class TriggerReader:
    """Finds the rises of a trigger channel, at any chunking.

    As in MNE's `find_events` a rise to a higher code counts, from zero or from another code, and a
    fall to a lower one does not: of the codes 0, 3, 5, 3, 0 the 3 and the 5. Codes are whole
    numbers up to 2**53, or what some bits of one make; zero, negative values, and those that are
    not finite, are no code. One that is there from the first sample on is none either: nobody saw
    it rise.
    """

    def __init__(self, settings: TriggerSettings):
        self._shortest = settings.shortest_samples
        self._bits = settings.bits
        if self._bits is None and settings.channel.casefold() == "status":
            self._bits = (0, 15)
        self._level = 0  # the last code that held
        self._candidate = 0
        self._held = 0  # samples for which the candidate has held
        self._next = 0  # number of the next sample

    def read(self, values: np.ndarray) -> list[tuple[int, int]]:
        """Codes in the next values (n,): number of the first sample of each, and the code."""
        codes = np.nan_to_num(values, posinf=0.0, neginf=0.0).astype(np.int64)
        if self._bits is None:
            codes = np.maximum(codes, 0)
        else:  # of a negative number too: the highest bit may tell of something else
            first, last = self._bits
            codes = (codes >> first) & ((1 << (last - first + 1)) - 1)
        if self._next == 0 and len(codes):
            self._level = self._candidate = int(codes[0])
            self._held = self._shortest
        found = []
        start = self._next
        before = np.concatenate([[self._candidate], codes[:-1]])
        for position in np.flatnonzero(codes != before).tolist():
            found += self._hold(start + position)
            self._candidate, self._held = int(codes[position]), 0
            self._next = start + position
        found += self._hold(start + len(codes))
        return found

    def _hold(self, until: int) -> list[tuple[int, int]]:
        """The candidate holds until a sample number; it counts once it has held long enough."""
        first = self._next - self._held
        was_held, self._held = self._held, self._held + until - self._next
        self._next = until
        if not was_held < self._shortest <= self._held:
            return []
        rises = self._candidate > self._level
        self._level = self._candidate
        return [(first, self._candidate)] if rises else []


def trigger_reader(settings: TriggerSettings, channels: Sequence[str]) -> tuple[TriggerReader, int]:
    """What reads the trigger channel, and its column; raises `Problem` where there is none."""
    if settings.channel not in channels:
        raise Problem(
            f"the stream has no channel '{settings.channel}' to read triggers from; give --trigger "
            f"one of {', '.join(channels)}"
        )
    return TriggerReader(settings), list(channels).index(settings.channel)
