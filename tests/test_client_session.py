"""Clients of sessions that run, near and far, through the death of a process and of all of them."""

import os
import signal
import tempfile
import threading
import uuid
from pathlib import Path

import pytest

from stream import client
from stream.client import SessionEnded, TrialEnd, connect, discover
from stream.pipeline.wire.keys import lab_keys
from tests.ports import free_port
from tests.sessions import amplifier, check_accounted, finish, listen, node_pid, trials_of
from tests.stream.test_client import SOON_S
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def cap():
    name = f"client-{uuid.uuid4()}"
    with amplifier(name):
        yield name


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch):
    """A machine on which no other session runs, and where no keys are kept."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="c-") as folder:  # sockets have short names
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setenv("XDG_CONFIG_HOME", folder)
        monkeypatch.setattr(client, "PLACE", Path(folder) / client.PLACE.name)
        yield Path(folder)


def test_a_session_is_found_followed_and_steered_near_and_far(cap, home, tmp_path) -> None:
    folder, where = tmp_path / "session", f"127.0.0.1:{free_port()}"
    process = listen(cap, folder, "--listen", where)
    wait_until(lambda: discover() and lab_keys().exists())
    (found,) = discover()
    assert (found.folder, found.title) == (str(folder), f"live '{cap}'")
    with connect() as near, connect(f"tcp://{where}", keys=str(lab_keys()), wait_s=SOON_S) as far:
        heard: list[list[TrialEnd]] = [[], []]
        threads = []
        for session, told in zip((near, far), heard, strict=True):
            session.wait_ready(deadline_s=SOON_S)
            ends = session.listen(TrialEnd)
            threads.append(threading.Thread(target=told.extend, args=(ends,), daemon=True))
            threads[-1].start()
        assert discover()[0].ready
        assert far.id == near.id == found.session
        end = near.wait_for("stim", nth=9, deadline_s=SOON_S)  # the first came before any EEG
        assert end.outcome == "cut", end
        sent_s = end.marker.sent_s
        assert far.wait_for("stim", sent_s, deadline_s=SOON_S).trial == end.trial
        os.kill(node_pid(folder, "results"), signal.SIGKILL)
        later = near.wait_for("stim", nth=6, deadline_s=SOON_S)
        assert later.marker is not None
        there = far.wait_for(later.trial, deadline_s=SOON_S)
        # By its number the end may be known before a snapshot tells the marker that was lost.
        assert (there.outcome, there.marker or later.marker) == (later.outcome, later.marker)
        assert far.mark("half time") == "marked"
        assert near.finish()
        with pytest.raises(SessionEnded, match=rf"{near.id} has ended \(finish\)"):
            near.until(lambda: None, SOON_S)
        for thread in threads:
            thread.join(SOON_S)
    done = finish(process)
    # On a busy machine the time without a results node is told as one in which nobody listened.
    assert done.code == 0 or done.err.startswith("nobody listened"), done.err
    assert done.out.count("READY: markers count from now on\n") == 1
    assert discover() == []
    check_accounted(folder)
    ended = [r["trial"] for event in ("cut", "dropped") for r in trials_of(folder, event)]
    for ends in heard:
        told = [end.trial for end in ends]
        assert len(set(told)) == len(told)
        assert {trial for trial in ended if trial >= min(told)} == set(told)


def test_a_session_that_is_killed_with_all_its_processes_is_noticed(
    cap, home, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = listen(cap, tmp_path / "session")
    wait_until(discover)
    with connect(wait_s=SOON_S) as session:
        session.wait_ready(deadline_s=SOON_S)
        os.killpg(process.pid, signal.SIGSTOP)  # so that none can close the books
        for node in ("reader", "results", "record"):
            os.kill(node_pid(tmp_path / "session", node), signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        monkeypatch.setattr(client, "SILENT_S", 3.0)
        assert discover() == []
        with pytest.raises(SessionEnded, match=f"nothing was heard of the session {session.id}"):
            session.wait_for("never", deadline_s=SOON_S)
