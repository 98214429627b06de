"""What a long session is held to: growth by known answers, sums of recordings, seeded faults."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stream.bench.endurance.promises import Promise, all_kept, append_json, growth, is_flat, table
from stream.bench.faults.recordings import recorded
from stream.bench.faults.soak import AMONG_OTHERS, plan
from stream.sources.xdf_writer import XdfWriter

N_TRIALS, SOA_S = 5000, 0.1
RNG = np.random.default_rng(0)


def usage(a_trial: float = 0.0, handles: float = 0.0, noise: float = 1e5, at_once: float = 0.0):
    """Of a process that is looked at every second, and takes its memory while it begins."""
    trials = np.arange(0, N_TRIALS, 10)
    memory = 1e8 + 2e7 * (1 - np.exp(-trials / 300)) + a_trial * trials
    memory += RNG.normal(0, noise, len(trials)) + at_once * (trials > 0.7 * N_TRIALS)
    n = 30 + np.floor(handles * trials)
    return np.column_stack([trials * SOA_S, 0 * trials, memory, n])


def kept(rows: np.ndarray) -> list[bool | None]:
    return [promise.kept for promise in is_flat("reader", rows, SOA_S)]


@pytest.mark.parametrize("noise", [0.0, 1e4, 3e5])
def test_a_leak_of_a_kilobyte_a_trial_is_found(noise: float) -> None:
    assert kept(usage(1000.0, noise=noise)) == [False, True]
    found = growth(np.arange(N_TRIALS), 1000.0 * np.arange(N_TRIALS))
    assert found is not None
    assert found.low == pytest.approx(1000) == found.high


@pytest.mark.parametrize("noise", [0.0, 1e5, 1e6])
def test_noise_a_warm_up_and_a_step_are_no_growth(noise: float) -> None:
    assert kept(usage(noise=noise)) == [True, True]
    assert kept(usage(noise=noise, at_once=5e5)) == [True, True]


def test_what_books_need_is_less_than_the_limit() -> None:
    assert kept(usage(300.0, noise=1e4)) == [True, True]


def test_a_handle_in_a_hundred_trials_is_found() -> None:
    assert kept(usage(handles=0.01)) == [True, False]
    assert kept(usage(handles=0.0001)) == [True, True]


def test_lives_of_a_process_one_after_the_other_are_no_growth() -> None:
    lives = np.tile(np.arange(100), 5)
    rows = np.column_stack([np.arange(500), lives, 1e8 + 1e3 * lives, 30 + 0 * lives])
    assert kept(rows) == [True, True]


def test_too_few_points_are_said_to_be_too_few() -> None:
    memory, handles = is_flat("reader", usage()[:5], SOA_S)
    assert memory.seen == handles.seen == "too short to tell: 4,800 trials are needed"
    assert kept(np.empty((0, 4))) == [None, None]


def test_promises_are_a_table_and_a_line(tmp_path: Path) -> None:
    promises = [Promise("a", True, "1"), Promise("b", False, "2"), Promise("c", None, "?")]
    *judged, unknown = table(promises).splitlines()[2:]
    assert judged == ["| a | yes | 1 |", "| b | NO | 2 |"]
    assert unknown.startswith("| nothing grows (1 looked at) | - | too short to tell")
    assert not all_kept(promises)
    assert all_kept([promises[0], promises[2]])
    for _ in range(2):
        append_json(tmp_path / "x.json", promises, {"bench": "soak"})
    append_json(None, promises, {})
    first, second = (tmp_path / "x.json").read_text().splitlines()
    assert first == second
    told = json.loads(first)
    assert (told["bench"], told["promises"][1]["kept"]) == ("soak", False)


# --- faults at random moments ---------------------------------------------------------------------


def test_a_seed_decides_which_faults_come_when() -> None:
    faults = tuple(AMONG_OTHERS.values())
    planned = [*plan(faults, 1800, 7)]
    assert planned == [*plan(faults, 1800, 7)] != [*plan(faults, 1800, 8)]
    assert [*plan(faults, 600, 7)] == planned[: len([*plan(faults, 600, 7)])]
    first = [fault.name for _, fault in planned[: len(faults)]]
    assert sorted(first) == sorted(AMONG_OTHERS)  # each once before any comes again
    assert len(planned) > 1.5 * len(faults)


def test_a_fault_comes_when_the_one_before_is_to_be_over() -> None:
    planned = [*plan(tuple(AMONG_OTHERS.values()), 1800, 3)]
    for (at_s, fault), (next_s, _) in pairwise(planned):
        assert next_s - at_s >= max(fault.within_s, fault.steps_s) + 7
    assert planned[-1][0] < 1800


def test_faults_that_end_a_session_or_its_source_do_not_come_among_others() -> None:
    assert {"kill-source", "ctrl-c", "folder-gone", "none", "long-tmp"}.isdisjoint(AMONG_OTHERS)
    assert {"kill-reader", "stop-decode", "disk-full", "flood"} <= AMONG_OTHERS.keys()


# --- what recordings hold -------------------------------------------------------------------------

HEADER = """<?xml version="1.0"?><info><name>eeg</name><type>EEG</type>
<channel_count>1</channel_count><nominal_srate>100</nominal_srate>
<channel_format>float32</channel_format></info>"""
BEGAN_S, RATE_HZ = 50.0, 100.0


def write(folder: Path, *spans: range) -> None:
    """A recording of each span of samples."""
    for number, span in enumerate(spans, 1):
        name = "recording.xdf" if number == 1 else f"recording-{number}.xdf"
        writer = XdfWriter(folder / name)
        writer.add_stream(1, HEADER)
        stamps_s = BEGAN_S + np.array(span) / RATE_HZ
        writer.write_samples(1, stamps_s, np.zeros((len(span), 1), np.float32))
        writer.close()


def look(folder: Path, *unsent: tuple[float, float], absent: tuple[float, float] | None = None):
    said = [["began", BEGAN_S, RATE_HZ], *(["unsent", *span] for span in unsent)]
    return recorded(folder, map(json.dumps, said), [absent] if absent else [])


def test_recordings_that_lack_nothing(tmp_path: Path) -> None:
    write(tmp_path, range(20, 200), range(200, 400))
    found = look(tmp_path)
    assert (found.n_files, found.n_samples, found.lacking, found.n_twice) == (2, 380, [], 0)


def test_what_recordings_lack_is_told_where_nobody_was_away(tmp_path: Path) -> None:
    write(tmp_path, range(20, 200), range(250, 400))
    found = look(tmp_path)
    assert found.n_lacking == 50
    assert found.lacking == [(pytest.approx(52.0), pytest.approx(52.5))]
    assert look(tmp_path, absent=(51.9, 52.6)).lacking == []
    assert look(tmp_path, (52.0, 52.49)).lacking == []
    assert look(tmp_path, (52.0, 52.39)).n_lacking == 10


def test_a_sample_that_is_there_twice_is_told(tmp_path: Path) -> None:
    write(tmp_path, range(200), range(190, 400))
    assert look(tmp_path).n_twice == 10
