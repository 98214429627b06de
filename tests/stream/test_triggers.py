"""Codes in a trigger channel are found as by one look at all of it, at any chunking."""

from itertools import groupby
from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import WrongUsage
from stream.acquire.acquisition import Acquisition
from stream.acquire.chunk import Chunk
from stream.acquire.trials import Cutting, Drop, Trial, Window
from stream.acquire.triggers import TriggerReader, TriggerSettings
from stream.sources.recording import RecordedMarker, Recording
from stream.sources.virtual_time import play

RATE_HZ = 100.0
WINDOW = Window(-5, 20)


def make_reader(shortest_samples=1):
    return TriggerReader(TriggerSettings(channel="STI", shortest_samples=shortest_samples))


def read_in_chunks(values, chunk_sizes, shortest_samples=1):
    reader, found, start = make_reader(shortest_samples), [], 0
    for size in [*chunk_sizes, len(values)]:
        found += reader.read(values[start : start + size])
        start += size
    return found


def rises(values, shortest_samples=1):
    """The runs of equal codes; those long enough, where they are higher than the last such one."""
    found, start, level = [], 0, 0
    for value, run in groupby(float(v) if np.isfinite(v) else 0.0 for v in values):
        length = len(list(run))
        if start == 0:
            level = value  # on from the first sample: nobody saw it rise
        elif length >= shortest_samples:
            if value > level:
                found.append((start, int(value)))
            level = value
        start += length
    return found


HIGHEST = 2**53
CODES = st.sampled_from([0, 0, 0, 1, 2, 3, 255, 65535, HIGHEST - 1, HIGHEST, np.nan, np.inf])
RUNS = st.lists(st.tuples(CODES, st.integers(1, 5)), max_size=40)
CHUNK_SIZES = st.lists(st.integers(0, 20), max_size=40)


def values_of(runs, dtype=np.float64):
    return np.array([code for code, length in runs for _ in range(length)], dtype)


@settings(max_examples=200, deadline=None)
@given(RUNS, CHUNK_SIZES, st.integers(1, 4))
def test_codes_are_those_of_the_runs_at_any_chunking(runs, chunk_sizes, shortest_samples):
    values = values_of(runs)
    found = read_in_chunks(values, chunk_sizes, shortest_samples)
    assert found == rises(values, shortest_samples)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 5)), max_size=40), CHUNK_SIZES)
def test_codes_are_those_of_mne(runs, chunk_sizes):
    values = values_of([(0, 1), *runs, (0, 1)])  # MNE passes over a code that never ends
    raw = mne.io.RawArray(values[None], mne.create_info(["STI"], RATE_HZ, "stim"), verbose="ERROR")
    events = mne.find_events(
        raw, "STI", consecutive="increasing", shortest_event=1, verbose="ERROR"
    )
    assert read_in_chunks(values, chunk_sizes) == [(at, code) for at, _, code in events.tolist()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32, np.int64])
def test_the_codes_0_3_5_3_0_are_a_3_and_a_5_in_every_number_type(dtype):
    assert make_reader().read(np.array([0, 3, 5, 3, 0], dtype)) == [(1, 3), (2, 5)]


def test_the_same_code_twice_needs_a_zero_in_between():
    assert make_reader().read(np.array([0.0, 7, 7, 0, 7])) == [(1, 7), (4, 7)]


def test_a_code_that_holds_too_short_is_a_transition():
    """Lines of the port that rise one sample apart: 4 on the way to 6, and 2 on the way down."""
    values = np.array([0.0, 4, 6, 6, 6, 2, 0, 0])
    assert make_reader(2).read(values) == [(2, 6)]
    for cut in range(len(values)):
        assert read_in_chunks(values, [cut], 2) == [(2, 6)]


def test_a_code_that_flickers_is_one_code():
    values = np.array([0.0, 6, 6, 0, 6, 6, 0, 0])
    assert make_reader(2).read(values) == [(1, 6)]


def test_a_code_counts_when_it_has_held_long_enough_from_its_first_sample_on():
    reader = make_reader(3)
    assert [reader.read(np.array([value])) for value in (0.0, 9.0, 9.0, 9.0, 9.0)] == [
        *([], [], []),
        [(1, 9)],
        [],
    ]


def test_neighbouring_codes_at_2_to_53_are_told_apart():
    values = np.array([0, 2**53 - 1, 2**53, 0], np.float64)
    assert make_reader().read(values) == [(1, 2**53 - 1), (2, 2**53)]


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_no_code(missing):
    values = np.array([missing, 4, 4, missing, 4, 0])
    assert make_reader().read(values) == [(1, 4), (4, 4)]


