"""The trials of a recording are the same from LSL, from virtual time and from `prepare`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from offline_train.data.trial_set import TrialSet, load_trial_set
from tests.calling import call
from tests.sessions import check_accounted
from tests.takes import FORMATS, Take

pytestmark = pytest.mark.slow

WINDOW = ("--tmin", "-0.1", "--tmax", "0.4")
# Of these a join lies in one's window, and a bad span in another's; one is cut off by the end.
TAKE = Take(
    2000,
    {150: "a", 290: "b", 590: "a", 730: "c", 1210: "b", 1500: "d", 1990: "a"},
    joins=(600,),
    bad=((1510.25, 20),),
)
DROPPED = {"gap": 1, "rejected": 1, "no_data": 1}


def replayed(path: Path, out: Path, *more: str) -> Mapping[str, np.ndarray]:
    """The trials of a session, and what was dropped."""
    out.mkdir(exist_ok=True)
    saved = out / "trials.npz"
    options = ("--headless", "--out", out / "session", "--save-trials", saved)
    done = call("replay", path, *WINDOW, *options, *more)
    assert done.code == 0, done.err
    told = check_accounted(out / "session")
    return {**np.load(saved, allow_pickle=False), "dropped": told["dropped"]}


@pytest.mark.parametrize("suffix", FORMATS)
def test_prepare_cuts_the_trials_of_every_format(suffix: str, tmp_path: Path) -> None:
    prepared = prepare(FORMATS[suffix](TAKE, tmp_path / f"take{suffix}"), tmp_path / "trials")
    assert list(prepared.stimuli) == ["a", "b", "c", "b"]
    told = prepared.format
    from_onset = np.arange(prepared.data.shape[-1]) + round(told.tmin_s * told.rate_hz)
    expected = np.broadcast_to(from_onset, prepared.data[:, 0].shape)
    np.testing.assert_allclose(prepared.data[:, 0], expected, rtol=1e-4, atol=1e-3)


def test_a_session_cuts_the_same_trials(tmp_path: Path) -> None:
    """Of one format, as what plays a recording no longer knows which."""
    path = FORMATS[".vhdr"](TAKE, tmp_path / "take.vhdr")
    live = replayed(path, tmp_path, "--speed", "max")
    assert live["dropped"] == DROPPED
    assert live["stimulus"].tolist() == ["a", "b", "c", "b"]
    onset = int(np.argmin(np.abs(live["times_s"])))
    np.testing.assert_allclose(live["trials"][:, 0, onset], [150, 290, 730, 1210], rtol=1e-6)
    expected = live["trials"] - live["trials"][:, :, [onset]]
    np.testing.assert_array_equal(prepare(path, tmp_path / "trials").data, expected)


def prepare(path: Path, out: Path) -> TrialSet:
    # No baseline is none of its choices: that of the onset alone takes nothing but a number away.
    done = call(
        *("prepare", path, "--out", out, "--rate", "0", "--whitening", "none"),
        *("--baseline-start", "0", "--baseline-stop", "0", *WINDOW),
        module="offline_train",
    )
    assert done.code == 0, done.err
    return load_trial_set(out)


def test_lsl_at_true_speed_gives_the_trials_of_virtual_time(tmp_path: Path) -> None:
    """Of one format: what plays a recording, over LSL or in virtual time, no longer knows which."""
    path = FORMATS[".edf"](TAKE, tmp_path / "take.edf")
    part = ("--duration", "6")  # with a pause of 1.5 s in it
    lsl = replayed(path, tmp_path / "lsl", *part)
    virtual = replayed(path, tmp_path / "max", *part, "--speed", "max")
    assert lsl["stimulus"].tolist() == virtual["stimulus"].tolist() == ["a", "b", "c"]
    assert lsl["dropped"] == virtual["dropped"] == {"gap": 1}
    np.testing.assert_array_equal(lsl["trials"], virtual["trials"])
    apart_s = np.diff(lsl["onset_s"]) - np.diff(virtual["onset_s"])
    np.testing.assert_allclose(apart_s, 0.0, atol=1e-6)
