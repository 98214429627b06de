"""What is watched of a stream, against SciPy and a spectrum; nothing is made while nobody does."""

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import firwin, resample_poly

from stream.acquire.chunk import Chunk
from stream.acquire.triggers import TriggerSettings
from stream.acquire.units import Signal
from stream.acquire.watch.signals import Decimator, QualityMeter
from stream.pipeline.nodes import signals_feed, trial_sender
from stream.pipeline.nodes.signals_feed import SignalsFeed
from stream.pipeline.nodes.trial_sender import TrialSender
from stream.pipeline.outputs.settings import OutputSettings
from stream.pipeline.wire.bus import drain, open_socket, receive
from stream.pipeline.wire.config import LiveSource, SessionConfig, TrialSettings
from stream.pipeline.wire.endpoints import Endpoints
from stream.pipeline.wire.messages import ChannelQuality, Eeg

rates = st.sampled_from([80.0, 100.0, 250.0, 512.0, 1000.0])
cuts = st.lists(st.integers(0, 2500), max_size=12)


def pieces(samples: np.ndarray, at: list[int]) -> Iterator[np.ndarray]:
    """The samples, cut at these places."""
    edges = sorted({0, len(samples), *(min(place, len(samples)) for place in at)})
    for first, stop in pairwise(edges):
        yield samples[first:stop]


@settings(max_examples=60, deadline=None)
@given(rates, cuts, st.integers(0, 2500))
def test_fewer_samples_are_those_of_scipy_at_any_chunks(rate_hz, at, n) -> None:
    samples = np.random.default_rng(n).normal(size=(n, 3)) * 50 + 1000
    decimator = Decimator(rate_hz, 3)
    told = [decimator.take(part, part[:, 0]) for part in pieces(samples, at)]
    found = np.concatenate([np.empty((0, 3)), *(part for part, _ in told)])
    stamps = np.concatenate([np.empty(0), *(stamps for _, stamps in told)])
    q = decimator.factor
    assert decimator.rate_hz == rate_hz / q <= 100
    if q == 1:
        np.testing.assert_array_equal(found, samples)
        return
    if n <= 20 * q:
        assert len(found) == 0
        return
    taps = firwin(20 * q + 1, 0.8 / q, window="hamming")
    whole = resample_poly(samples, 1, q, window=taps)
    np.testing.assert_allclose(found, whole[10 : 10 + len(found)], atol=1e-9)
    assert len(found) == (n - 20 * q - 1) // q + 1
    # A sample's stamp is that of the one in the middle of the filter.
    np.testing.assert_array_equal(stamps, samples[10 * q :: q, 0][: len(found)])


@pytest.mark.parametrize("rate_hz", [250.0, 256.0, 500.0, 512.0, 1000.0, 1024.0, 2000.0, 2048.0])
def test_the_eeg_that_is_watched_has_no_mains_and_whole_alpha(rate_hz: float) -> None:
    times_s = np.arange(round(2 * rate_hz)) / rate_hz
    phases = np.linspace(0, np.pi, 8, endpoint=False)
    for hz, least, most in ((10, 0.99, 1.01), (25, 0.99, 1.01), (50, 0, 0.004), (60, 0, 0.004)):
        waves = np.sin(2 * np.pi * hz * times_s[:, None] + phases)
        samples, _ = Decimator(rate_hz, len(phases)).take(waves, times_s)
        size = np.sqrt(2 * (samples[10:] ** 2).mean(axis=0))
        assert ((size >= least) & (size <= most)).all(), (hz, size)


