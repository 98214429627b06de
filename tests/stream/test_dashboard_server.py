"""Who is let in to a page, and what is served to whom: real requests to a real server."""

import http.client
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from hvf_core.problem import Problem
from stream.acquire.watch.signals import Decimator
from stream.dashboard.beside import dashboard_beside
from stream.dashboard.doors import Doors
from stream.dashboard.links import kept, links_in
from stream.dashboard.ports import announce, doors_of, listening
from stream.dashboard.run import serve
from stream.pipeline.outputs.settings import OutputSettings, PageSettings
from stream.pipeline.wire.config import SessionConfig
from tests import forked
from tests.calling import call
from tests.finished import RATE_HZ, Piece, Session, finished
from tests.ports import free_port
from tests.waiting import wait_until

MARKERS = [(301.0 + k, f"image {k % 3}") for k in range(6)]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A session that is over, beside a file that is nobody's business."""
    folder = tmp_path_factory.mktemp("sessions")
    (folder / "secret.png").write_bytes(b"not yours")
    session = finished(folder / "one", [Piece(300.0, 2500)], MARKERS)
    images = session.folder / "images"
    images.mkdir(exist_ok=True)
    (images / "trial-00001.png").write_bytes(b"a painting")
    os.symlink(folder / "secret.png", images / "trial-00002.png")
    return session


@pytest.fixture(scope="module")
def config(session: Session) -> SessionConfig:
    return session.config


@contextmanager
def served(config: SessionConfig, host: str = "127.0.0.1") -> Iterator[Doors]:
    bound = listening(f"{host}:{free_port()}")
    doors, ended = doors_of(f"{host}:1", bound), threading.Event()
    server = threading.Thread(target=serve, args=(config, bound, doors, ended.wait))
    server.start()
    try:
        yield doors
    finally:
        ended.set()
        server.join()


@pytest.fixture(scope="module")
def doors(config: SessionConfig) -> Iterator[Doors]:
    with served(config) as doors:
        yield doors


def _steers(doors: Doors) -> str:
    """The cookie of a browser that has opened the first link."""
    return f"{doors.cookie}={next(iter(doors.tokens))}"


