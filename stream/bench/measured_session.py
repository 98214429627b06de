"""A live session as a user runs it, measured from outside.

The session is `run_realtime.py live` with all its processes, on a `RunningSource`. A subscriber to
its bus, and a client of its answers over LSL, are processes of their own, and note when each answer
is theirs. This process looks at the others' CPU and memory once in a while, and otherwise waits.
"""

import math
import multiprocessing
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import psutil

from hvf_core.problem import Problem
from stream.acquire.lsl import local_clock
from stream.bench.listeners import BATCH_S, Answer, read_lsl, subscribe
from stream.bench.machine import Usage, node_of, used_by
from stream.bench.processes import tied
from stream.bench.streams import ForeignSource, RunningSource
from stream.pipeline.books.ledger import read_ledger
from stream.pipeline.books.summary import read_summary
from stream.pipeline.wire.config import SessionConfig, read_config
from stream.pipeline.wire.nodes import SOURCE, SUPERVISOR

STAGES = {
    "LSL": ("pushed", "readable"),
    "cut": ("readable", "cut"),
    "hop": ("cut", "taken"),
    "embed": ("taken", "embedded"),
    "search": ("embedded", "searched"),
    "publish": ("searched", "published"),
    "to subscriber": ("published", "received"),
}
"""The way of an answer, each from one moment to the next."""
WAY = ("pushed", "received")
WAY_LSL = ("pushed", "at_lsl")
SUBSCRIBER, LSL_CLIENT = "subscriber", "LSL client"

_OUTSIDE = (SOURCE, SUBSCRIBER, LSL_CLIENT)
_ROOT = Path(__file__).parents[2]
_START_WAIT_S, _END_WAIT_S = 120.0, 60.0
_LOOK_S = 1.0  # from one look at what processes use to the next
_READY = "READY"  # which the session prints
_SETTLE_S = 0.5  # until what subscribes late is heard

_processes = multiprocessing.get_context("spawn")


class _Key(NamedTuple):
    trial: int
    tmax_s: float
    provisional: bool


@dataclass(frozen=True)
class MeasuredSession:
    """What was seen of a session, which is over.

    Attributes:
        answers: each once, in the order in which the subscriber had them.
        n_shown: markers that were sent, the first `n_warm_up` of which are not measured.
        n_twice: answers that came once more.
        usage: of each process by the name of its node, after the warm-up; `source`, `subscriber`
            and `LSL client` are no part of the session. A node that was started again has one with
            its process id, as `decode-4711`, for each process but the last.
        summary: of the session: the sums of its ledger among it.
    """

    folder: Path
    answers: tuple[Answer, ...]
    n_shown: int
    n_warm_up: int
    n_twice: int
    usage: Mapping[str, Usage]
    summary: Mapping[str, Any]

    @property
    def finals(self) -> tuple[Answer, ...]:
        """Final answers after the warm-up, in the order of trials."""
        return tuple(one for one in self._measured if not one.provisional)

    @property
    def provisionals(self) -> tuple[Answer, ...]:
        """The others, in the order of trials."""
        return tuple(one for one in self._measured if one.provisional)

    @property
    def n_lost(self) -> int:
        """Markers without an answer."""
        return self.n_shown - len({one.trial for one in self.answers if not one.provisional})

    @property
    def cpu(self) -> float:
        """Of one core, of all processes of the session together."""
        return sum(one.cpu for name, one in self.usage.items() if name not in _OUTSIDE)

    def took_ms(self, way: tuple[str, str] = WAY) -> np.ndarray:
        """From one moment to another, of each final answer that knows both: (n,)."""
        return took_ms(self.finals, way)

    @property
    def _measured(self) -> list[Answer]:
        trials = sorted({(one.onset_s, one.trial) for one in self.answers})
        measured = {trial for _, trial in trials[self.n_warm_up :]}
        return sorted((a for a in self.answers if a.trial in measured), key=lambda a: a.onset_s)


def took_ms(answers: Iterable[Answer], way: tuple[str, str] = WAY) -> np.ndarray:
    """From one moment to another, of each answer that knows both: (n,)."""
    start, end = way
    known = [one.moments for one in answers if {start, end} <= one.moments.keys()]
    return 1e3 * np.array([moments[end] - moments[start] for moments in known])