@pytest.mark.parametrize("values", [[0, -5, 0, 0], [0, -5, -3, 0]])
def test_zero_and_what_is_below_is_no_code(values):
    assert make_reader().read(np.array(values, np.float64)) == []


# --- on the way to trials ------------------------------------------------------------------------


def make_recording(numbers, codes, markers=()):
    """Samples say their number, in the EEG channel, beside the trigger channel."""
    numbers = np.asarray(numbers)
    return Recording(
        *(Path("made.xdf"), "made", ("Cz", "STI"), ("microvolts", ""), RATE_HZ),
        stamps_s=50 + numbers / RATE_HZ,
        samples=np.column_stack([numbers, codes]).astype(np.float32),
        markers=tuple(RecordedMarker(stamp_s, text) for stamp_s, text in markers),
    )


def run(recording, chunk_samples, *, window=WINDOW, shortest_samples=1, **options):
    """The acquisition, and (code, reason, numbers of the samples, their codes) of every trial."""
    triggers = (make_reader(shortest_samples), recording.channels.index("STI"))
    acquisition = Acquisition(2, Cutting(window, RATE_HZ), triggers=triggers, **options)
    outcomes = {}

    def note(decided):
        for one in decided:
            told = (one.reason,) if isinstance(one, Drop) else ("", *one.samples.T.tolist())
            outcomes[one.number] = (one.event.stimulus, *told)

    for stream, chunk in play(recording, chunk_samples):
        if stream == "eeg":
            acquisition.add_eeg(chunk)
        else:
            acquisition.add_markers(chunk)
        note(acquisition.due(chunk.readable_s))
    note(acquisition.end("no_data", "the recording ended"))
    return acquisition, [outcomes[number] for number in sorted(outcomes)]


@st.composite
def recordings(draw):
    """Up to two losses of 100 ms and more among 600 samples."""
    numbers = np.arange(600)
    losses = st.tuples(st.integers(1, 450), st.integers(10, 80))
    for start, count in draw(st.lists(losses, max_size=2)):
        numbers = np.setdiff1d(numbers, np.arange(start, start + count))
    runs = st.tuples(st.sampled_from([0, 0, 0, 1, 2, 200]), st.integers(1, 30))
    codes = values_of(draw(st.lists(runs, min_size=20, max_size=40)))
    return make_recording(numbers, np.resize(codes, 600)[numbers])


@settings(max_examples=60, deadline=None)
@given(recordings(), st.integers(1, 700))
def test_a_trial_opens_at_the_sample_of_the_rise(recording, chunk_samples):
    numbers, codes = recording.samples.T
    _, outcomes = run(recording, chunk_samples)
    expected = rises(codes)
    assert [stimulus for stimulus, *_ in outcomes] == [str(code) for _, code in expected]
    for (row, code), (_, reason, *held) in zip(expected, outcomes, strict=True):
        rows = row + np.arange(WINDOW.first, WINDOW.last + 1)
        inside = rows[(rows >= 0) & (rows < len(numbers))]
        is_broken = (np.diff(numbers[inside]) != 1).any()
        if is_broken or len(inside) < len(rows):
            assert reason in ("gap", "no_data")
            continue
        assert reason == ""
        np.testing.assert_array_equal(held, [numbers[rows], codes[rows]])
        assert held[1][-WINDOW.first] == code


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(recordings(), st.integers(2, 700))
def test_the_trials_do_not_depend_on_the_chunking(recording, chunk_samples):
    assert run(recording, chunk_samples)[1] == run(recording, 1)[1]


@pytest.mark.parametrize("window", [WINDOW, Window(0, 20)])
def test_a_code_whose_rise_was_lost_has_no_known_onset(window):
    """Samples 100 to 179 are missing; at the 150th the code rose."""
    numbers = np.setdiff1d(np.arange(400), np.arange(100, 180))
    codes = np.where((numbers >= 150) & (numbers < 200), 7, 0)
    _, ((_, reason, *_),) = run(make_recording(numbers, codes), 10, window=window)
    assert reason == "gap"


