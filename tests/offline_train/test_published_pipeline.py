"""What `prepare` makes of raw THINGS-EEG2 is what the published pipeline makes of it.

That pipeline is written down here once more, with MNE, SciPy and scikit-learn alone: epochs,
baseline, multivariate noise normalisation by session, float16, and the mean of repetitions.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power

from offline_train.data.trial_set import TrialSet
from tests.lookalikes import things, things_eeg2
from tests.lookalikes.things import TEST, TRAIN
from tests.lookalikes.way import prepared

SESSIONS = ("01", "02")
IMAGES = {"training": TRAIN, "test": TEST}


def published(session: Path) -> dict[str, np.ndarray]:
    """Whitened float16 (images, repetitions, channels, times) of a session's training and test."""
    from sklearn.discriminant_analysis import _cov

    conditions = {}
    for part, images in IMAGES.items():
        eeg, codes = things_eeg2.epochs_of(session / f"raw_eeg_{part}.npy", 0.996)
        conditions[part] = [eeg[codes == code] for code in range(1, len(images) + 1)]
    sigma = np.mean(
        [
            np.mean([_cov(repetition.T, shrinkage="auto") for repetition in condition], axis=0)
            for condition in conditions["training"]
        ],
        axis=0,
    )
    inverse = fractional_matrix_power(sigma, -0.5)
    return {
        part: np.array([[(x.T @ inverse).T for x in c] for c in found]).astype(np.float16)
        for part, found in conditions.items()
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recorded at the rate to which the pipeline resamples, which then changes nothing."""
    folder = things_eeg2.raw(tmp_path_factory.mktemp("raw"), rate_hz=250)
    things.write_metadata(folder)
    return folder


@pytest.fixture(scope="module")
def ours(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrialSet:
    return prepared(tmp_path_factory.mktemp("ours") / "trials", data, "--per-session")


@pytest.fixture(scope="module")
def theirs(data: Path) -> dict[str, dict[str, np.ndarray]]:
    """By session and part."""
    root = data / "raw_data" / "sub-01"
    return {session: published(root / f"ses-{session}") for session in SESSIONS}


def repeats_of(trials: TrialSet, image: str, session: str) -> np.ndarray:
    chosen = trials.select([image]).select([session], "session")
    return np.array(chosen.data[chosen.rows])


@pytest.mark.slow
def test_single_trials_are_those_of_the_published_pipeline(ours: TrialSet, theirs: dict) -> None:
    for session in SESSIONS:
        for part, images in IMAGES.items():
            for number, image in enumerate(images):
                expected = theirs[session][part][number].astype(float)
                found = repeats_of(ours, image, session)
                # Half a step of float16, and what float32 rounds beside it.
                np.testing.assert_allclose(found, expected, rtol=2**-11, atol=2e-4)


def test_means_are_those_of_the_published_pipeline_but_for_float16(
    ours: TrialSet, theirs: dict
) -> None:
    learnt = ours.select(["train"], "split")
    means = dict(zip(learnt.items, learnt.mean([*learnt.repeats.values()]), strict=True))
    for number, image in enumerate(TRAIN):
        four = np.concatenate([theirs[session]["training"][number] for session in SESSIONS])
        expected = torch.from_numpy(four).mean(dim=0).float().numpy()
        # A half step of float16 for each of the four, and one for their mean.
        np.testing.assert_allclose(means[image], expected, 2**-11, 1.01 * 2**-11 * abs(four).max())


def test_float16_is_taken_over_to_the_bit_and_averaged_in_more(tmp_path: Path) -> None:
    table = things_eeg2.ubp_table("train")
    things_eeg2.ubp(tmp_path / "data")
    trials = prepared(tmp_path / "trials", tmp_path / "data").select(["train"], "split")
    means = dict(zip(trials.items, trials.mean([*trials.repeats.values()]), strict=True))
    theirs = torch.from_numpy(table["eeg"]).mean(dim=1)
    for number, image in enumerate(TRAIN):
        taken = trials.data[trials.select([image]).rows].astype(np.float16)
        for trial in taken:
            assert (trial == table["eeg"][number]).all(axis=(1, 2)).any()
        rounded = means[image].astype(np.float16)
        np.testing.assert_array_equal(rounded, theirs[number].numpy())


def test_no_test_trial_decides_anything_of_a_session(
    data: Path, ours: TrialSet, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    for path in sorted(data.rglob("raw_eeg_*.npy")):
        copy = tmp_path / path.relative_to(data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        table = np.load(path, allow_pickle=True).item()
        if "test" in path.name:  # other noise, in other proportions, mixed otherwise
            eeg = table["raw_eeg_data"][:4]
            eeg[:] = rng.standard_normal((4, 4)) @ eeg + 4e-6 * rng.standard_normal(eeg.shape)
        np.save(copy, table)
    things.write_metadata(tmp_path)
    other = prepared(tmp_path / "trials", tmp_path, "--per-session")
    for key, arrays in ours.session_arrays.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(other.session_arrays[key][name], array)
    for name, array in ours.preprocessing_arrays.items():
        np.testing.assert_array_equal(other.preprocessing_arrays[name], array)
    for split, is_same in (("train", True), ("test", False)):
        here, there = (one.select([split], "split") for one in (ours, other))
        assert np.array_equal(here.data[here.rows], there.data[there.rows]) == is_same