@settings(max_examples=30, deadline=None)
@given(rates, cuts)
def test_quality_is_that_of_the_spectrum_at_any_chunks(rate_hz, at) -> None:
    n, rng = round(rate_hz), np.random.default_rng(1)
    times_s = np.arange(2 * n + n // 3) / rate_hz
    eeg = rng.normal(size=(len(times_s), 4)) * 10 + 500
    eeg[:, 1] += 30 * np.sqrt(2) * np.sin(2 * np.pi * 60 * times_s)  # 30 uV rms
    eeg[:, 2] = 7.0
    eeg[:, 3] = np.clip(eeg[:, 3], 495, 505)
    meter = QualityMeter(rate_hz, 4)
    stamped = np.column_stack([eeg, times_s])
    found = [q for part in pieces(stamped, at) for q in meter.take(part[:, :4], part[:, 4])]
    assert [quality.until_s for quality in found] == [times_s[n - 1], times_s[2 * n - 1]]
    for k, quality in enumerate(found):
        second = eeg[k * n : (k + 1) * n]
        np.testing.assert_allclose(quality.rms_uv, second.std(axis=0), atol=1e-9)
        np.testing.assert_allclose(quality.peak_to_peak_uv, np.ptp(second, axis=0))
        assert quality.flat == [False, False, True, False]
        assert quality.clipped == [False, False, False, True]
        if rate_hz <= 120:
            assert quality.line_hz == 0
            continue
        spectrum = np.abs(np.fft.rfft(second, axis=0)) * np.sqrt(2) / n
        np.testing.assert_allclose(quality.line_uv, spectrum[60], atol=1e-6)
        assert quality.line_hz == 60
        assert quality.line_uv[1] == pytest.approx(30, abs=3)


# --- the feed ------------------------------------------------------------------------------------

RATE_HZ = 500.0
SOON_MS = 100_000  # however busy the machine is


@pytest.fixture
def endpoints() -> Endpoints:
    return Endpoints.local()


@pytest.fixture
def feed(tmp_path, endpoints) -> Iterator[SignalsFeed]:
    source = LiveSource(eeg="EEG", markers="m")
    config = SessionConfig(session="s", folder=tmp_path, endpoints=endpoints, source=source)
    with closing(SignalsFeed(config, ["Cz", "Pz"], RATE_HZ)) as feed:
        yield feed


def chunk(first: int, n: int = 5) -> Chunk:
    numbers = np.arange(first, first + n)
    samples = np.column_stack([np.sin(numbers / 25), numbers])
    return Chunk(numbers / RATE_HZ, samples, offset_s=100.0, readable_s=0.0)


def play(feed: SignalsFeed, n: int, first: int = 0) -> None:
    for i in range(first, first + n, 5):
        feed.add("eeg", chunk(i))
        feed.flush(is_calm=True)


def test_nothing_is_computed_while_nobody_watches(feed, monkeypatch) -> None:
    def is_not_made(*_: object) -> None:
        raise AssertionError("somebody computes")

    monkeypatch.setattr(signals_feed, "Decimator", is_not_made)
    monkeypatch.setattr(signals_feed, "QualityMeter", is_not_made)
    monkeypatch.setattr(SignalsFeed, "_send", is_not_made)
    play(feed, 10_000)


def heard(endpoints: Endpoints, *kinds: type) -> zmq.Socket:
    return open_socket(zmq.SUB, endpoints.signals, bind=False, hears=kinds)


def wait_for(feed: SignalsFeed, socket: zmq.Socket, first: int = 0) -> int:
    """Plays until something comes; returns the number of the next sample."""
    while not socket.poll(1):
        play(feed, 50, first)
        first += 50
    return first


def test_who_watches_gets_samples_stamps_and_markers(feed, endpoints) -> None:
    with closing(heard(endpoints, Eeg)) as watcher:
        first = wait_for(feed, watcher)
        text = np.array([["Käse"]], object)
        feed.add("markers", Chunk(np.array([3.25]), text, offset_s=-1.0, readable_s=0.0))
        play(feed, 1000, first)
        got = [receive(watcher, wait_ms=SOON_MS)]
        while got[-1].stamps_s[-1] < 100 + (first + 900) / RATE_HZ:
            got.append(receive(watcher, wait_ms=SOON_MS))
    assert all((m.rate_hz, m.channels) == (100.0, ["Cz", "Pz"]) for m in got)
    samples = np.concatenate([m.array for m in got])
    stamps_s = np.concatenate([m.stamps_s for m in got])
    np.testing.assert_allclose(np.diff(stamps_s), 0.01, atol=1e-6)
    numbers = (stamps_s - 100) * RATE_HZ
    np.testing.assert_allclose(samples[:, 1], numbers, rtol=1e-4)  # a slope passes as it is
    np.testing.assert_allclose(samples[:, 0], np.sin(numbers / 25), atol=5e-3)
    assert [(m.markers, m.markers_s) for m in got if m.markers] == [(["Käse"], [2.25])]


@pytest.mark.parametrize(
    ("trigger", "label", "kinds"),
    [
        (TriggerSettings(channel="Pz"), "Pz", ()),
        (None, "TRIG", ()),
        (None, "Pz", ("EEG", "stim")),
    ],
)
def test_who_watches_a_blind_session_sees_neither_markers_nor_codes(
    tmp_path, endpoints, trigger, label, kinds
) -> None:
    config = SessionConfig(
        session="s",
        folder=tmp_path,
        endpoints=endpoints,
        source=LiveSource(eeg="EEG", markers="m"),
        trigger=trigger,
        outputs=OutputSettings(blind=True),
    )
    with (
        closing(SignalsFeed(config, ["Cz", label], RATE_HZ, kinds)) as feed,
        closing(heard(endpoints, Eeg)) as watcher,
        closing(heard(endpoints, ChannelQuality)) as judge,
    ):
        first = wait_for(feed, watcher)
        sent = chunk(first)
        feed.add("markers", Chunk(np.array([3.25]), np.array([["Käse"]], object), -1.0, 0.0))
        feed.add("eeg", sent)
        play(feed, 1000, first + 5)
        got = [receive(watcher, wait_ms=SOON_MS)]
        while got[-1].stamps_s[-1] < 100 + (first + 900) / RATE_HZ:
            got.append(receive(watcher, wait_ms=SOON_MS))
        quality = receive(judge, wait_ms=SOON_MS)
    assert quality.peak_to_peak_uv[0] > 0 == quality.peak_to_peak_uv[1] == quality.rms_uv[1]
    assert not np.concatenate([m.array for m in got])[:, 1].any()
    assert np.concatenate([m.array for m in got])[:, 0].any()
    assert [(m.markers, m.markers_s) for m in got if m.markers] == [([""], [2.25])]
    assert sent.samples[:, 1].all()  # the session's own are as they were


def test_quality_is_sent_to_those_who_want_it_and_ceases_with_them(feed, endpoints) -> None:
    with closing(heard(endpoints, ChannelQuality)) as watcher:
        first = wait_for(feed, watcher)
        play(feed, 2000, first)
        got = [receive(watcher, wait_ms=SOON_MS), *drain(watcher)]
    assert {type(message) for message in got} == {ChannelQuality}
    assert got[0].rms_uv[1] == pytest.approx(np.arange(500).std())
    assert got[0].flat == got[0].clipped == [False, False]
    while feed.is_watched:
        play(feed, 5, first)


def test_while_an_answer_is_waited_for_two_pieces_may_come_together(feed, endpoints) -> None:
    with closing(heard(endpoints, Eeg)) as watcher:
        first = wait_for(feed, watcher)
        feed.add("markers", Chunk(np.array([3.25]), np.array([["x"]], object), 0.0, 0.0))
        play(feed, 25, first)
        while not receive(watcher, wait_ms=SOON_MS).markers:  # what was sent before
            pass
        for at, n in ((25, 30), (55, 20)):  # together a tenth of a second
            feed.add("eeg", chunk(first + at, n))
            feed.flush(is_calm=False)
        assert len(receive(watcher, wait_ms=SOON_MS).array) == 10


def test_only_while_the_last_samples_of_a_trial_come_do_those_who_watch_wait(
    tmp_path, endpoints, monkeypatch
) -> None:
    monkeypatch.setattr(trial_sender, "_LOOK_S", 0.0)
    config = SessionConfig(
        session="s",
        folder=tmp_path,
        endpoints=endpoints,
        source=LiveSource(eeg="EEG", markers="m"),
        trials=TrialSettings(tmin_s=0.0, tmax_s=1.0),
        record=False,
    )
    line = SimpleNamespace(incarnation="r", orders=lambda: iter(()), command=lambda: None)
    told = (["Cz", "Pz"], RATE_HZ, {}, Signal("eeg", "microvolts"))
    reader = TrialSender(config, line, *told)

    def read(first: int, n: int) -> None:
        reader.take("eeg", chunk(first, n))
        reader.cut(0.0)
        reader.look()

    with closing(heard(endpoints, Eeg)) as watcher:
        onset = 0
        while not watcher.poll(1):
            read(onset, 50)
            onset += 50
        text = np.array([["x"]], object)
        reader.take("markers", Chunk(np.array([onset / RATE_HZ]), text, 100.0, 0.0))
        for first in range(onset, onset + 450, 50):
            read(first, 50)
        for first in range(onset + 450, onset + 530, 5):  # the trial ends with sample 500
            read(first, 5)
        read(onset + 530, 50)
        got = [receive(watcher, wait_ms=SOON_MS)]
        while got[-1].stamps_s[-1] < 100 + (onset + 524) / RATE_HZ:
            got.append(receive(watcher, wait_ms=SOON_MS))
    assert [len(one.array) for one in got[-4:]] == [5, 6, 5, 10]


@pytest.mark.slow
def test_a_watcher_that_does_not_read_holds_nobody_up(feed, endpoints) -> None:
    with closing(heard(endpoints)) as watcher:
        first = wait_for(feed, watcher)
        play(feed, 100_000, first)  # for ever, if the feed waited for it
