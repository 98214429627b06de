"""A reader begins in the state in which its session is, whichever reader of it this is."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zmq

from stream.acquire.chunk import Chunk
from stream.acquire.units import Signal
from stream.pipeline.books.about import AboutSettings
from stream.pipeline.nodes.trial_sender import TrialSender
from stream.pipeline.wire.bus import drain, open_socket
from stream.pipeline.wire.config import Endpoints, LiveSource, SessionConfig
from stream.pipeline.wire.messages import MarkerSeen, Message, Noted, TrialDropped
from stream.pipeline.witness import last_announced
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("was_told", "has_form", "reasons"),
    [
        (None, False, []),
        (None, True, ["paused"]),
        ("pause", False, ["paused"]),
        ("resume", True, []),
        ("finish", False, ["paused"]),
    ],
)
def test_the_first_marker_of_a_reader_ends_as_its_session_is(
    tmp_path: Path, was_told: str | None, has_form: bool, reasons: list[str]
) -> None:
    config = SessionConfig(
        session="s",
        folder=tmp_path,
        endpoints=Endpoints.local(),
        source=LiveSource(eeg="EEG", markers="m"),
        about=AboutSettings(form=has_form),
        record=False,
        was_told=was_told,
    )
    reports = open_socket(zmq.PULL, config.endpoints.reports, bind=True)
    line = SimpleNamespace(incarnation="r", orders=lambda: iter(()), command=lambda: None)
    reader = TrialSender(config, line, ["Cz"], 100.0, {}, Signal("eeg", "microvolts"))
    reader.take("markers", Chunk(np.array([1.0]), np.array([["a"]], object), 0.0, 1.0))
    reader.say("that was all")
    said: list[Message] = []

    def is_all() -> bool:
        said.extend(drain(reports))
        return bool(said) and isinstance(said[-1], Noted)

    wait_until(is_all)
    config.endpoints.remove()
    assert [one.reason for one in said if isinstance(one, TrialDropped)] == reasons
    assert last_announced(config.kept("r")) == [one for one in said if isinstance(one, MarkerSeen)]
