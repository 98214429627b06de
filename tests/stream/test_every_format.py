"""Every trial of a recording is the plain cut of its piece, whatever wrote the file."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop, Trial, Window
from stream.sources.read import read_recording
from stream.sources.virtual_time import play
from tests.recording_files import RATE_HZ
from tests.takes import FORMATS, Take

WINDOW = Window(-10, 40)
IN_DOUBT = 25  # samples, of BrainVision's 500 Hz: 50 ms
UNITS = {"uV": 1.0, "mV": 1e3, "nV": 1e-3}


@st.composite
def takes(draw, suffix):
    is_in_records = suffix in (".edf", ".bdf")
    # MNE writes no annotation from outside to a .fif, and two formats count from 1 on.
    outside = {"_raw.fif": (0, -1), ".vhdr": (0, 100), ".set": (0, 100)}
    before, after = outside.get(suffix, (-100, 100))
    n = 600 if is_in_records else 250  # short: most of the time goes into samples
    onsets = draw(st.sets(st.integers(before, n + after), min_size=1, max_size=8))
    whole_records = st.integers(1, n // int(RATE_HZ) - 1).map(lambda k: k * int(RATE_HZ))
    joins = draw(st.sets(whole_records if is_in_records else st.integers(1, n - 1), max_size=5))
    bad = draw(st.lists(st.tuples(st.integers(0, n - 60), st.integers(0, 50)), max_size=3))
    return Take(
        n,
        {onset: f"stim/{onset}" for onset in onsets},
        tuple(joins),
        tuple((start + 0.25, count) for start, count in bad),  # .fif keeps onsets as float32
        "uV" if suffix in ("_raw.fif", ".set") else draw(st.sampled_from(list(UNITS))),
    )


def plain_cut(take, onset):
    """The first sample of the trial, or the reasons for none: the slow and obvious way."""
    first, last = onset + WINDOW.first, onset + WINDOW.last
    reasons = {"no_data"} if first < 0 or last >= take.n else set()
    pieces = itertools.pairwise([0, *sorted(take.joins), take.n])
    spanned = [stop - start for start, stop in pieces if start <= last and first < stop]
    if len(spanned) > 1:
        # Where the file ends while the clock waits whether samples are late, nobody will know.
        reasons |= {"gap", "no_data"} if take.n - last <= IN_DOUBT else {"gap"}
    # A piece of one sample is known by nothing from a sample whose stamp is wild: it is kept.
    is_one_piece = sum(length > 1 for length in spanned) <= 1
    # Half a sample: BrainVision has no quarters, so that edges may meet.
    spans = [(start, start + count) for start, count in take.bad]
    if not reasons and any(a + 0.5 < last and b - 0.5 > first for a, b in spans):
        return {"rejected"}
    touched = any(a - 0.5 < last and b + 0.5 > first for a, b in spans)
    whole = {first, "rejected"} if touched else {first}
    if reasons == {"gap"} and is_one_piece:
        return reasons | whole
    return reasons or whole


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_trial_is_the_plain_cut_of_its_piece(suffix, tmp_path):
    numbers = itertools.count()

    @settings(
        max_examples=80,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(takes(suffix), st.sampled_from([1000, 64, 7, 1]))
    def check(take, chunk_samples):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        path = FORMATS[suffix](take, folder / f"take{suffix}")
        recording = read_recording(path)
        window_s = (WINDOW.first / recording.rate_hz, WINDOW.last / recording.rate_hz)
        trials = TrialStream(recording.channels, recording.rate_hz, TrialPlan(window_s=window_s))
        found = {}

        def hear(said):
            for one in said:
                if isinstance(one, Trial | Drop):
                    assert found.setdefault(one.event.stimulus, one) is one
                    permitted = plain_cut(take, int(one.event.stimulus.removeprefix("stim/")))
                    if isinstance(one, Drop):
                        assert one.reason in permitted, permitted
                        continue
                    numbers = one.samples[:, 0] / UNITS[take.unit]
                    assert round(float(numbers[0])) in permitted, permitted
                    expected = np.arange(WINDOW.count) + round(float(numbers[0]))
                    np.testing.assert_allclose(numbers, expected, rtol=1e-5, atol=1e-3)

        for stream, chunk in play(recording, chunk_samples):
            hear([*trials.add(stream, chunk), *trials.due(chunk.readable_s)])
        hear(trials.end("no_data", "the recording ended"))
        assert set(found) == set(take.texts.values())

    check()