def measure_session(
    source: RunningSource | ForeignSource,
    bundle: Path,
    gallery: Path,
    n_trials: int,
    folder: Path,
    options: Sequence[object] = (),
    *,
    n_warm_up: int = 10,
    lsl_client: bool = True,
) -> MeasuredSession:
    """Runs a session to its end, and tells what was seen of it.

    Args:
        source: without markers yet: `RunningSource(..., markers=False)`.
        n_trials: that are measured, after `n_warm_up` others.
        folder: of the session, which is made; the log lies beside it.
        options: of `run_realtime.py live`, as `("--set", "top_k=1")`.
        lsl_client: whether one listens: the session does more where one does.

    Raises:
        Problem: it did not begin, ended too early, or fell silent.
    """
    with LiveSession(source, bundle, gallery, folder, options, lsl_client=lsl_client) as session:
        session.show(n_warm_up)
        session.show(n_trials)
        session.wait()
        return session.end()


class LiveSession:
    """A session that runs, for the length of a `with`: it is ready when that begins.

    `show` and `wait` may be called as often as one likes; what the first `show` shows is the
    warm-up, unless it is the only one.

    Attributes:
        process: of the command; the nodes are its children.
        shown: how many markers each `show` has sent.
        answers: so far, by trial, window end and whether they are provisional.
    """

    def __init__(
        self,
        source: RunningSource | ForeignSource,
        bundle: Path,
        gallery: Path,
        folder: Path,
        options: Sequence[object] = (),
        *,
        lsl_client: bool = True,
    ):
        self.folder, self._source = folder.absolute(), source
        self._log = folder.parent / f"{folder.name}.log"
        self.shown: list[int] = []
        self.answers: dict[_Key, Answer] = {}
        self._extra: defaultdict[int, dict[str, float]] = defaultdict(dict)
        self._n_twice, self._changed_s, self._next_look_s = 0, 0.0, 0.0
        self._ready_s = math.inf
        self._usage: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        name = source.source.name
        self._results = f"{name}-answers-{folder.name}" if lsl_client else ""
        command = ["run_realtime.py", "live", "--headless", "--out", folder, "--wait", 60]
        command += ["--eeg", name, "--markers", source.markers]
        command += ["--bundle", bundle, "--gallery", gallery]
        command += ["--results", self._results] if lsl_client else ["--no-results"]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                tied(*command, *options),
                cwd=_ROOT,
                env=os.environ | {"COLUMNS": "400"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pids = {SUPERVISOR: self.process.pid}
        if source.pid:
            self._pids[SOURCE] = source.pid
        self._listeners: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> "LiveSession":
        try:
            if self._results:  # it looks for them while the session begins
                self._listen(LSL_CLIENT, read_lsl, self._results)
            self._await(lambda: read_whole(self.folder) is not None, "begun")
            self._listen(SUBSCRIBER, subscribe, read_config(self.folder / "config.json").endpoints)
            for _, pipe in self._listeners:
                self._await(partial(pipe.poll, 0.02), "let in those who hear its answers")
                pipe.recv()
            self._await(self._is_ready, "become ready")
            time.sleep(_SETTLE_S)
            self._ready_s = local_clock()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process, _pipe in self._listeners:
            process.kill()
        with suppress(psutil.NoSuchProcess):
            nodes = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for one in nodes:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait()

    def show(self, n: int) -> None:
        """Sends `n` more markers."""
        self.shown.append(n)
        self._source.show(n)
        self._changed_s = time.monotonic()

    @property
    def n_answered(self) -> int:
        """Trials with a final answer."""
        return sum(not key.provisional for key in self.answers)

    def look(self, wait_s: float = 0.05) -> None:
        """Takes what listeners have, and looks at what processes use, if it is time again."""
        for pipe in wait_for([pipe for _, pipe in self._listeners], wait_s):
            try:
                self._take(*cast(Connection, pipe).recv())
            except EOFError:
                raise Problem("a listener of the benchmark has died") from None
        is_warm = self.n_answered >= self.shown[0]
        if is_warm and time.monotonic() >= self._next_look_s:
            self._next_look_s = time.monotonic() + _LOOK_S
            self._look_at_processes()

    def wait(self) -> None:
        """Until all that was shown is answered, or nothing has come for a while.

        Raises:
            Problem: the session has ended.
        """
        while self.n_answered < sum(self.shown) or not self._has_lsl_all():
            self.look()
            if self.process.poll() is not None:
                raise Problem(f"the session has ended before it was asked to: {self._last_words()}")
            silent_s = time.monotonic() - self._changed_s
            if self._source.n_to_show == 0 and silent_s > self._source.silence_s:
                break  # what is missing is lost
        self._look_at_processes()
        until_s = time.monotonic() + 2 * BATCH_S  # listeners hand over what they have
        while (left_s := until_s - time.monotonic()) > 0:
            self.look(left_s)

    def _has_lsl_all(self) -> bool:
        """Whether the LSL client, which may be slower than the subscriber, has each final one."""
        finals = (key.trial for key in self.answers if not key.provisional)
        return not self._results or all("at_lsl" in self._extra[trial] for trial in finals)

    def end(self) -> MeasuredSession:
        """Ends the session in order, as `kill` does: Ctrl-C reaches nothing in the background."""
        for process, _ in self._listeners:  # they have handed over what they had
            process.kill()
        self.process.terminate()
        try:
            self.process.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            raise Problem(f"the session has not ended in {_END_WAIT_S:g} s") from None
        summary = read_summary(self.folder) or {}
        is_ours = SOURCE in self._pids
        n_shown = sum(self.shown) if is_ours else self.n_answered + self._n_dropped()
        last = dict(self._usage.keys())  # process by name
        return MeasuredSession(
            folder=self.folder,
            answers=tuple(
                replace(
                    one,
                    moments={**one.moments, **({} if one.provisional else self._extra[one.trial])},
                )
                for one in self.answers.values()
            ),
            n_shown=n_shown,
            n_warm_up=self.shown[0] if len(self.shown) > 1 else 0,
            n_twice=self._n_twice,
            usage={
                name if last[name] == pid else f"{name}-{pid}": Usage(np.array(rows))
                for (name, pid), rows in self._usage.items()
            },
            summary=summary,
        )

    def _n_dropped(self) -> int:
        """Of somebody else's markers, which come before and after it counts, too."""
        records = read_ledger(self.folder / "ledger.jsonl")
        seen = {one["trial"]: one["onset_s"] for one in records if one["event"] == "marker"}
        dropped = (one for one in records if one["event"] == "dropped")
        lost = (one["trial"] for one in dropped if one["reason"] != "shutdown")
        return sum(seen.get(trial, 0.0) >= self._ready_s for trial in lost)

    def _listen(self, name: str, listener: Callable[..., None], *arguments: object) -> None:
        """Starts a listener, which says None once it is there."""
        ours, its = _processes.Pipe(duplex=False)
        process = _processes.Process(target=listener, args=(*arguments, its), daemon=True)
        process.start()
        its.close()
        self._listeners.append((process, ours))
        self._pids[name] = process.pid or 0

    def _is_ready(self) -> bool:
        return f"\n{_READY}" in self._log.read_text(encoding="utf-8", errors="replace")

    def _await(self, holds: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + _START_WAIT_S
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise Problem(f"the session has not {what}: {self._last_words()}")
            time.sleep(0.02)

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _take(self, kind: str, batch: Sequence[Any]) -> None:
        self._changed_s = time.monotonic()
        if kind != "answers":
            for trial, name, moment_s in batch:
                self._n_twice += name == "twice"
                self._extra[trial].setdefault(name, moment_s)
            return
        for answer in batch:
            if answer.onset_s < self._ready_s:  # somebody else's marker, before anybody listened
                continue
            key = _Key(answer.trial, answer.tmax_s, answer.provisional)
            end_s = answer.moments["window_end"]
            pushed = {"pushed": self._source.pushed_at_s(end_s)}
            self.answers.setdefault(key, replace(answer, moments={**answer.moments, **pushed}))

    def _look_at_processes(self) -> None:
        now_s = local_clock()
        for name, process in self._found():
            with suppress(psutil.Error), process.oneshot():
                row = (now_s, *used_by(process))
                self._usage.setdefault((name, process.pid), []).append(row)

    def _found(self) -> Iterator[tuple[str, psutil.Process]]:
        with suppress(psutil.Error):
            for name, pid in self._pids.items():
                yield name, psutil.Process(pid)
            for child in psutil.Process(self.process.pid).children(recursive=True):
                if (node := node_of(child)) is not None:
                    yield node, child


def read_whole(folder: Path) -> SessionConfig | None:
    """The config of a session that begins; None where it is not written yet."""
    path = folder / "config.json"
    whole = path.exists() and path.read_bytes().endswith(b"}\n")
    return read_config(path) if whole else None
