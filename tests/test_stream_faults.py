"""What a session makes of a source that freezes, dies, and comes back the same or changed."""

import os
import signal
import uuid
from pathlib import Path

import pytest

from stream.pipeline.books.ledger import read_ledger
from tests.sessions import (
    PATIENCE_S,
    amplifier,
    check_accounted,
    finish,
    interrupt,
    listen,
    trials_of,
    wait_for_decoded,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def name() -> str:
    return f"amp-{uuid.uuid4().hex[:8]}"


def states(folder: Path) -> list[str]:
    path = folder / "ledger.jsonl"
    records = read_ledger(path) if path.exists() else []
    eeg = [r for r in records if r["event"] == "stream" and not r["name"].endswith("-markers")]
    changes = [r["state"] for r in eeg]
    return [state for state in changes if state != "waiting"]  # told where it lasts long enough


def wait_for_state(folder: Path, state: str) -> None:
    wait_until(lambda: state in states(folder), PATIENCE_S)


def after_loss(folder: Path) -> list[str]:
    return states(folder)[states(folder).index("lost") + 1 :]


def test_a_source_that_freezes_is_stalled_then_lost_and_loses_no_trial(name, tmp_path) -> None:
    folder = tmp_path / "session"
    with amplifier(name) as source:
        session = listen(name, folder)
        wait_for_decoded(folder, 2)
        os.kill(source.pid, signal.SIGSTOP)
        wait_for_state(folder, "lost")
        os.kill(source.pid, signal.SIGCONT)
        wait_until(lambda: "streaming" in after_loss(folder), PATIENCE_S)
        wait_for_decoded(folder, len(trials_of(folder, "cut")) + 1)
        interrupt(session)
        assert finish(session).code == 130
    # Where the machine is busy there are short stalls, too.
    lost = states(folder).index("lost")
    assert states(folder)[0] == "streaming"
    assert states(folder)[lost - 1 : lost + 2] == ["stalled", "lost", "recovered"]
    told = check_accounted(folder)
    # A frozen source sends later what it could not send: late, but whole.
    assert set(told["dropped"]) <= {"shutdown", "no_data"}
    assert told["streams"]["gaps"] == 0


def test_a_source_that_dies_and_returns_is_decoded_again_without_a_restart(name, tmp_path) -> None:
    folder = tmp_path / "session"
    with amplifier(name):
        session = listen(name, folder)
        wait_for_decoded(folder, 2)
    wait_for_state(folder, "stalled")
    with amplifier(name, text="again"):
        wait_until(lambda: cut_of(folder, "again"), PATIENCE_S)
        interrupt(session)
        done = finish(session)
    assert "recovered" in states(folder)
    assert len(cut_of(folder, "stim")) >= 2
    assert trials_of(folder, "node_lost") == []
    told = check_accounted(folder)
    # liblsl's inlets come back one by one: what only one of them has heard is no loss.
    assert done.code == 130
    assert "node_lost" not in told["dropped"]
    assert told["streams"]["gaps"] == 1


def cut_of(folder: Path, stimulus: str) -> set[int]:
    """The trials of a stimulus that were cut."""
    shown = {r["trial"] for r in trials_of(folder, "marker") if r["stimulus"] == stimulus}
    return shown & {r["trial"] for r in trials_of(folder, "cut")}


@pytest.mark.parametrize(
    ("n_channels", "rate_hz", "expected"),
    [
        (6, 250.0, "came back with 6 channels, the session began with 4"),
        (4, 500.0, "came back at 500 Hz, the session began at 250 Hz"),
    ],
)
def test_a_source_that_returns_changed_is_refused(
    name, tmp_path, n_channels: int, rate_hz: float, expected: str
) -> None:
    folder = tmp_path / "session"
    with amplifier(name):
        session = listen(name, folder)
        wait_for_decoded(folder, 1)
    with amplifier(name, n_channels, rate_hz):
        done = finish(session)
    assert done.code == 1
    assert expected in done.one_sentence()
    check_accounted(folder)
