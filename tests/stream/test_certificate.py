"""The certificate: its numbers by known answers, what it says of them, and what it leaves."""

import csv
import json
import re
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from demo.head import CHANNELS
from demo.stimuli import gallery_stimuli
from hvf_core.problem import INTERRUPTED, Problem
from stream.bench.listeners import Answer
from stream.bench.live import photon
from stream.bench.live.cells import AXES, Setup, setups
from stream.bench.live.compare import Change, compared, told
from stream.bench.live.figures import Cell, Figures, Steady, accuracy_of, judged
from stream.bench.live.files import ANSWERS, CERTIFICATE, PAGE, read_certificate
from stream.bench.live.measure import Bench
from stream.bench.live.page import write_page
from stream.bench.live.settings import Requirements
from stream.bench.live.tables import accuracy_table, as_markdown, sentence, tables
from stream.bench.measured_session import WAY, MeasuredSession
from stream.bench.streams import RunningSource, Source
from stream.pipeline.books.ledger import Ledger
from tests.calling import call

MACHINE = {
    "cpu": "a chip",
    "cores": 2,
    "memory_gb": 8.0,
    "system": "Linux",
    "governor": None,
    "keeps_awake": False,
}
MACHINE |= {"is_virtual": False, "gpus": [], "load": 0.1, "versions": {"python": "3.11"}}


def answer(trial: int = 1, took_s: float = 0.002, **more) -> Answer:
    about = {"stimulus": "a", "onset_s": float(trial), "n_repeats": 1, "tmax_s": 1.0, "rank": 1}
    moments = {"pushed": 5.0, "received": 5.0 + took_s}
    given = {"provisional": False, "ids": ("a",), "probabilities": (0.5,), "moments": moments}
    return Answer(trial=trial, **(about | given | more))


def cell(name: str, values_ms: np.ndarray, kind: str = "axis", **more) -> Cell:
    fields = {name: more.pop(name) for name in AXES if name in more}
    requirements, n = Requirements(), len(values_ms)
    figures = Figures.of(values_ms)
    setup = Setup(name=name, kind=kind, n_trials=n, **fields)
    return Cell(
        began="2026-11-26 12:00:00",
        machine=MACHINE,
        requirements=requirements,
        setup=setup,
        figures={
            "answer": figures,
            **dict.fromkeys(("LSL", "cut", "search", "embed"), figures),
        },
        values_ms={"answer": tuple(values_ms.tolist())},
        cpu=0.3,
        shown=n,
        fails=tuple(judged(figures, 0, 0, 0.3, 2, requirements)),
        **more,
    )


def drawn(n: int, seed: int, median_ms: float = 2.0) -> np.ndarray:
    """Latencies as they are: a long tail, and minutes that are busier than others."""
    rng = np.random.default_rng(seed)
    slow = np.convolve(rng.normal(size=n + 19), np.ones(20) / 20, "valid")
    return median_ms * np.exp(0.3 * rng.normal(size=n) + 0.3 * slow)


