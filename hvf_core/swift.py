"""How a node answers fast: what the system and Python would else do while somebody waits."""

import ctypes
import gc
import os
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from hvf_core.problem import Problem

T = TypeVar("T")
Wanted = Literal["auto", "on", "off"]
LATENCY_FILE = Path("/dev/cpu_dma_latency")
"""Linux's: how late cores may wake, in µs, as long as it is held open."""
LATENCY_RULE = 'KERNEL=="cpu_dma_latency", GROUP="users", MODE="0660"'
"""A line for udev that lets a group write it."""
_CPU_FILE = Path("/proc/cpuinfo")
_LIGHT_REST_US = 2  # the lightest rest of a core, from which it wakes in about a microsecond
_NO_REST_US = 0  # in a virtual machine, whose every rest is a way to its host and back
_PR_SET_TIMERSLACK = 29
_NICENESS = 10
_SPARE_CORES = 8  # what a session's processes, LSL's and ZeroMQ's threads and the source keep busy
_CALM_S = 0.03  # until the next sample that somebody waits for: time to collect garbage
_COLLECT_EVERY_S = 5.0


def wake_on_time() -> None:
    """Lets this thread, and those that it starts, sleep to the nanosecond, where Linux is.

    Else what sleeps is woken up to 50 µs late, so that several may be woken at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def give_way() -> None:
    """Has every other process take the processor at once, and this one not take it from them."""
    if hasattr(os, "nice"):  # on Windows it is started with low priority
        os.nice(_NICENESS)
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # interrupts none that runs


def may_spin(spin: Wanted) -> bool:
    """Whether a node may look again and again, and not sleep, while an answer is due.

    On two cores it takes the one that the source, LSL and ZeroMQ need: answers come later.
    """
    if spin != "auto":
        return spin == "on"
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return cores >= _SPARE_CORES


def keep_awake(awake: Wanted) -> BinaryIO | None:
    """Keeps the machine's cores from resting, as long as what it returns is open.

    A core that rests wakes late, and with cold caches. What is asked for is latency alone: other
    programs run as before, and a core without work takes more power.

    Returns:
        None where it is not to be, or ("auto") may not be, or there is no Linux.

    Raises:
        Problem: it is to be ("on"), and cannot be.
    """
    if awake == "off":
        return None
    try:
        file = LATENCY_FILE.open("r+b", buffering=0)  # which makes no file
        file.write(struct.pack("=i", _NO_REST_US if _is_virtual() else _LIGHT_REST_US))
    except OSError as error:
        if awake == "auto":
            return None
        raise Problem(
            f"the cores cannot be kept awake ({LATENCY_FILE}: {error.strerror}): let this user "
            f"write it, by the udev rule {LATENCY_RULE}, or give --set decoding.awake=auto"
        ) from None
    return file


def _is_virtual() -> bool:
    """Whether the machine is a guest of another one."""
    return " hypervisor" in _CPU_FILE.read_text(encoding="utf-8", errors="replace")


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


class Aside(threading.Thread):
    """Does one thing after another on a thread that no process waits for, from the first one on.

    Args:
        niceness: of the thread, where one has a priority of its own (Linux).
    """

    def __init__(self, niceness: int = 0) -> None:
        super().__init__(daemon=True)  # the end of a session waits for nothing of it
        self._niceness = niceness
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def begin(self, task: Callable[[], T]) -> Future[T]:
        """Has something done; what it comes to, or raises, is in what is returned."""
        future: Future[T] = Future()

        def do() -> None:
            try:
                future.set_result(task())
            except BaseException as error:  # which is raised where the result is asked for
                future.set_exception(error)

        self._tasks.put(do)
        if not self.is_alive():
            self.start()
        return future

    def run(self) -> None:
        if self._niceness and sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while True:
            self._tasks.get()()