@pytest.mark.parametrize(
    "chunk_samples",
    [1, 400],
)
def test_nor_has_one_that_counts_only_later(chunk_samples):
    numbers = np.setdiff1d(np.arange(400), np.arange(100, 180))
    codes = np.where((numbers >= 150) & (numbers < 200), 7, 0)
    recording = make_recording(numbers, codes)
    window = Window(0, 20)
    _, ((_, reason, *_),) = run(recording, chunk_samples, window=window, shortest_samples=10)
    assert reason == "gap"


def test_with_a_cross_check_triggers_open_no_trial():
    numbers = np.arange(600)
    codes = np.where(numbers % 100 == 50, 9, 0)
    markers = [(50.5 + k + 0.02, f"s{k}") for k in range(6)]
    recording = make_recording(numbers, codes, markers)
    for chunk_samples in (1, 7, 600):
        acquisition, outcomes = run(recording, chunk_samples, cross_check=True)
        assert [stimulus for stimulus, *_ in outcomes] == [f"s{k}" for k in range(6)]
        assert acquisition.facts()["cross_check"] == {
            "matched": 6,
            "offset_mean_ms": pytest.approx(20, abs=0.01),
            "offset_sd_ms": pytest.approx(0, abs=0.01),
            "without_marker": 0,
            "without_trigger": 0,
        }


def test_without_a_cross_check_nothing_is_compared():
    acquisition, _ = run(make_recording(range(100), np.zeros(100)), 10)
    assert "cross_check" not in acquisition.facts()


def test_a_marker_stream_beside_triggers_opens_trials_too():
    codes = np.where(np.arange(300) == 100, 9, 0)
    _, outcomes = run(make_recording(range(300), codes, [(51.5, "m")]), 10)
    assert [stimulus for stimulus, *_ in outcomes] == ["9", "m"]


def test_codes_up_to_2_to_53_name_the_stimulus():
    acquisition = Acquisition(1, Cutting(Window(0, 3), RATE_HZ), triggers=(make_reader(), 0))
    values = np.array([[0], [2**53 - 1], [0], [0], [0], [0], [0]], np.float64)
    opened = acquisition.add_eeg(Chunk(50 + np.arange(7) / RATE_HZ, values, 0.0, 51.0))
    assert [entry.event.stimulus for entry in opened] == [str(2**53 - 1)]
    (trial,) = acquisition.due(51.0)
    assert isinstance(trial, Trial)


def test_a_chunk_that_is_longer_than_the_history_is_taken():
    codes = np.where(np.arange(400) == 50, 9, 0)
    triggers = (make_reader(), 0)
    acquisition = Acquisition(1, Cutting(Window(0, 20), RATE_HZ, history_s=1.0), triggers=triggers)
    stamps_s = 50 + np.arange(400) / RATE_HZ
    acquisition.add_eeg(Chunk(stamps_s, codes[:, None].astype(np.float32), 0.0, 54.0))


# --- bits ----------------------------------------------------------------------------------------


def codes_of(values, **settings):
    reader = TriggerReader(TriggerSettings(**{"channel": "STI"} | settings))
    return [code for _, code in reader.read(np.array(values, np.float64))]


def biosemi(code):
    """The first samples of a code in a Status channel: epoch, speed and CMS are bits above 15."""
    return [(1 << 20) | (1 << 17) | code] * 3


@pytest.mark.parametrize("sign", [1, -1])
def test_of_a_status_channel_only_the_trigger_bits_count(sign):
    """Read as signed numbers, a low battery (bit 23) makes all of them negative."""
    cms_lost = [1 << 17] * 3
    values = biosemi(0) + biosemi(1) + cms_lost + biosemi(0) + biosemi(2) + biosemi(0)
    if sign < 0:
        values = [value - (1 << 23) for value in values]
    assert codes_of(values, channel="Status") == [1, 2]
    assert codes_of(values, bits=(0, 15)) == [1, 2]


def test_a_range_of_bits_is_read_as_a_number():
    values = [0, 0x0100, 0x0203, 0x00FF, 0x0F00, 0]
    assert codes_of(values, bits=(8, 15)) == [1, 2, 15]
    assert codes_of(values, bits=(0, 7)) == [3, 255]
    assert codes_of(values, bits=(9, 9)) == [1, 1]
    assert codes_of(values) == [0x0100, 0x0203, 0x0F00]


@pytest.mark.parametrize("bits", [(-1, 3), (4, 3), (0, 53)])
def test_bits_that_are_no_range_are_refused(bits):
    with pytest.raises(WrongUsage, match=f"trigger bits {bits[0]},{bits[1]}"):
        TriggerSettings(channel="STI", bits=bits)
