"""The state of a stream follows its silences, its counts follow what came; time is virtual."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.acquire.watch.health import HealthMonitor, MarkerMonitor

RATE_HZ = 250.0
CHANNELS = ("Fz", "Cz", "Pz")
LOOK_S = 0.01  # how often the reader asks


def make_eeg(n, seed=0):
    return np.random.default_rng(seed).normal(0, 20, (n, len(CHANNELS))).astype(np.float32)


class Stream:
    """Chunks that arrive in virtual time, and every change of state, with its time."""

    def __init__(self, rate_hz=RATE_HZ):
        self.monitor = HealthMonitor(CHANNELS, rate_hz)
        self.rate_hz = rate_hz
        self.now_s = 1000.0
        self.changes = [(self.now_s, self.monitor.state(self.now_s))]

    def look(self):
        state = self.monitor.state(self.now_s)
        if state != self.changes[-1][1]:
            self.changes.append((self.now_s, state))

    def wait(self, duration_s):
        end_s = self.now_s + duration_s
        while self.now_s < end_s - 1e-9:
            self.now_s = min(self.now_s + LOOK_S, end_s)
            self.look()

    def flow(self, duration_s, chunk_s=0.02, spoil=lambda samples: None):
        """Chunks of `chunk_s`, each at its end; `spoil` changes them."""
        n_chunks, n = round(duration_s / chunk_s), round(chunk_s * self.rate_hz)
        samples = make_eeg(n_chunks * n)
        spoil(samples)
        for chunk in np.split(samples, n_chunks):
            self.wait(n / self.rate_hz)
            self.monitor.arrived(chunk, self.now_s)
            self.look()

    @property
    def states(self):
        return [state for _, state in self.changes]

    def report(self):
        return self.monitor.report(self.now_s)


def test_before_the_first_sample_it_waits_however_long():
    stream = Stream()
    stream.wait(20)
    assert stream.states == ["waiting"]
    health = stream.report()
    assert (health.state, health.age_s) == ("waiting", 0.0)
    assert (health.flat, health.clipped) == ((), ())


def test_a_stream_that_goes_and_comes_back_goes_through_all_states():
    stream = Stream()
    stream.wait(3)
    stream.flow(10)
    silent_s = stream.now_s
    stream.wait(8)
    stream.flow(5)
    back_s = silent_s + 8 + 0.02
    states = ["waiting", "streaming", "stalled", "lost", "recovered", "streaming"]
    assert stream.states == states
    at_s = dict(zip(states[:5], (time_s for time_s, _ in stream.changes), strict=False))
    assert at_s["streaming"] == pytest.approx(1003.02)
    assert 0.1 < at_s["stalled"] - silent_s <= 0.25
    assert 4.9 < at_s["lost"] - silent_s < 6
    assert at_s["recovered"] == pytest.approx(back_s)
    assert 0.5 < stream.changes[-1][0] - back_s <= 2


def test_a_short_stall_recovers_without_being_lost():
    stream = Stream()
    stream.flow(5)
    stream.wait(0.5)
    stream.flow(3)
    assert stream.states == ["waiting", "streaming", "stalled", "recovered", "streaming"]


def test_it_can_stall_again_while_it_recovers():
    stream = Stream()
    stream.flow(5)
    for _ in range(2):
        stream.wait(0.5)
        stream.flow(0.4)
    assert stream.states[2:] == ["stalled", "recovered"] * 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.001, 0.15), min_size=1, max_size=60))
def test_chunks_less_than_200_ms_apart_are_no_stall(waits_s):
    stream = Stream()
    for k, wait_s in enumerate(waits_s):
        stream.wait(wait_s)
        stream.monitor.arrived(make_eeg(5, k), stream.now_s)
        stream.look()
    assert stream.states == ["waiting", "streaming"]
    stream.wait(0.25 if max(waits_s) < 0.05 else 5 * max(waits_s))
    assert stream.states == ["waiting", "streaming", "stalled"]


@pytest.mark.parametrize("chunk_s", [0.1, 0.25, 0.5, 1.0])
def test_big_chunks_are_no_stall_and_five_of_them_missing_are(chunk_s):
    stream = Stream()
    stream.flow(30, chunk_s)
    assert stream.states == ["waiting", "streaming"]
    silent_s = stream.now_s
    stream.wait(6 * chunk_s)
    (stalled_s,) = (time_s for time_s, state in stream.changes if state == "stalled")
    assert stalled_s - silent_s <= max(0.25, 5 * chunk_s)


def test_age_is_told():
    stream = Stream()
    stream.flow(2)
    stream.wait(0.13)
    health = stream.report()
    assert health.age_s == pytest.approx(0.13)


@pytest.mark.parametrize("value", [0.0, -187_500.0, np.nan])
def test_a_flat_channel_is_named(value):
    def spoil(samples):
        samples[:, 1] = value

    stream = Stream()
    stream.flow(3, spoil=spoil)
    health = stream.report()
    assert (health.flat, health.clipped) == (("Cz",), ())


@pytest.mark.parametrize("limits", [(-20, 20), (-np.inf, 20), (-20, np.inf)])
def test_a_clipped_channel_is_named(limits):
    def spoil(samples):
        samples[:, 2] = np.clip(samples[:, 2], *limits)

    stream = Stream()
    stream.flow(3, spoil=spoil)
    health = stream.report()
    assert (health.flat, health.clipped) == ((), ("Pz",))


def test_good_channels_are_not_named():
    stream = Stream()
    stream.flow(5)
    health = stream.report()
    assert (health.flat, health.clipped) == ((), ())


def test_channels_that_are_good_again_are_not_named_any_more():
    stream = Stream()
    stream.flow(3, spoil=lambda samples: samples.fill(0))
    assert stream.report().flat == CHANNELS
    stream.flow(3)
    assert stream.report().flat == ()


def test_channels_are_told_at_any_chunking():
    samples = make_eeg(1000)
    samples[:, 0] = 3.0
    samples[:, 2] = np.clip(samples[:, 2], -15, 15)
    for size in (1, 7, 250, 1000):
        monitor = HealthMonitor(CHANNELS, RATE_HZ)
        for start in range(0, 1000, size):
            monitor.arrived(samples[start : start + size], 1000 + start / RATE_HZ)
        health = monitor.report(1004.0)
        assert (health.flat, health.clipped) == (("Fz",), ("Pz",))


# --- markers -------------------------------------------------------------------------------------


def test_a_marker_stream_is_lost_when_its_source_is_and_not_by_silence():
    monitor, nothing = MarkerMonitor(), np.empty((0, 1))
    assert (monitor.state(100.0), monitor.is_quiet(100.0)) == ("waiting", True)
    monitor.arrived(nothing, 100.0)
    assert (monitor.state(101.0), monitor.is_quiet(101.0)) == ("streaming", False)
    assert monitor.state(1000.0) == "streaming"
    assert monitor.report(1000.0).age_s == 900.0
    monitor.is_lost = True
    assert monitor.state(1000.0) == "lost"
    monitor.arrived(nothing, 1001.0)  # whoever looks for its source hears of it later
    assert monitor.state(1001.5) == "streaming"
