"""Processes that cut sources side by side, and end when whoever started them does."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from hvf_core.problem import Problem
from offline_train.data.pieces.piece import HowCut, cut_source
from offline_train.data.study import Source

_SMALL = 100_000_000  # bytes of files that are cut before other processes have begun
_TIMES = 4  # as much memory as a file is long: what MNE reads is float64, and then float32
_OWN = 500_000_000  # bytes of a process that has read nothing yet
_TOLD_S = 0.2


class Job(NamedTuple):
    """A source that is to be cut, and where to."""

    source: Source
    at: Path


def workers_for(sources: Sequence[Source]) -> int:
    """As many processes as there are cores, and as memory has room for; 1: it is not worth it."""
    import psutil  # here: whoever says how many does not need it

    sizes = [source.size for source in sources]
    if len(sizes) < 2 or sum(sizes) < _SMALL:
        return 1
    room = psutil.virtual_memory().available // (_TIMES * max(sizes) + _OWN)
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(len(sizes), n_cores or 1, int(room)))


def cut_side_by_side(
    jobs: Sequence[Job],
    how: HowCut,
    asked: Mapping[str, JsonValue],
    n_workers: int,
    tell: Callable[[Source, float], object],
) -> Generator[Job]:
    """Cuts sources by several processes; gives each when it is cut, in whatever order.

    Raises:
        Problem: a source cannot be cut, or a process was killed.
    """
    waiting = list(reversed(jobs))
    with _started(min(n_workers, len(jobs)), how, asked) as workers:
        at_work = {pipe: _send(pipe, waiting.pop()) for pipe in workers}
        while at_work:
            for pipe in wait(list(at_work)):
                assert isinstance(pipe, Connection)
                job = at_work[pipe]
                try:
                    told = pipe.recv()
                except (EOFError, ConnectionResetError):
                    workers[pipe].join(5)
                    raise Problem(
                        f"the process that cut '{job.source.name}' has ended with exit code "
                        f"{workers[pipe].exitcode}, as where memory runs out: give fewer "
                        "--workers, or 1; what is cut already is kept"
                    ) from None
                if isinstance(told, BaseException):
                    raise told
                if told is not None:
                    tell(job.source, told)
                    continue
                at_work.pop(pipe)
                if waiting:
                    at_work[pipe] = _send(pipe, waiting.pop())
                yield job


def _send(pipe: "Connection[Job, float | BaseException | None]", job: Job) -> Job:
    pipe.send(job)
    return job


@contextmanager
def _started(
    n: int, how: HowCut, asked: Mapping[str, JsonValue]
) -> "Iterator[dict[Connection[Job, float | BaseException | None], SpawnProcess]]":
    """So many processes, by the pipes to them; all of them end with the block."""
    spawn = multiprocessing.get_context("spawn")  # as a fork has the locks of threads it has not
    workers = {}
    try:
        for _ in range(n):
            ours, theirs = spawn.Pipe()
            worker = spawn.Process(target=_work, args=(theirs, how, dict(asked)), daemon=True)
            worker.start()
            theirs.close()  # so that the pipe ends with the process
            workers[ours] = worker
        yield workers
    finally:
        for worker in workers.values():
            worker.kill()  # TERM may be ignored; what is half written is a draft
        for worker in workers.values():
            worker.join()


def _work(
    pipe: "Connection[float | BaseException | None, Job]",
    how: HowCut,
    asked: Mapping[str, JsonValue],
) -> None:
    """Cuts what it is sent; without anybody to tell how far it is, it ends."""
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first one ends the rest
    with threadpool_limits(1):  # each has a core
        while True:
            try:
                job = pipe.recv()
            except (EOFError, OSError):
                return
            answer = None
            try:
                cut_source(job.source, how, job.at, asked, partial(_tell, pipe, [0.0]))
            except BrokenPipeError:
                return
            except Problem as problem:
                answer = problem
            pipe.send(answer)


def _tell(
    pipe: "Connection[float | BaseException | None, Job]", last_s: list[float], share: float
) -> None:
    """Now and then: `last_s` has when it was told last."""
    if (now_s := time.monotonic()) > last_s[0] + _TOLD_S:
        last_s[0] = now_s
        pipe.send(share)
