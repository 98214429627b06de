"""`bench peers` itself: peers that are made up, and those that are installed, on real streams."""

import csv
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from demo.model import DemoModel
from demo.stimuli import gallery_stimuli
from hvf_core.problem import INTERRUPTED
from stream.bench.peers import table
from stream.bench.peers.conditions import CONDITIONS, plan
from stream.bench.peers.judge import Verdict
from stream.bench.peers.peers import OURS, PEERS, Peer
from stream.bench.peers.source import Played, TurnSource
from stream.bench.peers.turns import Turn, World, make_world, take_turn
from tests.calling import call
from tests.sessions import run

pytestmark = pytest.mark.slow
SOA_S, RATE_HZ, N_WARM_UP, N = 0.2, 250.0, 5, 20
FAKES = {
    "liar": Peer((), "tests.stream.fake_peer", "own"),
    "absent": Peer((), "no_such_program", "own"),
}


@pytest.fixture(scope="module")
def world(demo_model: DemoModel, tmp_path_factory: pytest.TempPathFactory) -> World:
    shown = gallery_stimuli()[: N_WARM_UP + N]
    folder = tmp_path_factory.mktemp("peers")
    return make_world("test-peers", demo_model, shown, SOA_S, RATE_HZ, folder)


@pytest.fixture(scope="module")
def source(world: World) -> Iterator[TurnSource]:
    with TurnSource(world.streams) as source:
        yield source


def turn(
    world: World, source: TurnSource, condition: str, peers: dict[str, Peer], folder: Path
) -> dict[str, Turn]:
    what = plan(CONDITIONS[condition], N_WARM_UP, N, SOA_S, RATE_HZ, 0)
    return take_turn(world, source, peers, CONDITIONS[condition], what, folder)


def test_a_turn_pushes_what_its_plan_says(world: World, source: TurnSource) -> None:
    for name in ("clean", "gaps", "reconnect"):
        what = plan(CONDITIONS[name], N_WARM_UP, N, SOA_S, RATE_HZ, 0)
        played = source.play(CONDITIONS[name], what)
        assert isinstance(played, Played)
        lost = [row for gap in what.lost for row in gap if row < len(world.streams.samples)]
        assert np.flatnonzero(np.isnan(played.pushed_s)).tolist() == lost
        pushed_s = played.pushed_s[~np.isnan(played.pushed_s)]
        assert (np.diff(pushed_s) >= 0).all()
        away_s = [
            (onset + phase) / RATE_HZ for onset, phase in zip(what.onsets, what.phases, strict=True)
        ]
        n_away = sum(what.away.start <= at * RATE_HZ < what.away.stop - 1 for at in away_s)
        assert np.isnan(played.marked_s).sum() == pytest.approx(n_away, abs=1)


def test_the_plain_loop_is_right_a_liar_wrong_and_who_does_not_begin_says_why(
    world: World, source: TurnSource, tmp_path: Path
) -> None:
    turns = turn(world, source, "clean", {"plain": PEERS["plain"], **FAKES}, tmp_path)
    assert "no_such_program" in turns["absent"].cannot
    assert {one.fate for one in turns["liar"].verdicts} == {"wrong"}
    assert [one.fate for one in turns["plain"].verdicts] == ["right"] * N
    assert all(one.latency_s > 0 for one in turns["plain"].verdicts)
    assert turns["plain"].cpu > 0


@pytest.mark.parametrize("name", [name for name in PEERS if name not in (OURS, "plain")])
def test_each_peer_that_is_installed_is_right_where_nothing_is_lost(
    name: str, world: World, source: TurnSource, tmp_path: Path
) -> None:
    if missing := PEERS[name].missing():
        pytest.skip(f"not installed: {' '.join(missing)}")
    (result,) = turn(world, source, "clean", {name: PEERS[name]}, tmp_path).values()
    assert result.cannot == ""
    assert [one.fate for one in result.verdicts] == ["right"] * N


def test_the_command_compares_ours_and_writes_down_what_it_saw(
    demo_cache: Path, tmp_path: Path
) -> None:
    command = ["bench", "peers", "--trials", 10, "--rounds", 1, "--rate", 250, "--markdown"]
    command += ["--peers", OURS, "--conditions", "gaps", "--out", tmp_path]
    done = run(*command)
    assert done.code == 0, done.err
    assert "| peer | p50 ms |" in done.out
    (told,) = map(json.loads, (tmp_path / "peers.jsonl").read_text().splitlines())
    assert (told["bench"], told["condition"], told["peer"]) == ("peers", "gaps", OURS)
    assert told["fates"]["right"] == told["n_whole"] > 0
    assert told["fates"]["left out"] == 10 - told["n_whole"] > 0
    assert told["machine"]["cores"] >= 1
    with (tmp_path / "peers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert all(float(row["latency_s"]) > 0 for row in rows if row["fate"] == "right")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--peers", "nobody"], "'nobody' is no peer; there are hvf-live"),
        (["--conditions", "dirty"], "'dirty' is no condition; there are clean"),
        (["--trials", "191"], "take at most 190"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_sentence(options: list[str], sentence: str) -> None:
    done = call("bench", "peers", *options)
    assert done.code == 2
    assert sentence in done.one_sentence()


@pytest.mark.parametrize(
    ("end", "status"), [(KeyboardInterrupt(), INTERRUPTED), (SystemExit(143), 143)]
)
def test_what_all_had_before_it_was_ended_is_shown(
    end: BaseException, status: int, demo_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_taken = 0

    def take_a_turn(world, source, peers, condition, what, folder) -> dict[str, Turn]:
        nonlocal n_taken
        n_taken += 1
        if n_taken == 4:  # in the second round one peer has had its turn
            raise end
        return dict.fromkeys(peers, Turn([Verdict(10, True, "right", 1, 0.0042, True)]))

    monkeypatch.setattr(table, "take_turn", take_a_turn)
    monkeypatch.setattr(table, "TurnSource", nullcontext)
    monkeypatch.setattr(table, "make_world", lambda *_: SimpleNamespace(streams=None))
    monkeypatch.setattr(table, "_use_private_lsl_session", lambda folder: None)
    asked = ("--peers", f"{OURS},plain", "--conditions", "clean,gaps", "--rounds", 2)
    done = call("bench", "peers", *asked, "--out", tmp_path)
    assert done.code == status
    assert done.out.count("4.20") == 2 * 4  # percentiles of both
    assert "incomplete: clean has 1 of 2 rounds" in done.out
    assert "incomplete: gaps has 0 of 1 rounds" in done.out
    with (tmp_path / "peers.csv").open(newline="") as file:
        assert [row["peer"] for row in csv.DictReader(file)] == [OURS, "plain"]