def test_figures_are_those_of_the_definitions() -> None:
    found = Figures.of([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.n, found.p50, found.max, found.mean) == (5, 3.0, 100.0, 22.0)
    assert found.p95 == pytest.approx(80.8)
    assert found.p99_9 == pytest.approx(99.616)
    assert found.sd == pytest.approx(43.6177, abs=1e-4)  # of a sample, over n - 1
    assert Figures.of([2.0]).sd == 0


def test_a_drift_is_found_and_noise_is_none() -> None:
    at_s, rng = np.arange(2000) * 0.2, np.random.default_rng(0)
    values = 12 + 2 * rng.normal(size=2000)
    still, moving = Steady.of(at_s, values), Steady.of(at_s, values + 0.01 * at_s)
    assert still.drift_low < 0 < still.drift_high
    assert moving.drift_low < 36 < moving.drift_high  # ms an hour
    assert moving.drift_low > 0
    assert [still.n, round(still.mean), round(still.sd)] == [2000, 12, 2]
    assert Steady.of(at_s[:2], values[:2]) is None


@pytest.mark.parametrize(
    ("minutes", "said"), [(4.9, "too short to tell"), (5.1, r"[+-][\d.]+ \(.* to .*\)")]
)
def test_no_drift_is_told_of_a_short_run(minutes: float, said: str) -> None:
    at_s = np.linspace(0, 60 * minutes, 200)
    found = Steady.of(at_s, drawn(200, 0))
    (shown,) = [
        one
        for one in tables([cell("c", drawn(40, 0), photon={"light": found})])
        if one.title == "When the light came"
    ]
    assert re.fullmatch(said, shown.rows[0][-1])


def test_accuracy_is_by_window_end_and_repeats() -> None:
    seen = [answer(n, n_repeats=1 + n % 2, rank=1 if n < 10 else 3) for n in range(20)]
    seen += [answer(99, rank=0), answer(98, tmax_s=0.3, rank=9, provisional=True)]
    found = accuracy_of(seen, WAY)
    assert [(one.tmax_s, one.n_repeats, one.n) for one in found] == [
        (0.3, 1, 1),
        (1.0, 1, 10),
        (1.0, 2, 10),
    ]
    assert found[1].top1 == (0.5, 0.2366, 0.7634)  # Wilson's for 5 of 10
    assert found[1].top5[0] == 1.0
    assert found[1].p50_ms == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("found", "lost", "cpu", "said"),
    [
        (Figures.of([1.0] * 400), 0, 0.5, []),
        (Figures.of([1.0] * 394 + [20.0] * 6), 0, 0.5, ["p99 20.0 ms (at most 16.7)"]),
        (Figures.of([1.0] * 197 + [20.0] * 3), 0, 0.5, []),  # too few to have a p99
        (Figures.of([6.0] * 20), 1, 1.7, ["lost: 1", "p50 6.0", "CPU 170 %"]),
        (Figures.of([1.0, 12.0] * 20), 0, 0.5, ["p50 6.5", "jitter 5.6"]),
        (None, 3, 0.5, ["lost: 3", "no answers"]),
    ],
)
def test_what_is_not_kept_is_said(
    found: Figures | None, lost: int, cpu: float, said: list[str]
) -> None:
    fails = list(judged(found, lost, 0, cpu, 2, Requirements()))
    assert len(fails) == len(said)
    assert all(fail.startswith(begin) for fail, begin in zip(fails, said, strict=True))


def test_the_plan_begins_with_the_centre_and_has_each_thing_once() -> None:
    plan = list(setups(2000, 63, 200, ("onnx", "torch"), is_demo=True))
    names = [one.name for one in plan]
    assert len({*names}) == len(names)
    assert (plan[0].kind, plan[0].n_trials, plan[1].rate_hz) == ("centre", 2000, 250.0)
    axes = [one for one in plan if one.kind == "axis"]
    assert {one.channels for one in axes} == {8, 32, 63, 128, 256, 512}
    assert {one.rate_hz for one in axes} == {128, 250, 500, 1000, 2000, 4000}
    assert {one.soa_s for one in axes} == {1, 0.5, 0.2, 0.1, 0.05}
    assert all(
        sum(
            getattr(one, axis) != getattr(plan[0], axis)
            for axis in ("channels", "rate_hz", "soa_s", "images")
        )
        == 1
        for one in axes
    )
    corners = [one for one in plan if one.kind == "corner"]
    assert len({(c.channels, c.rate_hz, c.soa_s, c.images) for c in corners}) == len(corners) == 16
    assert "painting" not in [one.kind for one in setups(10, 32, 50, (), is_demo=False)]


def test_a_planted_slow_down_is_named_and_its_cell_alone() -> None:
    before = [cell("centre", drawn(400, 0), "centre"), cell("channels 8", drawn(60, 1))]
    after = [cell("centre", drawn(400, 2), "centre"), cell("channels 8", 1.8 * drawn(60, 3))]
    changes = compared(before, after, 0.2)
    assert [one.cell for one in changes if one.verdict == "slower"] == ["channels 8"]
    assert changes[0].low > 0.2
    line, *rest = told(changes, 0.2)
    assert line.startswith("slower: channels 8")
    assert all("no change that" in one for one in rest)
    back = compared(after, before, 0.2)
    assert [one.cell for one in back if one.verdict == "faster"] == ["channels 8"]


