"""A planted problem, two noisy linear views of the same hidden vectors, and a short recording."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from decoder.bundle import ImageEncoderRecord
from offline_train.data.features import Features
from offline_train.data.trial_set import TrialFormat, TrialSet, load_trial_set, write_trial_set

FORMAT = TrialFormat(
    channels=("P7", "PO7", "O1", "Oz", "O2", "P8"),
    rate_hz=100,
    tmin_s=0,
    tmax_s=0.19,
    preprocessing={"baseline": None},
    provenance={"subject": "planted"},
)
HIDDEN = 12


@dataclass(frozen=True)
class Planted:
    """Trials of items, and features of the same items."""

    train: TrialSet
    test: TrialSet
    features: Features


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Planted]:
    """Makes a planted problem with 4 repeats of each item; `signal=0` leaves noise only."""

    def make(n_train: int, n_test: int, signal: float = 1.0) -> Planted:
        rng = np.random.default_rng(7)
        hidden = rng.standard_normal((n_train + n_test, HIDDEN))
        names = tuple(f"item{i:04d}" for i in range(len(hidden)))
        dims = {"semantic": 10, "pixels": 16}
        embeddings = {
            name: (hidden @ rng.standard_normal((HIDDEN, dim))).astype(np.float32)
            for name, dim in dims.items()
        }
        encoders = tuple(
            ImageEncoderRecord(name=name, dim=dim, checksum=name) for name, dim in dims.items()
        )
        evoked = hidden @ rng.standard_normal((HIDDEN, 6 * 20)) / np.sqrt(HIDDEN)
        evoked = signal * evoked.reshape(-1, 6, 20)
        folder = tmp_path_factory.mktemp("planted")

        def write(part: str, start: int, stop: int) -> TrialSet:
            with write_trial_set(folder / part, FORMAT, {"whitener": np.eye(6)}) as writer:
                for session in ("s1", "s2", "s3", "s4"):
                    noise = 2.5 * rng.standard_normal((stop - start, 6, 20))
                    trials = (evoked[start:stop] + noise).astype(np.float32)
                    writer.append(trials, names[start:stop], session=session)
            return load_trial_set(folder / part)

        return Planted(
            train=write("train", 0, n_train),
            test=write("test", n_train, n_train + n_test),
            features=Features(names, encoders, embeddings),
        )

    return make


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Forty seconds of three channels at 200 Hz, in which two stimuli alternate."""
    import mne

    samples = np.random.default_rng(0).standard_normal((3, 8000)) * 1e-5
    raw = mne.io.RawArray(samples, mne.create_info(["Fz", "Cz", "Oz"], 200, "eeg"), verbose="ERROR")
    onsets_s = np.arange(1.0, 39.0, 1.0)
    raw.set_annotations(mne.Annotations(onsets_s, 0 * onsets_s, ["a", "b"] * 19))
    raw.save(tmp_path / "s1_raw.fif", verbose="ERROR")
    return tmp_path / "s1_raw.fif"


@pytest.fixture(scope="session")
def trained(plant: Callable[..., Planted], tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Trials of 200 items to learn and 40 to be asked about, a model, its bundle, its gallery."""
    from offline_train.brain.gallery import build_gallery
    from offline_train.brain.settings import TrainSettings
    from offline_train.brain.train import make_bundle, train

    settings = TrainSettings(
        epochs=3, batch_size=64, dim=32, hidden=32, warmup_steps=0, lr=2e-3, device="cpu"
    )
    planted = plant(n_train=200, n_test=40)
    models = train(planted.train, planted.features, settings)
    directory = tmp_path_factory.mktemp("trained") / "bundle"
    bundle = make_bundle(directory, models, planted.train, planted.features, settings, "a test")
    items = planted.test.items
    return planted, models, bundle, build_gallery(items, items, planted.features, bundle, "a test")
