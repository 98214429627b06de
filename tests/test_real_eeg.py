"""A real recording through the live path: cut as MNE cuts it, and decoded."""

import mne
import numpy as np
import pytest
from scipy.stats import binomtest

from tests.calling import EEGLAB, call
from tests.sessions import check_accounted, trials_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not EEGLAB.exists(), reason=f"the recording {EEGLAB} is not beside the project"
    ),
]
TMIN_S, TMAX_S = -0.2, 1.0


@pytest.fixture(scope="module")
def epochs() -> mne.Epochs:
    raw = mne.io.read_raw_eeglab(EEGLAB, preload=True, verbose="ERROR")
    events, ids = mne.events_from_annotations(raw, verbose="ERROR")
    return mne.Epochs(
        raw, events, ids, TMIN_S, TMAX_S, baseline=None, preload=True, verbose="ERROR"
    )


@pytest.mark.parametrize("speed", ["40", "max"])
def test_trials_equal_mne_epochs(speed: str, epochs: mne.Epochs, tmp_path) -> None:
    trials = tmp_path / "trials.npz"
    done = call(
        *("replay", EEGLAB, "--speed", speed, "--headless"),
        *("--out", tmp_path / "session", "--save-trials", trials),
    )
    assert done.code == 0, done.err
    told = check_accounted(tmp_path / "session")
    assert told["markers"] == told["cut"] == 154

    saved = np.load(trials, allow_pickle=False)
    expected = (epochs.get_data() * 1e6).astype(np.float32)
    np.testing.assert_array_equal(saved["trials"], expected)
    names = {code: name for name, code in epochs.event_id.items()}
    assert saved["stimulus"].tolist() == [names[code] for code in epochs.events[:, 2]]
    np.testing.assert_allclose(saved["times_s"], epochs.times, atol=1e-9)
    assert np.abs(saved["residual_s"]).max() <= 0.5 / 128 + 1e-9


def test_the_evoked_response_is_where_it_should_be(epochs: mne.Epochs, tmp_path) -> None:
    trials = tmp_path / "trials-epo.fif"
    arguments = ("--speed", "max", "--headless", "--stimuli", "square")
    done = call(
        "replay", EEGLAB, *arguments, "--out", tmp_path / "session", "--save-trials", trials
    )
    assert done.code == 0, done.err
    saved = mne.read_epochs(trials, verbose="ERROR").apply_baseline((TMIN_S, 0), verbose="ERROR")
    evoked = saved["square"].average(picks=["Pz"])
    _, peak_s, peak_v = evoked.get_peak(return_amplitude=True)
    assert len(saved) == 80
    assert peak_s == pytest.approx(0.43, abs=0.01)
    reference = epochs["square"].apply_baseline((TMIN_S, 0), verbose="ERROR")
    assert peak_v == pytest.approx(reference.average(picks=["Pz"]).get_data().max(), rel=1e-5)


def test_a_model_of_the_first_half_decodes_the_second_half_live(tmp_path) -> None:
    """Squares against button presses, two-way; whatever the accuracy is, it is reported."""
    trials, bundle, gallery = (tmp_path / name for name in ("trials", "bundle", "gallery"))
    steps = [
        ["prepare", EEGLAB, "--stop", "119", "--rate", "0", "--tmax", "0.8"],
        ["mbp", trials, "--labels", "--every-trial", "--batch-size", "32", "--out", bundle],
        ["gallery", "--bundle", bundle, "--labels", "rt,square", "--out", gallery],
    ]
    steps[0] += ["--whitening", "none", "--scaling", "robust", "--out", trials]
    steps[1] += ["--cache", tmp_path / "features"]
    for step in steps:
        done = call(*step, module="offline_train")
        assert done.code == 0, done.err
    folder = tmp_path / "session"
    done = call(
        *("replay", EEGLAB, "--start", "119", "--speed", "20", "--bundle", bundle),
        *("--gallery", gallery, "--out", folder, "--headless"),
    )
    assert done.code == 0, done.err
    told = check_accounted(folder)
    answers = trials_of(folder, "decoded")
    hits = sum(answer["ids"][0] == answer["stimulus"] for answer in answers)
    low, high = binomtest(hits, len(answers)).proportion_ci(method="wilson")
    print(f"two-way accuracy {hits / len(answers):.1%} ({low:.1%} to {high:.1%}), {len(answers)}")
    assert told["n_way"] == 2
    assert told["top1"] == hits / len(answers)
    assert low > 0.5