@pytest.mark.slow
def test_a_tail_that_got_longer_is_named_beside_a_median_that_has_not() -> None:
    before, after = drawn(2000, 0), drawn(2000, 1)
    after[np.argsort(after)[-60:]] *= 3
    changes = compared([cell("centre", before, "centre")], [cell("centre", after, "centre")], 0.2)
    assert {one.percentile: one.verdict for one in changes} == {50: "", 99: "slower"}
    slower, rest = told(changes, 0.2)
    assert re.search(r"slower: centre, .*: p99 [\d.]+ → [\d.]+ ms", slower)
    assert re.search(r"no change that 2000 values can tell .* answer p50 \(0.\d+ ms\)$", rest)


@pytest.mark.slow
def test_what_it_can_tell_is_what_it_says_that_it_can() -> None:
    """A change of the resolution is named, one of a third of it is not."""
    before = drawn(400, 0)
    (same, _) = sorted(compared([cell("c", before)], [cell("c", before)], 0.2), key=at_percentile)
    for share, verdict in ((1.1, "slower"), (0.33, "")):
        after = before + share * same.resolution_ms
        found = compared([cell("c", before)], [cell("c", after)], 0.2)
        assert [one.verdict for one in found if one.percentile == 50] == [verdict]


def at_percentile(change: Change) -> int:
    return change.percentile


@pytest.mark.parametrize(("n", "percentiles"), [(19, []), (20, [50]), (299, [50]), (300, [50, 99])])
def test_of_few_trials_no_tail_is_compared(n: int, percentiles: list[int]) -> None:
    found = compared([cell("c", drawn(n, 0))], [cell("c", drawn(n, 1))], 0.2)
    assert sorted(one.percentile for one in found) == percentiles


@pytest.mark.slow
def test_chance_alone_is_not_named() -> None:
    """Of 140 pairs of cells that are the same, at most one is called another."""
    runs = [[cell(f"c{n}", drawn(60, 1000 * run + n)) for n in range(20)] for run in range(8)]
    named = [
        one.verdict
        for first, second in pairwise(runs)
        for one in compared(first, second, 0.0001)  # noise alone, without the margin
    ]
    assert sum(map(bool, named)) <= 1
    assert len(named) == 140


def test_other_set_ups_are_not_compared() -> None:
    same = drawn(60, 0)
    assert compared([cell("c", same, channels=8)], [cell("c", same, channels=16)], 0.2) == []
    (line,) = told([], 0.2)
    assert line.startswith("nothing is compared: no set-up has 20 values")


def test_the_sentence_says_how_far_it_goes() -> None:
    fast, slow = drawn(400, 0), drawn(60, 1, 30.0)
    cells = [
        cell("centre", fast, "centre"),
        cell("channels 128", fast, channels=128),
        cell("channels 256", slow, channels=256),
        cell("channels 512", fast, channels=512),
        cell("soa 0.1", fast, soa_s=0.1),
        cell("images 16540", slow, images=16_540),
    ]
    said = sentence(cells)
    assert said.startswith(
        "This machine may run 63 channels at 1 kHz with SOA 0.2 s and 200 images"
    )
    assert "up to 128 channels, down to SOA 0.1 s, not up to 16,540 images" in said
    assert "of 5 other set-ups that were measured 3 pass" in said
    failed = sentence([cell("centre", drawn(400, 0, 9.0), "centre")])
    assert "may NOT run" in failed
    assert "what fails is p99 17.1 ms (at most 16.7), p50" in failed
    lost = cells[0].model_copy(update={"not_measured": "no stream", "figures": {}})
    assert "not known what this machine may run" in sentence([lost])


def test_only_the_simulated_subject_is_called_one() -> None:
    known = {"accuracy": accuracy_of([answer()], WAY)}
    simulated, live = (
        cell("centre", drawn(40, 0), "centre", **known),
        cell("l", drawn(40, 0), "live"),
    )
    setup = live.setup.model_copy(update={"plays": "live"})
    live = live.model_copy(update={"setup": setup, **known})
    assert accuracy_table([simulated]).note == "Simulated subject; chance 0.50% and 2.50%."
    assert accuracy_table([live]).note == "Chance 0.50% and 2.50%."


