"""A session and its page: what is seen and done there is that session's, and harms it never."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from stream.dashboard.links import links_in
from stream.exports.finished import finished_session
from tests.ports import free_port
from tests.sessions import PATIENCE_S, check_accounted, finish, interrupt, start, trials_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("demo_model")]


class Page:
    """An open page, as a program sees it."""

    def __init__(self, folder: Path):
        wait_until(lambda: links_in(folder), PATIENCE_S)
        (links,) = links_in(folder).values()
        address = links["control"][0].replace("http", "ws", 1).replace("/?", "/live?v=1&")
        self.socket = connect(address, open_timeout=PATIENCE_S)
        self.state: dict[str, Any] = {}

    def hear(self, holds: Callable[[Any], object]) -> Any:
        """Reads until something is as is looked for: a message, or a frame of EEG."""
        while True:
            came = self.socket.recv(PATIENCE_S)
            told = json.loads(came) if isinstance(came, str) else came
            if isinstance(told, dict) and told["kind"] == "state":
                self.state = told
            if holds(told):
                return told

    def kind(self, kind: str, **wanted: Any) -> Any:
        return self.hear(
            lambda told: (
                isinstance(told, dict) and told["kind"] == kind and wanted.items() <= told.items()
            )
        )

    def ask(self, id_: int, ask: str, **more: Any) -> dict[str, Any]:
        self.socket.send(json.dumps({"id": id_, "ask": ask, **more}))
        return self.kind("said", id=id_)


def test_a_session_waits_for_its_form_is_steered_and_outlives_its_page(tmp_path: Path) -> None:
    folder, port = tmp_path / "s", free_port()
    page_at = ("--page", f"127.0.0.1:{port}", "--no-browser")
    trials = ("--trials", "800", "--repeats", "80", "--soa", "0.4", "--tmax", "0.3,1")
    session = start(*trials, "--no-paint", "--headless", "--form", *page_at, "--out", folder)

    page = Page(folder)
    hello = page.kind("hello")
    assert (hello["session"]["simulated"], hello["form"]["needed"]) == (True, True)
    assert hello["window_ends_s"] == [0.3, 0.996]
    page.kind("state", state="waiting")
    wrong = page.ask(1, "form", values={"about.line_hz": 55, "about.run": 0}, start=True)
    assert (wrong["ok"], [*wrong["fields"]]) == (False, ["about.line_hz", "about.run"])
    values = {"subject": "07", "about.task": "rsvp", "about.line_hz": 50, "about.run": 2}
    assert page.ask(2, "form", values=values, start=True)["ok"]
    page.kind("state", ready=True)
    assert page.ask(3, "watch", kinds=["eeg", "quality", "evoked"])["ok"]
    trial = page.kind("trial", outcome="decoded")
    assert [answer["tmax_s"] for answer in trial["answers"]] == [0.3, 0.996]
    assert trial["shown"]["label"]
    page.hear(lambda told: isinstance(told, bytes) and told[0] == 1)
    assert len(page.kind("quality")["channels"]) == 63
    page.hear(
        lambda told: isinstance(told, dict) and told.get("kind") == "evoked" and told["n"] > 4
    )
    cut = page.kind("trial", outcome="open")["trial"] - 4  # 1.6 s ago: it is over
    page.socket.send(json.dumps({"id": 4, "ask": "trial_eeg", "trial": cut}))
    assert len(page.kind("trial_eeg")["uv"]) == 63
    assert page.ask(5, "mark", argument="half time")["ok"]
    assert page.ask(6, "set", path="decoding.min_confidence", value=0.25)["ok"]
    assert page.kind("hello")["settings"]["values"]["decoding.min_confidence"] == 0.25
    assert page.ask(7, "pause")["ok"]
    page.kind("state", state="paused")

    (served,) = [
        child
        for child in psutil.Process(session.pid).children(recursive=True)
        if "stream.dashboard.run" in " ".join(child.cmdline())
    ]
    served.kill()  # which the session does not notice
    served.wait(PATIENCE_S)  # until then its links stand
    with pytest.raises(ConnectionClosed):
        page.hear(lambda told: False)
    beside = start("dashboard", folder, "--page", f"127.0.0.1:{port}", "--no-browser")
    again = Page(folder)
    assert again.kind("hello")["settings"]["values"]["decoding.min_confidence"] == 0.25
    again.kind("state", state="paused")  # it is looked for first
    assert again.kind("trial", trial=trial["trial"])["answers"] == trial["answers"]
    n_before = again.state["ledger"]["decoded"]
    assert again.ask(8, "resume")["ok"]
    while again.state["ledger"]["decoded"] == n_before:
        again.kind("state")
    assert again.ask(9, "stop")["ok"]
    again.kind("state", state="ended")

    done = finish(session)
    assert done.code == 0, done.err
    assert "--subject 07 --task rsvp --line-freq 50" in done.out  # in what comes next
    told = check_accounted(folder)
    while again.state["ledger"]["markers"] != told["markers"]:
        again.kind("state")
    interrupt(beside)
    assert finish(beside).code == 130
    asked = [(r["verb"], r["argument"], r["outcome"]) for r in trials_of(folder, "control")]
    assert ("mark", "half time", "done") in asked
    assert [verb for verb, _, outcome in asked if outcome == "done" and verb != "set"] == [
        *("start", "mark", "pause", "resume", "stop")
    ]
    assert {r["by"] for r in trials_of(folder, "control")} == {"dashboard"}
    with finished_session(folder, print) as over:
        assert over.facts == {"subject": "07", "task": "rsvp", "line_hz": 50, "run": 2}
