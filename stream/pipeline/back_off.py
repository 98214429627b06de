"""When a node is started again, after how many deaths, and with how much less memory."""

import subprocess
from dataclasses import dataclass

_FIRST_PAUSE_S = 0.5
_STEADY_S = 60.0  # a node that lived so long is not in a loop of crashes
_DEATHS_OF_HUNGER = 2  # the first may be somebody else's appetite


@dataclass(frozen=True)
class Restart:
    """How to go on after a death."""

    pause_s: float
    with_less_memory: bool
    nth: int
    """Death in a row: a node that lived steadily before begins anew."""


class BackOff:
    """Doubles the pause with every death, and asks for less memory when it ran out repeatedly."""

    def __init__(self, longest_pause_s: float) -> None:
        self._longest_pause_s = longest_pause_s
        self._next_pause_s = _FIRST_PAUSE_S
        self._n_hungry = self._nth = 0

    def after_death(self, lived_s: float, out_of_memory: bool) -> Restart:
        """What to do about a node that died after so many seconds."""
        if lived_s >= _STEADY_S:
            self._next_pause_s, self._nth = _FIRST_PAUSE_S, 0
        self._nth += 1
        pause_s = self._next_pause_s
        self._next_pause_s = min(2 * pause_s, self._longest_pause_s)
        self._n_hungry += out_of_memory
        with_less = self._n_hungry >= _DEATHS_OF_HUNGER
        if with_less:
            self._n_hungry = 0
        return Restart(pause_s, with_less, self._nth)


def ending(process: subprocess.Popen[bytes]) -> str:
    """How a process that is over has ended."""
    code = process.returncode
    return f"signal {-code}" if code < 0 else f"code {code}"
