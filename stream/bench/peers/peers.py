"""The peers, as data, and one of them while it runs: its program, and who has its answers."""

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from hvf_core.problem import Problem
from stream.bench.peers.job import READY, SUBSCRIBER, Answer, Job, answers
from stream.bench.processes import interrupt, tied

_HERE, _ROOT = "stream.bench.peers", Path(__file__).parents[3]
_START_WAIT_S, _END_WAIT_S = 120.0, 30.0
_LOOK_S = 0.05


@dataclass(frozen=True)
class Peer:
    """A program that answers trials.

    Attributes:
        packages: distributions that it is made of; where one is missing it is left out.
        module: that is run; "": a session of ours.
        subscriber: by what its answers are subscribed to; `own`: its program has one.
    """

    packages: tuple[str, ...]
    module: str
    subscriber: Literal["bus", "lsl", "own"]

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in self.packages}

    def missing(self) -> list[str]:
        """Packages of it that are not installed."""
        missing = []
        for name in self.packages:
            try:
                version(name)
            except PackageNotFoundError:
                missing.append(name)
        return missing


OURS = "hvf-live"
PEERS: Mapping[str, Peer] = {
    OURS: Peer((), "", "bus"),
    "mne-lsl": Peer(("mne-lsl",), f"{_HERE}.mne_lsl_epochs", "lsl"),
    "plain": Peer(("pylsl",), f"{_HERE}.plain", "lsl"),
    "ezmsg": Peer(("ezmsg", "ezmsg-lsl", "ezmsg-sigproc"), f"{_HERE}.ezmsg_units", "own"),
}


class RunningPeer:
    """A peer's processes, for the length of a `with`.

    Args:
        options: of a session of ours, further ones.
        folder: for what its processes say.
    """

    def __init__(self, peer: Peer, job: Job, folder: Path, options: tuple[str, ...] = ()):
        self._job, self._folder = job, folder
        path = folder / "job.json"
        path.write_text(job.model_dump_json(), encoding="utf-8")
        if peer.module:
            program = ["-m", peer.module, str(path)]
        else:
            program = ["run_realtime.py", "live", "--headless", "--out", str(job.session)]
            program += ["--eeg", job.eeg, "--markers", job.markers, "--bundle", str(job.bundle)]
            program += ["--gallery", str(job.gallery), "--wait", "60", *options]
        self._program = self._start("program", program)
        self._started = [("program", self._program)] if peer.module else []
        if peer.subscriber != "own":
            command = ["-m", f"{_HERE}.subscriber", str(path), peer.subscriber]
            self._started.append(("subscriber", self._start("subscriber", command)))

    def __enter__(self) -> "RunningPeer":
        return self

    def __exit__(self, *_: object) -> None:
        own = self._processes()
        for name, process in self._started:
            if name == "subscriber":
                process.kill()
                process.wait()
        interrupt(self._program)
        with suppress(subprocess.TimeoutExpired):
            self._program.wait(_END_WAIT_S)
        for one in own:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self._program.wait()

    def wait_until_ready(self) -> None:
        """Raises: Problem: it ends before, which is its own sentence, or is not ready in time."""
        deadline_s = time.monotonic() + _START_WAIT_S
        while not all(READY in self._said(f"{name}.out") for name, _ in self._started):
            if self._program.poll() is not None:
                raise Problem(self.last_words() or "it ended and said nothing")
            if time.monotonic() > deadline_s:
                raise Problem(f"it was not ready within {_START_WAIT_S:g} s: {self.last_words()}")
            time.sleep(_LOOK_S)

    def cpu_s(self) -> float:
        """User and system time so far of its processes that live, but for the subscriber's."""
        total_s = 0.0
        for process in self._processes():
            if f"{SUBSCRIBER} {process.pid}\n" not in self._said("program.out"):
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    total_s += times.user + times.system
        return total_s

    def answers(self) -> list[Answer]:
        return answers(self._job.said)

    def last_words(self) -> str:
        """The last line that its program has written to standard error."""
        lines = self._said("program.err").strip().splitlines()
        return lines[-1] if lines else ""

    def _processes(self) -> list[psutil.Process]:
        try:
            program = psutil.Process(self._program.pid)
            return [program, *program.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _said(self, file: str) -> str:
        return (self._folder / file).read_text("utf-8", errors="replace")

    def _start(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with (
            (self._folder / f"{name}.out").open("wb") as out,
            (self._folder / f"{name}.err").open("wb") as err,
        ):
            return subprocess.Popen(
                tied(*arguments),
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
