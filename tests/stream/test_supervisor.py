"""A node that a session can do without may die, fail, hang or be slow: nothing waits for it."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import zmq

from hvf_core.problem import Problem
from stream.pipeline import supervisor
from stream.pipeline.back_off import BackOff, Restart
from stream.pipeline.supervisor import Supervisor
from stream.pipeline.wire.bus import drain, open_socket
from stream.pipeline.wire.config import (
    Endpoints,
    LiveSource,
    PaintingSettings,
    SessionConfig,
    read_config,
)
from stream.pipeline.wire.messages import Noted
from stream.pipeline.wire.nodes import PAINT, NodeSpec, node
from tests import forked

pytestmark = pytest.mark.slow

# A node that does in each of its lives what the file `moods.json` has for it, and notes it.
NODE = """
import json, os, signal, sys, time
from hvf_core.problem import Problem
from stream.pipeline.nodes.node import run_node

def run(config, lifeline):
    moods = json.loads((config.folder / "moods.json").read_text())[NAME]
    lives = config.folder / f"{NAME}.lives"
    n = len(lives.read_text().splitlines()) if lives.exists() else 0
    mood = moods[min(n, len(moods) - 1)]
    with lives.open("a") as file:
        halvings = config.painting.halvings if config.painting else 0
        file.write(json.dumps([mood, halvings]) + "\\n")
    if mood == "fails":
        raise Problem("there is no prior in 'x'; give another with --paint")
    if mood == "loads for ever":
        time.sleep(10_000)
    if mood == "has no room":
        raise OSError(28, "No space left on device", "ledger.jsonl")
    if mood == "dies":
        sys.exit(3)
    if mood == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if mood == "runs out of memory":
        lifeline.say("out_of_memory", "2 GiB")
        raise SystemExit(1)
    if mood == "loads":
        (config.folder / "loading").touch()
        while not (config.folder / "go on").exists():
            time.sleep(0.01)
    lifeline.ready()
    while (command := lifeline.command()) is None or mood == "is deaf":
        time.sleep(0.01)
    (config.folder / f"{NAME}.ended").write_text(command)

