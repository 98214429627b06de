"""Looks at what the processes of a session take, while it runs and its processes come and go."""

import threading
from collections import defaultdict

import numpy as np
import psutil

from stream.acquire.lsl import local_clock
from stream.bench.machine import node_of, used_by
from stream.pipeline.wire.nodes import SUPERVISOR

_SETTLING_S = 30.0  # of a process that has begun: it still takes what it needs


class Watch:
    """Looks every `every_s` at a session and its nodes, for the length of a `with`.

    Args:
        pid: of the session's own process.
    """

    def __init__(self, pid: int, every_s: float):
        self._session, self._every_s = psutil.Process(pid), every_s
        self._seen: defaultdict[str, dict[int, list[tuple[float, ...]]]] = defaultdict(dict)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def n_processes(self) -> dict[str, int]:
        """How many there were of each name, one after the other."""
        return {name: len(lives) for name, lives in self._seen.items()}

    def there(self) -> set[str]:
        """Names of the processes that there are now."""
        found = set[str]()
        for process in self._processes():
            try:
                is_there = process.status() != psutil.STATUS_ZOMBIE
                found |= {self._name(process)} if is_there else set()
            except psutil.Error:  # it has just gone
                continue
        return found - {""}

    def usage(self) -> dict[str, np.ndarray]:
        """By name, what processes of it took once they had settled, one after the other.

        Rows (n, 4): seconds on the LSL clock, CPU seconds, bytes in memory, open handles.
        """
        settled = {
            name: [
                row for life in lives.values() for row in life if row[0] >= life[0][0] + _SETTLING_S
            ]
            for name, lives in self._seen.items()
        }
        return {name: np.array(rows).reshape(-1, 4) for name, rows in settled.items()}

    def _look_on(self) -> None:
        while not self._is_over.wait(self._every_s):
            for process in self._processes():
                try:
                    if name := self._name(process):
                        with process.oneshot():
                            row = (local_clock(), *used_by(process))
                        self._seen[name].setdefault(process.pid, []).append(row)
                except psutil.Error:
                    continue

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self._session, *self._session.children(recursive=True)]
        except psutil.Error:
            return []

    def _name(self, process: psutil.Process) -> str:
        if process.pid == self._session.pid:
            return SUPERVISOR
        return node_of(process) or ""
