"""The way of a data set: prepare, as a person calls it, then a model and a gallery."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from decoder.bundle import Bundle, ImageEncoderRecord
from index.gallery import Gallery
from offline_train.brain.gallery import build_gallery
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import make_bundle, train
from offline_train.data.features import Features
from offline_train.data.trial_set import TrialSet, load_trial_set
from tests.calling import Done, call
from tests.lookalikes.brain import seen_in

SETTINGS = TrainSettings(
    epochs=15, batch_size=30, lr=3e-3, dim=16, hidden=16, warmup_steps=0, device="cpu"
)

EYE = ImageEncoderRecord(name="eye", dim=6, checksum="eye")


def prepared(out: Path, *arguments: object) -> TrialSet:
    """What `prepare` makes, with the pickles read."""
    done = call("prepare", *arguments, "--pickles", "--out", out, module="offline_train")
    assert done.code == 0, done.err
    return load_trial_set(out)


def refused(*arguments: object) -> str:
    """The sentence with which `prepare` refuses something."""
    with TemporaryDirectory() as folder:  # in which what was cut before may be kept
        out = Path(folder) / "trials"
        done: Done = call("prepare", *arguments, "--out", out, module="offline_train")
        assert not out.exists()
    assert done.code == 1
    return done.one_sentence()


def learnt(
    trials: TrialSet, asked: tuple[str, ...], folder: Path, shuffle: int = 0
) -> tuple[Bundle, Gallery]:
    """A model of what these trials show, and a gallery of the images that are asked about.

    With `shuffle`, a seed, the model is told that other images were shown in training.
    """
    ids = sorted({*trials.items, *asked})
    seen = np.array([seen_in(one) for one in ids], np.float32)
    features = Features(tuple(ids), (EYE,), {"eye": seen})
    told = features
    if shuffle:
        other = np.random.default_rng(shuffle).permutation(len(ids))
        told = Features(features.items, features.encoders, {"eye": seen[other]})
    models = train(trials, told, SETTINGS)
    bundle = make_bundle(folder, models, trials, told, SETTINGS, "a test")
    return bundle, build_gallery(asked, asked, features, bundle, "a test")
