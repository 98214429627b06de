"""No trial spans a join of a recording or a span marked bad, whatever wrote the file."""

import mne
import numpy as np
import pytest

from hvf_core.problem import Problem
from stream.acquire.reject import RejectSettings
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop, Trial
from stream.sources.read import read_recording
from stream.sources.virtual_time import play
from tests.recording_files import (
    RATE_HZ,
    make_raw,
    save_fif,
    write_edf_plus,
    write_set,
)

FIRST, LAST = -20, 100  # samples of a trial, from its onset on
N = 4000


def outcomes(recording, chunk_samples=None, **reject):
    """Of each marker, by its text: the drop's reason and detail, or the trial's samples (n,)."""
    plan = TrialPlan(
        window_s=(FIRST / RATE_HZ, LAST / RATE_HZ), reject=RejectSettings.model_validate(reject)
    )
    trials = TrialStream(recording.channels, recording.rate_hz, plan)
    found = {}
    for stream, chunk in play(recording, chunk_samples):
        said = [*trials.add(stream, chunk), *trials.due(chunk.readable_s)]
        for one in said:
            if isinstance(one, Trial):
                found[one.event.stimulus] = one.samples[:, 0].tolist()
            elif isinstance(one, Drop):
                found[one.event.stimulus] = (one.reason, one.detail)
    for one in trials.end("no_data", "the recording ended"):
        found[one.event.stimulus] = (one.reason, one.detail)
    return found


def reasons(recording, **more):
    told = outcomes(recording, **more).items()
    return {text: one[0] if isinstance(one, tuple) else "cut" for text, one in told}


def numbered(n=N):
    """A channel whose samples, in microvolts, say their number."""
    raw = make_raw(("eeg",), n)
    raw._data[0] = np.arange(n) * 1e-6
    return raw


def test_eeglab_puts_a_join_between_two_samples(tmp_path):
    events = [("a", 980), ("boundary", 1000.5), ("b", 1021), ("c", 1020), ("d", 900)]
    samples_uv = np.arange(3000.0)[None].repeat(2, axis=0)
    found = outcomes(read_recording(write_set(tmp_path / "s.set", samples_uv, events)))
    # From 1 on, so b begins on sample 1000 and its window with it; c one sample before.
    assert found["a"][0] == found["c"][0] == "gap"
    assert (found["b"][0], found["d"][-1]) == (1000.0, 999.0)


@pytest.mark.parametrize("kind", [float, int])
def test_eeglab_with_numbers_for_types_calls_a_join_99_below_zero(tmp_path, kind):
    events = [(kind(7), 980), (kind(-99), 1000.5), (kind(8), 1021), (kind(-9), 2000)]
    samples_uv = np.arange(3000.0)[None].repeat(2, axis=0)
    recording = read_recording(write_set(tmp_path / "s.set", samples_uv, events))
    assert reasons(recording) == {"7": "gap", "8": "cut", "-9": "cut"}
    assert outcomes(recording)["8"][0] == 1000.0


def test_what_mne_fills_with_zeros_was_not_recorded(tmp_path):
    raw = numbered()
    raw.set_annotations(mne.Annotations([5.0], 2.0, ["BAD_ACQ_SKIP"]) + marks(4.9, 6.0, 7.5))
    recording = read_recording(save_fif(raw, tmp_path / "a_raw.fif"))
    assert len(recording.samples) == N - 400
    assert reasons(recording) == {"at 4.9": "gap", "at 6": "gap", "at 7.5": "cut"}
    assert outcomes(recording)["at 7.5"][-FIRST] == pytest.approx(7.5 * RATE_HZ)


def marks(*onsets_s):
    return mne.Annotations(list(onsets_s), 0.0, [f"at {onset_s:g}" for onset_s in onsets_s])


STARTS_S = [*range(10), *range(15, 30)]  # nothing was recorded from 10 to 15 s


def test_discontinuous_edf_has_the_samples_of_the_time(tmp_path):
    told = [(5.0, "a"), (9.8, "b"), (12.0, "c"), (20.0, "d"), (27.0, "e"), (31.0, "f")]
    samples = np.arange(len(STARTS_S) * RATE_HZ)
    starts_s = [start_s + 0.25 for start_s in STARTS_S]  # the first of them says what zero is
    told_s = [(onset_s + 0.25, text) for onset_s, text in told]
    recording = read_recording(write_edf_plus(tmp_path / "d.edf", samples, starts_s, told_s))
    found = outcomes(recording)
    assert {text: found[text][0] for text in "bcf"} == {"b": "gap", "c": "gap", "f": "no_data"}
    for text, onset_s in (("a", 5.0), ("d", 15.0), ("e", 22.0)):  # 5 s of them are missing
        assert found[text][-FIRST] == pytest.approx(onset_s * RATE_HZ / 10, rel=1e-4)
    assert recording.duration_s == pytest.approx(30)


def test_discontinuous_edf_that_does_not_say_when_is_refused(tmp_path):
    samples = np.arange(3 * RATE_HZ)
    path = write_edf_plus(tmp_path / "d.edf", samples, [0, 5, 5.5], [])
    with pytest.raises(Problem, match=r"discontinuous \(EDF\+D\).*export it again as EDF\+C"):
        read_recording(path)


def test_a_continuous_edf_keeps_what_was_said_outside_of_it(tmp_path):
    path = write_edf_plus(
        *(tmp_path / "c.edf", np.arange(600), range(3)),
        *([(1.0, "in"), (9.0, "after"), (-1.0, "before")], "EDF+C"),
    )
    assert reasons(read_recording(path)) == {
        "before": "no_data",
        "in": "cut",
        "after": "no_data",
    }


def test_bad_spans_reject_with_their_name_unless_they_are_kept(tmp_path):
    raw = numbered()
    spans = mne.Annotations([3.2, 8.0], [0.1, 0.0], ["BAD_blink", "Bad"])
    raw.set_annotations(spans + marks(3.0, 5.0, 8.0))
    recording = read_recording(save_fif(raw, tmp_path / "a_raw.fif"))
    found = outcomes(recording)
    assert (found["at 3"], found["at 8"]) == (("rejected", "BAD_blink"), ("rejected", "Bad"))
    expected = {"at 3": "rejected", "at 5": "cut", "at 8": "rejected"}
    assert reasons(recording) == expected
    assert set(reasons(recording, keep_bad=True).values()) == {"cut"}
    events, _ = mne.events_from_annotations(raw, regexp="^at", verbose="ERROR")
    epochs = mne.Epochs(
        raw, events, None, FIRST / RATE_HZ, LAST / RATE_HZ, verbose="ERROR"
    ).drop_bad()
    assert [not log for log in epochs.drop_log] == [one == "cut" for one in expected.values()]
    assert recording.slice(4.0, 7.0).bad_spans == recording.bad_spans  # told, and of no effect