def test_of_somebody_elses_streams_no_push_is_spoken_of(tmp_path: Path) -> None:
    simulated, live = cell("centre", drawn(400, 0), "centre"), cell("l", drawn(400, 0), "live")
    live = live.model_copy(update={"setup": live.setup.model_copy(update={"plays": "live"})})
    for one, since in ((simulated, "push"), (live, "stamp")):
        write_page(tmp_path / PAGE, [one], complete=True, changes=())
        text = "".join(map(as_markdown, tables([one]))) + (tmp_path / PAGE).read_text()
        assert set(re.findall(r"(?i)\b(push|stamp)\b", text.lower())) == {since}


@pytest.mark.slow
@pytest.mark.parametrize(("load", "said"), [(0.9, False), (1.5, True)])
def test_a_busy_machine_is_called_so(
    demo_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: float, said: bool
) -> None:
    monkeypatch.setattr("stream.bench.live.run.machine", lambda *_: MACHINE | {"load": load})
    done = measured_by(monkeypatch, Faked(), "--soa", 0.2, "--trials", 20, "--out", tmp_path / "c")
    for text in (done.out, (tmp_path / "c" / PAGE).read_text()):
        assert ("Busy machine: 1.5 of 2 cores were wanted" in " ".join(text.split())) is said


def test_tables_are_markdown_too() -> None:
    text = as_markdown(tables([cell("centre", drawn(40, 0), "centre")])[0])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert "| centre | 63 | 1000 | 0.2 | 200 | 40 |" in text


def test_light_is_matched_with_its_marker_and_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lit_s = np.array([10.012, 10.5, 11.011, 12.013, 13.9])  # some of them are of no marker
    rises = {"recording": lit_s[:2], "recording-2": lit_s[2:]}
    monkeypatch.setattr(photon, "rises", lambda file, *_: rises[file.stem])
    for name in rises:
        (tmp_path / f"{name}.xdf").touch()
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for trial in (1, 2, 3, 4):
        more = {"group": "a", "repeat": 1, "block": 0, "readable_s": 9.0 + trial}
        ledger.announce(trial, stimulus="a", onset_s=9.0 + trial, **more)
    ledger.close()
    moments = [{"received": 10.1 + trial} for trial in (1, 2, 3, 4)]
    answers = tuple(answer(n, moments=one) for n, one in enumerate(moments, 1))
    measured = MeasuredSession(tmp_path, answers, 4, 0, 0, {}, {})
    found = photon.steadiness(measured, "EEG", "Photo")
    assert (found[photon.MARKER].n, found[photon.ANSWER].n) == (3, 3)
    assert found[photon.MARKER].mean == pytest.approx(12.0, abs=0.01)
    assert found[photon.ANSWER].mean == pytest.approx(1088.0, abs=0.01)


class Faked:
    """In place of sessions: each set-up is answered at once, up to one that is interrupted."""

    def __init__(self, factor: float = 1.0, until: int = 10**6):
        self.factor, self.left = factor, until

    def __call__(self, bench: Bench, setup: Setup) -> tuple[Cell, list[Answer]]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        values = self.factor * drawn(setup.n_trials, crc32(setup.name.encode()) % 1000)
        made = cell("x", values, "centre").model_copy(
            update={"setup": setup, "machine": bench.about["machine"]}
        )
        return made, [answer(n, ms / 1000) for n, ms in enumerate(values, 1)]


def measured_by(monkeypatch: pytest.MonkeyPatch, faked: Faked, *arguments: object):
    monkeypatch.setattr(Bench, "measure", lambda bench, setup: faked(bench, setup))
    return call("bench", *map(str, arguments))


