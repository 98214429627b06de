"""What a session makes of a stream that answers under its name and is another."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from hvf_core.problem import Problem
from stream.acquire.chunk import Chunk
from stream.acquire.lsl import FoundStream, local_clock, pylsl
from stream.acquire.units import EEG, MICROVOLTS
from stream.acquire.watch.rate import Flow
from stream.acquire.watch.return_guard import ReturnGuard
from stream.pipeline.nodes.stream_watch import StreamWatch
from tests.waiting import wait_until


class Reports:
    """A socket that takes everything."""

    def send(self, frame: bytes, flags: int) -> None:
        pass


def found_at(rate_hz: float) -> "pylsl.StreamInfo":
    return pylsl.StreamInfo("Cap", "EEG", 1, rate_hz, "float32", "cap")


@pytest.fixture
def watch() -> StreamWatch:
    facts = {"offset_s": 0.0, "offset_uncertainty_s": 0.0}
    inlet = SimpleNamespace(
        stream=FoundStream(found_at(250)),
        channels=("Cz",),
        labels=("Cz",),
        check=lambda: None,
        in_doubt=threading.Event(),
        signal=EEG,
        units={"Cz": MICROVOLTS},
        **facts,
    )
    return StreamWatch("eeg", inlet, Reports())


def arrived(watch: StreamWatch, n_gaps: int) -> None:
    now_s = local_clock() + 1000  # nothing stalls
    watch.arrived(Chunk(np.array([now_s]), np.ones((1, 1)), 0.0, now_s), n_gaps)


def test_a_source_that_is_back_before_it_was_missed_is_known_by_its_gap(watch, monkeypatch) -> None:
    asked = []

    def answering(guard: ReturnGuard, was: FoundStream) -> list[FoundStream]:
        asked.append(was)
        return [FoundStream(found_at(500))]

    monkeypatch.setattr(ReturnGuard, "_answering", answering)
    # Made here, both have no uid, which no stream on a network lacks.
    watch._inlet.stream.uid = "another"
    arrived(watch, n_gaps=0)
    watch.look(Flow())
    assert not asked
    arrived(watch, n_gaps=1)
    with pytest.raises(Problem, match="came back at 500 Hz, the session began at 250 Hz"):
        wait_until(lambda: watch.look(Flow()))
