"""Over tcp, who has the keys of a session is let in; nobody else hears a word or says one."""

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zmq

from hvf_core.problem import Problem
from stream.pipeline.wire import endpoints as endpoints_module
from stream.pipeline.wire.bus import open_socket
from stream.pipeline.wire.endpoints import Endpoints
from stream.pipeline.wire.keys import lab_keys, make_lab_keys, write_keys
from tests.calling import call
from tests.intruders import KNOWS, PAIRS, intruder, knock

SENDS = (zmq.PUSH, zmq.XPUB, zmq.DEALER)
SOON_MS = 60_000  # however busy the machine is


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    made = Endpoints.local("tcp")
    write_keys(made.control)
    yield made
    made.remove()


def talk(binds: zmq.Socket, connects: zmq.Socket) -> bytes:
    """What arrives at the other end of what is sent from one."""
    sends, hears = (connects, binds) if connects.type in SENDS else (binds, connects)
    if binds.type == zmq.XPUB:
        assert binds.poll(SOON_MS)
        assert binds.recv() == b"\1"
    assert sends.poll(SOON_MS, zmq.POLLOUT)
    sends.send(b"word")
    assert hears.poll(SOON_MS)
    return hears.recv_multipart()[-1]


def test_each_endpoint_has_its_pair() -> None:
    assert {*PAIRS} == {*Endpoints.model_fields}


@pytest.mark.parametrize("name", PAIRS)
def test_who_has_no_keys_hears_nothing_and_is_not_heard(endpoints: Endpoints, name: str) -> None:
    binding, connecting = PAIRS[name]
    endpoint = getattr(endpoints, name)
    latest_only = name == "embeddings"
    binds = open_socket(binding, endpoint, bind=True, latest_only=latest_only)
    strangers = [intruder(name, endpoint, knows) for knows in KNOWS]
    knock(endpoint)
    time.sleep(0.2)  # for what must not come
    assert not binds.poll(0)
    connects = open_socket(connecting, endpoint, bind=False, latest_only=latest_only)
    assert talk(binds, connects) == b"word"
    for _ in range(20):  # none of which goes to a stranger
        if binding in (zmq.PUSH, zmq.XPUB):
            binds.send(b"more")
            assert connects.poll(SOON_MS)
            assert connects.recv() == b"more"
    time.sleep(0.1)
    assert not binds.poll(0)
    for one in (*strangers, binds, connects):
        assert not one.poll(0)
        one.close(0)


def test_nobody_is_let_in_where_no_door_is_kept(endpoints: Endpoints, monkeypatch) -> None:
    monkeypatch.setattr("stream.pipeline.wire.keys._keep_door", lambda context: None)
    other = zmq.Context()  # in which nobody answers whether a key is to be let in
    monkeypatch.setattr(zmq.Context, "instance", lambda: other)
    binds = open_socket(zmq.PULL, endpoints.reports, bind=True)
    connects = open_socket(zmq.PUSH, endpoints.reports, bind=False)
    connects.send(b"word")
    heard = binds.poll(300)
    connects.close(0)
    binds.close(0)
    other.term()
    assert not heard


def test_two_sessions_in_one_process_keep_their_doors_apart(endpoints: Endpoints) -> None:
    other = Endpoints.local("tcp")
    write_keys(other.control)
    binds = open_socket(zmq.PULL, endpoints.reports, bind=True)
    too = open_socket(zmq.PULL, other.reports, bind=True)
    wrong = open_socket(
        zmq.PUSH,
        f"{endpoints.reports.partition('#')[0]}#{other.reports.partition('#')[2]}",
        bind=False,
    )
    right = open_socket(zmq.PUSH, other.reports, bind=False)
    wrong.send(b"word")
    assert talk(too, right) == b"word"
    assert not binds.poll(200)
    assert not too.poll(0)
    for one in (binds, too, wrong, right):
        one.close(0)
    other.remove()


# --- keys of the lab -----------------------------------------------------------------------------


def test_the_command_makes_shows_and_renews_keys_that_others_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert "`keys make` makes them" in call("keys").one_sentence()
    assert str(lab_keys()) in call("keys", "make").out
    files = (lab_keys().parent / "server.json", lab_keys())
    first = [file.read_text() for file in files]
    assert "were there already" in call("keys", "make").out
    assert "are new" in call("keys", "renew").out
    assert all(file.read_text() != text for file, text in zip(files, first, strict=True))
    assert sorted(lab_keys().parent.parent.iterdir()) == [lab_keys().parent]  # no draft is left
    files[0].chmod(0o640)
    with pytest.raises(Problem, match=r"has the mode 0640, .* run `chmod 600 '.*server.json'`"):
        make_lab_keys()  # as a session with --listen does before it starts
    files[0].chmod(0o600)
    (lab_keys().parent / "gone").symlink_to(tmp_path / "nowhere")
    assert "were there already" in call("keys").out
    whole = lab_keys().read_text()
    lab_keys().write_text("garbage")
    for what in ("show", "make"):
        assert "or make others with `keys renew`" in call("keys", what).one_sentence()
    lab_keys().write_text(whole)
    files[0].unlink()  # half of the keys are none
    assert "server.json' is missing" in call("keys", "show").one_sentence()
    assert "are new" in call("keys", "make").out
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    shutil.rmtree(lab_keys().parent)
    lab_keys().parent.write_text("mine")
    assert "is a file where the folder of keys belongs" in call("keys", "make").one_sentence()
    assert lab_keys().parent.read_text() == "mine"


# --- addresses -----------------------------------------------------------------------------------


def test_keys_lie_where_only_this_user_can_enter_and_go_with_the_session(endpoints) -> None:
    folder = Path(endpoints.control.partition("#")[2]).parent
    assert {path.name for path in folder.iterdir()} == {"client.json", "server.json"}
    assert folder.stat().st_mode & 0o077 == 0
    assert "secret" not in endpoints.model_dump_json()
    assert "curve_secretkey" not in endpoints.model_dump_json()
    endpoints.remove()
    assert not folder.exists()


def test_a_long_temporary_folder_falls_back_to_tcp(tmp_path, monkeypatch) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(endpoints_module.tempfile, "tempdir", str(folder))
    assert Endpoints.local().control.startswith("tcp://127.0.0.1:")
    with pytest.raises(Problem, match=r"nobody can be met at .* give --set transport=tcp"):
        open_socket(zmq.ROUTER, Endpoints.local("ipc").control, bind=True)


def test_a_port_that_is_taken_is_said_in_one_sentence(endpoints: Endpoints) -> None:
    host, _, port = endpoints.control.partition("#")[0].removeprefix("tcp://").partition(":")
    taken = closing(socket.create_server((host, int(port))))
    with taken, pytest.raises(Problem, match=r"met at 'tcp://127.0.0.1:\d+' \(Address .* again"):
        open_socket(zmq.ROUTER, endpoints.control, bind=True)


def test_tcp_without_keys_is_refused(endpoints: Endpoints) -> None:
    address = endpoints.control.partition("#")[0]
    with pytest.raises(Problem, match=r"has no keys: give ADDRESS#FILE"):
        open_socket(zmq.DEALER, address, bind=False)
    endpoints.remove()
    with pytest.raises(Problem, match=r"keys of the session, '.*', are gone: start it again"):
        open_socket(zmq.DEALER, endpoints.control, bind=False)
