"""A session that is measured from outside: nothing is lost on the way, and moments are in order."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from demo.head import CHANNELS
from demo.stimuli import schedule
from hvf_core.problem import Problem
from stream.bench.machine import header, machine
from stream.bench.measured_session import STAGES, WAY, WAY_LSL, measure_session
from stream.bench.streams import RunningSource, Source, loop_back
from stream.pipeline.wire.nodes import DECODE, READER, SOURCE, SUPERVISOR
from tests import forked


@pytest.fixture(autouse=True)
def _copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", forked.Popen)


def test_the_header_is_json() -> None:
    found = machine()
    assert json.loads(json.dumps(found)) == found
    assert f"{found['cores']} cores" in header(found)


@pytest.mark.slow
def test_every_trial_is_there_with_its_moments_in_order(demo_model, tmp_path: Path) -> None:
    shown = tuple(one.id for one in schedule(16, 2, 0))
    source = Source(
        f"measured-{tmp_path.name}", 250.0, CHANNELS, 0.2, 5, shown, "subject", has_trigger=True
    )
    options = ("--tmax", "0.3", "--trigger", "Photo")
    with RunningSource(source, markers=False) as running:
        floor = running.hear(loop_back, 0.5)
        measured = measure_session(
            running,
            demo_model.bundle,
            demo_model.gallery,
            12,
            tmp_path / "session",
            options,
            n_warm_up=4,
        )
    finals = measured.finals
    assert [one.stimulus for one in finals] == list(shown[4:])
    assert [len(measured.answers), len(measured.provisionals)] == [32, 12]
    assert (measured.n_lost, measured.n_twice, measured.n_shown) == (0, 0, 16)
    assert measured.summary["markers"] == measured.summary["decoded"] == 16
    moments = ("pushed", "readable", "cut", "taken", "embedded", "searched", "published")
    for one in finals:
        passed = [one.moments[name] for name in (*moments, "received")]
        assert passed == sorted(passed)
        assert one.moments["at_lsl"] > one.moments["searched"]
        assert one.moments["pushed"] >= one.moments["window_end"]
    stages = sum(measured.took_ms(way) for way in STAGES.values())
    assert np.allclose(stages, measured.took_ms(WAY))
    assert len(measured.took_ms(WAY_LSL)) == 12
    assert {SOURCE, SUPERVISOR, DECODE, READER} <= measured.usage.keys()
    assert measured.cpu > 0
    assert min(floor) > 0
    check = measured.summary["streams"]["cross_check"]
    assert check["matched"] == 16  # by the simulated photodiode
    assert -30 < check["offset_mean_ms"] < 0


@pytest.mark.slow
def test_a_session_that_is_refused_is_told_in_its_words(demo_model, tmp_path: Path) -> None:
    source = Source(f"refused-{tmp_path.name}", 250.0)
    with RunningSource(source, markers=False) as running, pytest.raises(Problem, match="missing"):
        measure_session(running, demo_model.bundle, demo_model.gallery, 4, tmp_path / "session")
