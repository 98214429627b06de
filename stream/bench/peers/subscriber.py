"""Subscribers to answers, in a process of their own: `... subscriber JOB lsl|bus`.

`lsl` is an inlet of the stream that a peer answers on; `bus` a SUB socket beside a session of ours.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from hvf_core.problem import needed
from stream.acquire.lsl import find_stream, local_clock, pylsl
from stream.bench.measured_session import read_whole
from stream.bench.peers.job import READY, Job, heard, message
from stream.client import Retrieval, discover, unpack
from stream.pipeline.wire import messages as wire
from stream.pipeline.wire.bus import open_socket

_FIND_WAIT_S, _OPEN_WAIT_S = 120.0, 10.0
_LOOK_S = 0.05


def over_lsl(job: Job) -> Iterator[tuple[str, float]]:
    """Answers, and when each was here; the first one is `READY`."""
    inlet = pylsl.StreamInlet(find_stream(job.answers, _FIND_WAIT_S).info)
    inlet.open_stream(_OPEN_WAIT_S)
    yield READY, 0.0
    while True:
        sample, _ = inlet.pull_sample(1.0)
        if sample is not None:
            yield sample[0], local_clock()


def over_bus(job: Job) -> Iterator[tuple[str, float]]:
    """The same of a session, which is ready once markers count."""
    wait_for(lambda: read_whole(job.session) is not None, "begun")
    config = needed(read_whole(job.session))
    heard = (wire.Retrieval,)
    with open_socket(zmq.SUB, config.endpoints.answers, bind=False, hears=heard) as bus:
        folder = str(job.session)
        wait_for(lambda: any(one.ready and one.folder == folder for one in discover()), "run")
        yield READY, 0.0
        while True:
            answer = unpack(bus.recv())
            received_s = local_clock()
            if isinstance(answer, Retrieval) and not answer.answer.provisional:
                yield message(answer.about.stimulus, answer.ids, answer.scores), received_s


def wait_for(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + _FIND_WAIT_S
    while not holds():
        if time.monotonic() > deadline_s:
            raise SystemExit(f"the session has not {what} within {_FIND_WAIT_S:g} s")
        time.sleep(_LOOK_S)


def subscribe(job: Job, way: str) -> None:
    with job.said.open("a", buffering=1, encoding="utf-8") as said:
        for text, received_s in {"lsl": over_lsl, "bus": over_bus}[way](job):
            if text == READY:
                print(READY, flush=True)
            else:
                said.write(heard(text, received_s))


if __name__ == "__main__":
    subscribe(Job.model_validate_json(Path(sys.argv[1]).read_text("utf-8")), sys.argv[2])