run_node(NAME, run)
"""


class Stage:
    """A supervisor with a node `steady` and an optional node `moody`."""

    def __init__(
        self, folder: Path, moods: list[str], painting: PaintingSettings | None, steady: str
    ):
        self.folder = folder
        (folder / "moods.json").write_text(json.dumps({"steady": [steady], "moody": moods}))
        self.config = SessionConfig(
            session="s",
            folder=folder,
            endpoints=Endpoints.local(),
            source=LiveSource(eeg="x", markers="y", wait_s=300.0),
            bundle=folder / "bundle",
            painting=painting,
        )
        self.config.write()
        self.reports = open_socket(zmq.PULL, self.config.endpoints.reports, bind=True)
        steady = NodeSpec("steady", "moods.steady")
        moody = replace(node(PAINT), name="moody", module="moods.moody", hung_after_s=60.0)
        self.supervisor = Supervisor(self.config, [steady, moody], None)
        self.is_over = False

    def end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.supervisor.end()
            self.reports.close(0)
            shutil.rmtree(self.config.endpoints.folder, ignore_errors=True)

    def lives(self) -> list[list]:
        path = self.folder / "moody.lives"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def look(self) -> None:
        self.supervisor.listen(20)
        self.supervisor.look_after()

    def look_until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self.look()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    package = tmp_path / "code" / "moods"
    package.mkdir(parents=True)
    for name in ("steady", "moody"):
        (package / f"{name}.py").write_text(f"NAME = '{name}'\n{NODE}")
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
    monkeypatch.setattr(subprocess, "Popen", forked.Popen)
    monkeypatch.setattr(supervisor, "_SILENT_S", 1e9)  # on a busy machine any node may be
    stages = []

    def set_up(
        *moods: str, painting: PaintingSettings | None = None, steady: str = "serves"
    ) -> Stage:
        folder = tmp_path / "session"
        folder.mkdir()
        stages.append(Stage(folder, list(moods), painting, steady))
        return stages[-1]

    yield set_up
    for made in stages:
        made.end()


def test_nothing_waits_for_an_optional_node_and_it_is_told_to_finish_once_it_listens(stage) -> None:
    made = stage("loads")
    made.supervisor.wait_until_ready()
    made.look_until((made.folder / "loading").exists)
    assert not made.supervisor.is_over("moody")
    made.supervisor.command("finish", "moody")
    (made.folder / "go on").touch()
    made.look_until(lambda: made.supervisor.is_over("moody"))
    assert (made.folder / "moody.ended").read_text() == "finish"
    assert made.supervisor.events == []


def test_nodes_are_waited_for_as_long_as_streams_may_be_and_longer(stage, monkeypatch) -> None:
    monkeypatch.setattr("stream.pipeline.supervisor._READY_WAIT_S", 0.0)
    stage("serves").supervisor.wait_until_ready()


def test_it_is_said_of_a_node_that_it_stands_still_and_goes_on(stage, monkeypatch) -> None:
    monkeypatch.setattr(supervisor, "_SILENT_S", 2.0)
    made = stage("serves")
    made.supervisor.wait_until_ready()
    (pid,) = [n.process.pid for n in made.supervisor._nodes.values() if n.spec.name == "steady"]
    os.kill(pid, signal.SIGSTOP)
    made.look_until(lambda: made.supervisor.events)
    os.kill(pid, signal.SIGCONT)
    made.look_until(lambda: len(made.supervisor.events) > 1)
    silent, back = made.supervisor.events
    assert re.fullmatch(r"steady has been silent for \d+ s", silent)
    assert back == "steady goes on"


def test_a_folder_of_sockets_that_was_swept_ends_the_session(stage) -> None:
    made = stage("serves")
    made.supervisor.wait_until_ready()
    shutil.rmtree(made.config.endpoints.folder)
    (pid,) = [n.process.pid for n in made.supervisor._nodes.values() if n.spec.name == "steady"]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Problem, match=r"steady cannot be started again.*sockets.* swept.*TMPDIR"):
        made.look_until(lambda: made.supervisor.is_over("steady"))


def test_one_that_dies_is_restarted_and_the_others_are_left_alone(stage) -> None:
    made = stage("dies", "serves")
    made.supervisor.wait_until_ready()
    made.supervisor.command("pause", "moody")
    made.look_until(lambda: made.lives()[1:] == [["serves", 0]])
    assert read_config(made.folder / "config-moody.json").was_told == "pause"
    assert made.supervisor.events == ["moody died (code 3) and is restarted in 0.5 s"]
    assert len((made.folder / "steady.lives").read_text().splitlines()) == 1
    made.look_until(lambda: made.reports.poll(0))
    notes = [note for note in drain(made.reports) if isinstance(note, Noted)]
    assert [note.text for note in notes] == made.supervisor.events


def test_one_that_fails_is_given_up_with_one_sentence(stage) -> None:
    made = stage("fails")
    made.supervisor.wait_until_ready()
    made.look_until(lambda: made.supervisor.is_over("moody"))
    for _ in range(3):
        made.look()
    assert made.supervisor.events == [
        "moody is given up, decoding goes on without it: there is no prior in 'x'; give another "
        "with --paint"
    ]
    assert len(made.lives()) == 1
    (note,) = drain(made.reports)
    assert note.facts == {"given_up": "there is no prior in 'x'; give another with --paint"}


def test_one_that_runs_out_of_memory_repeatedly_gets_by_with_less(stage) -> None:
    painting = PaintingSettings(prior="prior", base="sdxl-base")
    made = stage("is killed", "runs out of memory", "serves", painting=painting)
    made.supervisor.wait_until_ready()
    made.look_until(lambda: made.lives()[2:] == [["serves", 1]])
    assert made.lives()[:2] == [["is killed", 0], ["runs out of memory", 0]]
    assert made.supervisor.events == [
        "moody died (signal 9) and is restarted in 0.5 s",
        "moody ran out of memory and is restarted in 1 s, at half the size",
    ]


def test_one_that_is_needed_and_cannot_be_kept_alive_is_a_problem_that_says_why(stage) -> None:
    made = stage("serves", steady="has no room")
    with pytest.raises(Problem, match="died 6 times in a row; No space left on device"):
        made.look_until(lambda: made.supervisor.is_over("steady"))
    assert made.supervisor.is_over("steady")
    why = "code 1, No space left on device: 'ledger.jsonl'"
    assert made.supervisor.events == [f"steady died ({why}) and is restarted in 0.5 s"] * 5


def test_one_that_cannot_be_started_again_is_given_up_however_long_it_lived(
    stage, monkeypatch
) -> None:
    monkeypatch.setattr("stream.pipeline.back_off._STEADY_S", 1e-9)
    monkeypatch.setattr("stream.pipeline.back_off._FIRST_PAUSE_S", 0.0)
    made = stage("serves")
    made.supervisor.wait_until_ready()
    (made.folder / "config-steady.json").mkdir()  # it cannot be written, as on a full disk
    made.supervisor._nodes["steady"].process.kill()
    with pytest.raises(Problem, match=r"died 6 times in a row; Is a directory.*config-steady"):
        made.look_until(lambda: len(made.supervisor.events) > 5)
    assert made.supervisor.is_over("steady")


@pytest.mark.parametrize("is_dead", [False, True], ids=["after", "before"])
def test_one_that_dies_while_it_is_to_stop_is_not_restarted(stage, is_dead) -> None:
    made = stage("dies" if is_dead else "loads")
    made.supervisor.wait_until_ready()
    if is_dead:
        made.look_until(lambda: any("is restarted" in said for said in made.supervisor.events))
    made.supervisor.command("stop", "moody")
    if not is_dead:
        made.look_until((made.folder / "loading").exists)
        made.supervisor._nodes["moody"].process.kill()
    made.look_until(lambda: made.supervisor.is_over("moody"))
    assert len(made.lives()) == 1


def test_one_that_does_not_end_is_ended(stage) -> None:
    made = stage("is deaf")
    made.supervisor.wait_until_ready()
    made.look_until(made.lives)
    made.end()
    assert (made.folder / "steady.ended").read_text() == "stop"
    assert not (made.folder / "moody.ended").exists()


def test_one_that_still_loads_when_the_session_ends_is_ended(stage) -> None:
    made = stage("loads for ever")
    made.supervisor.wait_until_ready()
    made.look_until(made.lives)
    made.end()  # which does not wait for what lasts longer than any test may


# --- when to try again ---------------------------------------------------------------------------


def test_pauses_double_up_to_half_a_minute_and_begin_anew_after_a_steady_life() -> None:
    back_off = BackOff(30.0)
    pauses_s = [back_off.after_death(1.0, False).pause_s for _ in range(9)]
    assert pauses_s == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert back_off.after_death(61.0, False).pause_s == 0.5


def test_every_second_death_for_lack_of_memory_asks_for_less() -> None:
    back_off = BackOff(30.0)
    deaths = [True, False, True, True, False, False, True]
    asked = [back_off.after_death(100.0, death).with_less_memory for death in deaths]
    assert asked == [False, False, True, False, False, False, True]
    assert BackOff(30.0).after_death(0.0, True) == Restart(0.5, False, nth=1)


def test_deaths_are_counted_in_a_row() -> None:
    back_off = BackOff(0.5)
    lives_s = [3600.0, 1.0, 59.0, 60.0, 0.0]
    assert [back_off.after_death(life_s, False).nth for life_s in lives_s] == [1, 2, 3, 1, 2]