def get(doors: Doors, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of an answer; the path goes out as it is, to who may steer."""
    headers = {"Cookie": _steers(doors)} | headers
    line = http.client.HTTPConnection("127.0.0.1", doors.port, timeout=60)
    line.request("GET", path, headers={n.replace("_", "-"): v for n, v in headers.items()})
    answer = line.getresponse()
    told = (answer.status, answer.read().decode(), {k.lower(): v for k, v in answer.getheaders()})
    line.close()
    return told


@contextmanager
def page(doors: Doors, query: str = "?v=1", **more: Any) -> Iterator[ClientConnection]:
    more = {"additional_headers": {"Cookie": _steers(doors)}} | more
    with connect(f"ws://127.0.0.1:{doors.port}/live{query}", **more) as socket:
        yield socket


def hear(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while (told := json.loads(socket.recv(60)))["kind"] != kind:
        pass
    return told


def test_a_session_that_is_over_is_shown_whole(doors: Doors, config: SessionConfig) -> None:
    with page(doors) as socket:
        hello = json.loads(socket.recv(60))
        assert (hello["kind"], hello["session"]["mode"]) == ("hello", "finished")
        paths = hello["settings"]["values"]
        assert not [path for path in paths if path.startswith("decoding")]  # it has no bundle
        assert "reject.flat_uv" in paths
        told = [json.loads(socket.recv(60)) for _ in range(7)]
    state = next(one for one in told if one["kind"] == "state")
    assert (state["state"], state["ended"]["report"]) == ("ended", True)
    assert state["ledger"]["markers"] == len(MARKERS)
    trials = [one for one in told if one["kind"] == "trial"]
    assert [one["shown"]["id"] for one in trials] == [text for _, text in MARKERS]
    assert json.loads(get(doors, "/state.json")[1])["state"]["ledger"] == state["ledger"]
    for path in ("/", "/report.html", "/files/summary.json", "/images/trial-00001.png"):
        status, _, headers = get(doors, path)
        assert (status, headers["x-content-type-options"]) == (200, "nosniff"), path


def test_the_eeg_of_a_trial_that_is_over_comes_from_the_recording(
    doors: Doors, session: Session
) -> None:
    samples, stamps_s = Decimator(RATE_HZ, 3).take(session.samples[:, :3], session.true_s)
    with page(doors) as socket:
        for trial, (onset_s, _) in enumerate(MARKERS, 1):
            socket.send(json.dumps({"id": trial, "ask": "trial_eeg", "trial": trial}))
            told = hear(socket, "trial_eeg")
            assert told["channels"] == ["Cz", "Pz", "Oz"]
            times_s, there = np.array(told["times_s"]), np.array(told["uv"])
            for channel, uv in zip(samples.T, there, strict=True):
                around = np.interp(onset_s + times_s, stamps_s, channel)
                # Either counts its thirds of samples from its own first one.
                assert np.corrcoef(around, uv)[0, 1] > 0.5
            assert np.abs(there[:, times_s < 0].mean(axis=1)).max() < 0.01
        socket.send('{"id":99,"ask":"trial_eeg","trial":99}')
        assert hear(socket, "trial_eeg")["uv"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/images/../config.json",
        "/images/..%2fconfig.json",
        "/images/..%2f..%2fsecret.png",
        "/images/%2e%2e/%2e%2e/secret.png",
        "/images/trial-00002.png",  # a link to the outside
        "/files/../config.json",
        "/files/config.json",
        "/files/..%2fledger.jsonl",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/thumbnails/..%2f..%2fsecret.png",
        "/thumbnails//etc/passwd",
        "//etc/passwd",
        "/images/a%00b.png",
    ],
)
def test_nothing_outside_of_the_folder_is_served(doors: Doors, path: str) -> None:
    status, text, _ = get(doors, path)
    assert status in (403, 404)
    assert not {"not yours", "endpoints", "root:", "import"} & set(text.split())
    assert get(doors, "/state.json")[0] == 200


def test_foreign_names_and_origins_are_refused_and_logged(doors: Doors, caplog) -> None:
    local = f"localhost:{doors.port}"
    assert get(doors, "/", Host=local)[0] == 200
    assert get(doors, "/", Host=local, Origin=f"http://{local}")[0] == 200
    led = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert get(doors, "/", Host=local, **led)[0] == 200  # a link is followed
    caplog.clear()
    assert get(doors, "/", Host="evil.example")[0] == 421  # DNS rebinding
    assert get(doors, "/", Host=local, Origin="http://evil.example")[0] == 403
    assert get(doors, "/", Host=local, Origin="null")[0] == 403
    assert get(doors, "/state.json", Host=local, Sec_Fetch_Site="cross-site")[0] == 403
    for more in (
        {"origin": "http://evil.example"},
        {"origin": f"https://evil.example:{doors.port}"},
    ):
        with pytest.raises(InvalidStatus) as refused, page(doors, **more):
            pass
        assert refused.value.response.status_code == 403
    with page(doors, origin=f"http://127.0.0.1:{doors.port}") as socket:
        assert hear(socket, "hello")["rights"] == "control"
    assert sum("refused" in line for line in caplog.messages) == 6
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "[::1"}, 421),
        ({"Host": "localhost:{port}", "Origin": "http://["}, 403),
        ({"Host": "127.0.0.2:{port}"}, 200),  # is this machine's alone, too
    ],
)
def test_names_of_this_machine_are_known_and_broken_ones_refused(
    doors: Doors, headers: dict[str, str], status: int
) -> None:
    told = {name: value.format(port=doors.port) for name, value in headers.items()}
    assert get(doors, "/", **told)[0] == status


def end(socket: ClientConnection) -> tuple[int, str]:
    """How the server closes a connection: code and reason."""
    with suppress(ConnectionClosed):
        while True:
            socket.recv(60)
    return socket.close_code, socket.close_reason


def tell_through(fifo: Path, file: Path) -> bool:
    """Puts a file in place of a FIFO, also for whoever reads that now; False: nobody does yet."""
    with suppress(OSError), open(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK), "wb") as end:
        told = file.read_bytes()
        file.replace(fifo)
        end.write(told)
        return True
    return False


@pytest.mark.slow
def test_a_session_that_is_over_is_looked_at_once_at_a_time_for_who_steers(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.dashboard.checks.subprocess.Popen", forked.Popen)
    folder = Path(shutil.copytree(session.folder, tmp_path / "s"))
    config, kept = folder / "config.json", folder / "config.kept"
    config.rename(kept)
    os.mkfifo(config)  # from which nothing is read before it is written
    moved = session.config.model_copy(update={"folder": folder})
    with served(moved) as doors, page(doors) as steers, page(doors) as other:
        steers.send('{"id":1,"ask":"check"}')
        assert hear(steers, "said")["ok"]
        other.send('{"id":2,"ask":"check"}')
        assert "run already" in hear(other, "said")["text"]
        wait_until(lambda: tell_through(config, kept))
        while (told := hear(steers, "checks"))["state"] == "running":
            pass
        assert {one["section"] for one in told["verdicts"]} == {"on disk"}
        assert {one["state"] for one in told["verdicts"]} == {"ok"}
        assert f"{len(MARKERS)} markers: " in told["verdicts"][-1]["text"]
        assert json.loads(get(doors, "/state.json")[1])["checks"] == told


NO_REQUESTS = ("rubbish", "[]", '{"id":1}', '{"id":2,"ask":"rm"}', '{"id":3,"ask":"mark"', b"bytes")


def test_what_is_no_request_is_told_so_and_too_much_of_it_ends_that_page_alone(
    doors: Doors,
) -> None:
    with page(doors) as good:
        hear(good, "state")
        with page(doors) as bad:
            for sent in (*NO_REQUESTS, '{"id":7,"ask":"mark","argument":"x","more":1}'):
                bad.send(sent)
                assert not (said := hear(bad, "said"))["ok"]
            assert said["id"] == 7
            with suppress(ConnectionClosed):  # before all of it is sent
                for _ in range(20):
                    bad.send("{" * 1000)
            assert end(bad)[0] == 1008
        with page(doors) as bad:
            bad.send("x" * 17_000)
            assert end(bad)[0] == 1009
        with page(doors, "?v=2") as old:
            code, reason = end(old)
            assert (code, "reload" in reason) == (4001, True)
        good.send(json.dumps({"id": 1, "ask": "mark", "argument": "x"}))
        said = hear(good, "said")
    assert (said["id"], said["ok"]) == (1, False)
    assert "the session has ended" in said["text"]


DOORS = (
    *("/", "/state.json", "/report.html", "/files/ledger.jsonl", "/images/trial-00001.png"),
    *("/thumbnails/image%200", "/static/main.js", "/no/such"),
)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_nobody_comes_in_without_a_token_and_only_to_look_with_the_other(
    host: str, config: SessionConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(config, host) as doors:
        (control, look) = doors.tokens
        assert {get(doors, path, Cookie="")[0] for path in DOORS} == {401}
        assert {get(doors, f"{path}?token=wrong", Cookie="")[0] for path in DOORS} == {401}
        for wrong in ({}, {"Cookie": f"{doors.cookie}=wrong"}):
            with pytest.raises(InvalidStatus), page(doors, additional_headers=wrong):
                pass
        assert get(doors, "/", Host="evil.example")[0] == 421
        status, _, headers = get(doors, f"/?token={look}")
        cookie = headers["set-cookie"]
        assert (status, headers["location"]) == (303, "/")
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie  # or a link in a mail would come without it
        status, text, headers = get(doors, f"/state.json?token={look}")
        assert (status, json.loads(text)["hello"]["rights"]) == (200, "look")
        assert json.loads(text).keys() == {"hello", "state"}  # not what the machine lets in
        status, _, headers = get(doors, f"//evil.example/?token={look}")
        assert (status, headers.get("location")) == (404, None)
        kept = {"Cookie": cookie.partition(";")[0]}
        assert get(doors, "/", **kept)[0] == 200
        with page(doors, additional_headers=kept) as socket:
            assert hear(socket, "hello")["rights"] == "look"
            socket.send('{"id":1,"ask":"stop"}')
            assert "only looks" in hear(socket, "said")["text"]
            socket.send('{"id":2,"ask":"watch","kinds":["eeg"]}')
            assert hear(socket, "said")["ok"]
        with page(doors, f"?v=1&token={control}", additional_headers={}) as socket:
            assert hear(socket, "hello")["rights"] == "control"
        opened: list[str] = []
        monkeypatch.setattr("webbrowser.open", opened.append)
        monkeypatch.setenv("DISPLAY", ":0")
        again = call("dashboard", config.folder)
        assert again.code == 0
        assert not call("dashboard", config.folder, "--no-browser").code
        # All users see what a browser is started with: no token, but a file that leads there.
        (file,) = (file for file, of in links_in(config.folder).items() if of == doors.links())
        assert opened in [[one.as_uri()] for one in links_in(config.folder)]
        assert file.stat().st_mode & 0o777 == 0o600
        assert f"content='0;url={doors.links()['control'][0]}'" in file.read_text()
        written = file.read_text()
        assert f"page to look at only: {' or '.join(doors.links()['look'])}" in again.out
        assert get(doors, f"/files/{file.name}?token={control}")[0] == 404
    assert not file.exists()
    (config.folder / "page-link-new.html").touch()  # as one that is just being written
    file.write_text(written)  # as one that was killed leaves it
    assert file not in links_in(config.folder)
    assert not file.exists()


def test_of_a_blind_session_no_file_that_tells_what_was_shown_is_served(
    config: SessionConfig,
) -> None:
    blind = config.model_copy(update={"outputs": OutputSettings(blind=True)})
    with served(blind) as doors:
        for path in ("/report.html", "/files/trials.csv", "/files/ledger.jsonl"):
            assert get(doors, path)[0] == 403
        assert get(doors, "/images/trial-00001.png")[0] == 200
        with page(doors) as socket:
            told = [json.loads(socket.recv(60)) for _ in range(8)]
    assert "image 1" not in json.dumps(told)


def test_a_port_that_is_taken_is_passed_over_and_a_strange_address_is_refused() -> None:
    with listening("127.0.0.1:20765") as first, listening("127.0.0.1:20765") as second:
        assert second.getsockname()[1] > first.getsockname()[1]
    with pytest.raises(Problem, match="give an address of this machine"):
        listening("203.0.113.7:8765")


def test_without_a_session_dashboard_says_how_to_begin_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for named, told in (([], "or begin one"), (["nowhere"], "nowhere' holds no session")):
        done = call("dashboard", *named, "--no-browser")
        assert done.code == 1
        assert told in done.one_sentence()
    wrong = ("--page", "foo", "--no-paint", "--out", "s")
    for options in (wrong, ("--no-dashboard", "--page", "127.0.0.1:8765", "--out", "s")):
        assert call(*options).code == 2
    assert not any(tmp_path.iterdir())


def test_a_page_that_dies_beside_a_session_is_told_and_leaves_no_zombie(tmp_path: Path) -> None:
    settings, lines = PageSettings(address=f"127.0.0.1:{free_port()}", browser=False), Queue[str]()
    before = {one.pid for one in psutil.Process().children()}
    with dashboard_beside(tmp_path, settings, lines.put):  # where no session begins
        (page,) = [one for one in psutil.Process().children() if one.pid not in before]
        page.kill()
        assert "has ended by itself" in lines.get(timeout=60)
        assert not psutil.pid_exists(page.pid)
    assert lines.empty()  # not where a page is that never was


def test_where_a_page_is_is_said_and_opened_once_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, opened = Queue[str](), list[str]()
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    with listening(f"0.0.0.0:{free_port()}") as bound:
        bound.settimeout(60)
        doors = doors_of("0.0.0.0:1", bound)
        control, look = doors.links().values()
        with kept(tmp_path, doors.links()):
            for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"):
                assert lines.empty()
                assert not opened
                telling = announce(bound, doors, lines.put, opens=tmp_path)
                page, _ = bound.accept()
                with page:
                    asked = page.recv(1000).decode()
                    page.sendall(answer)
                assert asked.startswith(f"GET /{control[0].rpartition('/')[2]} HTTP")
                telling.join()
            assert opened == [file.as_uri() for file in links_in(tmp_path)]
    assert lines.get_nowait() == f"page: {' or '.join(control)}"
    assert lines.get_nowait() == f"page to look at only: {' or '.join(look)}"


def test_a_page_for_other_machines_has_its_number_beside_its_name(monkeypatch) -> None:
    def addresses(**of: str) -> dict[str, list[SimpleNamespace]]:
        return {name: [SimpleNamespace(family=socket.AF_INET, address=of[name])] for name in of}

    here = addresses(lo="127.0.0.1", eth0="192.0.2.7", eth1="198.51.100.7")
    up = {name: SimpleNamespace(isup=name != "eth1") for name in here}
    monkeypatch.setattr("psutil.net_if_addrs", lambda: here)
    monkeypatch.setattr("psutil.net_if_stats", lambda: up)
    of = {host: Doors(host, 8765).links()["look"] for host in ("0.0.0.0", "192.0.2.7")}
    hosts = {host: [urlsplit(link).netloc for link in links] for host, links in of.items()}
    at = "192.0.2.7:8765"
    assert hosts == {"0.0.0.0": [f"{socket.gethostname()}:8765", at], "192.0.2.7": [at]}