@pytest.mark.slow
def test_it_leaves_values_a_table_and_a_page(
    demo_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--trials", 400, "--minutes", 20)
    done = measured_by(monkeypatch, Faked(), *options, "--out", first)
    assert done.code == 0
    assert "This machine may run 63 channels at 1 kHz" in " ".join(done.out.split())
    files = ["answers.csv", "certificate.html", "certificate.jsonl"]
    assert sorted(one.name for one in first.iterdir()) == files
    lines = (first / CERTIFICATE).read_text().splitlines()
    assert {json.loads(line)["bench"] for line in lines} == {"live"}
    cells = read_certificate(first / CERTIFICATE)
    assert cells[0].setup.name == "centre"
    with (first / ANSWERS).open() as file:
        rows = list(csv.DictReader(file))
    of_centre = [float(row["answer_ms"]) for row in rows if row["cell"] == "centre"]
    assert np.percentile(of_centre, 50) == pytest.approx(cells[0].figures["answer"].p50, abs=1e-3)
    page = (first / PAGE).read_text()
    assert not re.search(r'(src|href)="?http|<link|@import|url\(', page)  # it needs nothing else
    assert "Incomplete" not in page
    slower = measured_by(
        monkeypatch, Faked(2.0), *options, "--out", second, "--compare", first / CERTIFICATE
    )
    assert f"slower: {cells[0].setup.name}" in slower.out
    assert "Beside the earlier run" in (second / PAGE).read_text()


@pytest.mark.slow
def test_what_was_measured_before_ctrl_c_is_kept(
    demo_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = measured_by(monkeypatch, Faked(until=3), "--out", tmp_path / "out")
    assert done.code == INTERRUPTED
    assert "incomplete: 3 of" in done.out
    assert len(read_certificate(tmp_path / "out" / CERTIFICATE)) == 3
    assert "Incomplete" in (tmp_path / "out" / PAGE).read_text()


@pytest.mark.slow
def test_what_does_not_fit_into_the_time_is_called_so(
    demo_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_by(monkeypatch, Faked(), "--minutes", 0.2, "--trials", 20, "--out", tmp_path / "out")
    first, *rest = read_certificate(tmp_path / "out" / CERTIFICATE)
    assert first.verdict == "pass"
    assert {one.not_measured.partition(";")[0] for one in rest} == {"the time was up"}


def test_what_is_no_certificate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "certificate.jsonl"
    with pytest.raises(Problem, match="cannot be used"):
        read_certificate(path)
    for text, said in (("", "no measurements"), ('{"bench": 1}\n', "line 1 of")):
        path.write_text(text)
        with pytest.raises(Problem, match=said):
            read_certificate(path)


@pytest.mark.slow
def test_a_small_one_of_a_real_session(tmp_path: Path) -> None:
    done = call("bench", "--tiny", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    (found,) = read_certificate(tmp_path / "out" / CERTIFICATE)
    assert (found.not_measured, found.shown, found.twice) == ("", 16, 0)
    assert found.lost <= 1  # beside all other tests; that none is lost is the sessions' to test
    assert {one.tmax_s for one in found.accuracy} == {0.3, 0.996}
    assert found.photon[photon.MARKER].n == 12
    assert found.figures["raw LSL"].n > 100
    assert {"reader", "decode", "results", "source"} <= found.used.keys()
    ways = ("LSL", "cut", "hop", "embed", "search", "publish", "to subscriber")
    whole = sum(np.array(found.values_ms[way]) for way in ways)
    assert np.allclose(whole, found.values_ms["answer"], atol=0.01)


@pytest.mark.slow
def test_streams_of_somebody_else_are_measured_by_their_stamps(demo_model, tmp_path: Path) -> None:
    shown = tuple(one.id for one in gallery_stimuli())
    source = Source(f"foreign-{tmp_path.name}", 250.0, CHANNELS, 0.25, 5, shown, has_trigger=True)
    streams = ("--eeg", source.name, "--markers", f"{source.name}-markers", "--trigger", "Photo")
    with RunningSource(source):
        done = call("bench", "live", *streams, "--tiny", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    (found,) = read_certificate(tmp_path / "out" / CERTIFICATE)
    assert found.lost == 0
    assert found.figures["answer"].n >= 8
    assert found.photon[photon.MARKER].mean == pytest.approx(12, abs=6)


@pytest.mark.parametrize(
    ("said", "plays"), [(["--soa", "0.25"], "subject"), (["--channels", "64"], "noise")]
)
def test_a_set_up_of_ones_own_is_measured_alone(
    said: list[str], plays: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Setup] = []

    def measure(self: Bench, setup: Setup) -> tuple[Cell, tuple[Answer, ...]]:
        asked.append(setup)
        return cell(setup.name, drawn(400, 0), "centre"), ()

    monkeypatch.setattr(Bench, "measure", measure)
    call("bench", *said, "--rate", "512", "--out", tmp_path / "c")
    (own,) = asked
    n = {"noise": 64}.get(plays, 63)
    assert (own.channels, own.rate_hz, own.plays, own.n_trials) == (n, 512.0, plays, 2000)
    assert own.soa_s == {"noise": 0.2}.get(plays, 0.25)
