"""How nodes answer fast: rehearsals of the last slice, garbage that is collected in time."""

import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hvf_core import swift
from hvf_core.problem import Problem
from hvf_core.swift import Sweeper, give_way, keep_awake, may_spin, wake_on_time
from stream.pipeline.nodes import decode
from stream.pipeline.nodes.decode import Decoder
from stream.pipeline.wire.config import Endpoints, FileSource, LiveSource, SessionConfig
from stream.pipeline.wire.messages import Retrieval, TrialRef, TrialSlice
from tests.toy_decoder import GALLERY, MANIFEST, live_decoder


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The decoder's, in virtual time."""
    clock = Clock()
    monkeypatch.setattr(decode, "local_clock", clock)
    return clock


def decoder_in(folder: Path, source: LiveSource | FileSource | None = None) -> Decoder:
    folder.mkdir()
    endpoints = Endpoints(**dict.fromkeys(Endpoints.model_fields, "ipc:///x"))
    source = source or LiveSource(eeg="eeg", markers="markers")
    config = SessionConfig(session="s", folder=folder, endpoints=endpoints, source=source)
    return Decoder(config, live_decoder(), GALLERY, pytest.fail)


def part(trial: int, first: int, stop: int, onset_s: float) -> TrialSlice:
    """Samples of a trial of three, 0.1 s apart."""
    about = TrialRef(
        session="s", trial=trial, stimulus="stimulus 1", group="g", repeat=1, onset_s=onset_s
    )
    array = np.random.default_rng(trial).standard_normal((2, 3)).astype(np.float32)[:, first:stop]
    told = {"about": about, "first": first, "corrects": 0, "residual_s": 0.0}
    return TrialSlice(**told, final=stop == 3, stamps={"window_end": onset_s + 0.2}, array=array)


def test_the_last_slice_is_rehearsed_before_it_is_due_by_as_much_as_others_were_late(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_NEARLY_S", 0.15)
    plain, decoder = decoder_in(tmp_path / "a"), decoder_in(tmp_path / "b")
    for trial in (1, 2, 3):
        onset_s = 100.0 * trial
        clock.now_s = onset_s + 0.101
        for one in (plain, decoder):
            assert [report.answer.provisional for report, _ in one.take(part(trial, 0, 2, onset_s))]
        late_s = 0.001 if trial > 1 else 0.0
        assert decoder.due_s == pytest.approx(onset_s + MANIFEST.tmax_s + late_s, abs=1e-9)
        decoder.rehearse()
        assert decoder.due_s == np.inf
        assert decoder.near_until_s > onset_s + MANIFEST.tmax_s
        clock.now_s = onset_s + 0.201
        ((expected, _),) = plain.take(part(trial, 2, 3, onset_s))
        ((found, _),) = decoder.take(part(trial, 2, 3, onset_s))
        assert isinstance(found, Retrieval)
        assert found == expected
        assert decoder.near_until_s == -np.inf


def test_nothing_is_rehearsed_that_is_late_already_or_was_rehearsed_or_has_no_time(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_NEARLY_S", 0.15)
    decoder = decoder_in(tmp_path / "live")
    monkeypatch.setattr(decoder.live, "rehearse", lambda _: pytest.fail("rehearsed"))
    decoder.rehearse()  # of nothing
    decoder.take(part(1, 0, 2, 100.0))
    clock.now_s = 100.3
    decoder.rehearse()  # of what may come any moment
    virtual = decoder_in(tmp_path / "file", FileSource(path=tmp_path / "x.xdf"))
    virtual.take(part(1, 0, 2, 100.0))
    assert virtual.due_s == np.inf


def test_garbage_is_collected_while_nothing_is_due_and_never_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collected: list[float] = []
    now_s = [0.0]
    monkeypatch.setattr("hvf_core.swift.time.monotonic", lambda: now_s[0])
    try:
        sweeper = Sweeper()
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
        monkeypatch.setattr("hvf_core.swift.gc.collect", lambda: collected.append(now_s[0]))
        for step in range(2000):
            now_s[0] = step * 0.01
            sweeper.look(0.2 - step % 20 * 0.01)
    finally:
        gc.enable()
        gc.unfreeze()
    assert 2 <= len(collected) <= 4
    assert all(0.2 - round(at_s / 0.01) % 20 * 0.01 > 0.03 for at_s in collected)


def test_it_spins_where_that_is_asked_for_or_cores_are_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n_cores, auto in ((1, False), (2, False), (4, False), (16, True)):
        monkeypatch.setattr("hvf_core.swift.os.sched_getaffinity", lambda _, n=n_cores: range(n))
        monkeypatch.setattr("hvf_core.swift.os.cpu_count", lambda n=n_cores: n)
        assert (may_spin("auto"), may_spin("on"), may_spin("off")) == (auto, True, False)


@pytest.mark.parametrize(("cpu", "us"), [("flags : fpu hypervisor", 0), ("flags : fpu", 2)])
def test_cores_are_kept_awake_as_long_as_the_file_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: str, us: int
) -> None:
    asked = tmp_path / "cpu_dma_latency"
    monkeypatch.setattr(swift, "LATENCY_FILE", asked)
    monkeypatch.setattr(swift, "_CPU_FILE", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(cpu)
    for awake in ("auto", "on"):
        asked.touch()
        file = keep_awake(awake)
        assert file is not None
        assert not file.closed
        assert int.from_bytes(asked.read_bytes(), sys.byteorder) == us
        file.close()
        asked.unlink()
    asked.touch()
    assert keep_awake("off") is None
    assert asked.read_bytes() == b""


def test_where_cores_may_not_be_kept_awake_only_who_insists_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swift, "LATENCY_FILE", tmp_path / "nowhere" / "cpu_dma_latency")
    assert keep_awake("auto") is None
    with pytest.raises(Problem, match=r"by the udev rule .* or give --set decoding\.awake=auto"):
        keep_awake("on")


def test_waking_on_time_is_quietly_left_out_where_there_is_no_linux(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hvf_core.swift.sys.platform", "darwin")
    monkeypatch.setattr("hvf_core.swift.ctypes.CDLL", lambda _: pytest.fail("there is no prctl"))
    wake_on_time()


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has a priority of its own on Linux")
def test_what_gives_way_is_less_urgent_and_interrupts_none_that_runs() -> None:
    def priority() -> tuple[int, int]:
        return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as aside:  # which ends with what it was made to be
        niceness, before = aside.submit(priority).result()
        aside.submit(give_way).result()
        found = aside.submit(priority).result()
    scheduler = os.SCHED_BATCH if before == os.SCHED_OTHER else before
    assert found == (min(niceness + 10, 19), scheduler)
