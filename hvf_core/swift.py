"""How a node answers fast: what the system and Python would else do while somebody waits."""

import ctypes
import gc
import os
import sys
import time
from typing import Literal

Spin = Literal["auto", "on", "off"]
_PR_SET_TIMERSLACK = 29
_SPARE_CORES = 8  # what a session's processes, LSL's and ZeroMQ's threads and the source keep busy
_CALM_S = 0.03  # until the next sample that somebody waits for: time to collect garbage
_COLLECT_EVERY_S = 5.0


def wake_on_time() -> None:
    """Lets this thread, and those that it starts, sleep to the nanosecond, where Linux is.

    Else what sleeps is woken up to 50 µs late, so that several may be woken at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def may_spin(spin: Spin) -> bool:
    """Whether a node may look again and again, and not sleep, while an answer is due.

    On two cores it takes the one that the source, LSL and ZeroMQ need: answers come later.
    """
    if spin != "auto":
        return spin == "on"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores >= _SPARE_CORES


class Sweeper:
    """Collects garbage while nobody waits, and never else.

    What is there when it begins, which is nearly all that there will ever be, is not looked at any
    more: of a decoder's 219,000 objects that takes 172 ms.
    """

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()
        self._next_s = time.monotonic() + _COLLECT_EVERY_S

    def look(self, due_in_s: float) -> None:
        """Collects, where it is time to and nothing is due for a while."""
        if (now_s := time.monotonic()) > self._next_s and due_in_s > _CALM_S:
            self._next_s = now_s + _COLLECT_EVERY_S
            gc.collect()
