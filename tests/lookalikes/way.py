"""The way of a data set: prepare, as a person calls it, then mbp and evaluate."""

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
from offline_train.evaluate.retrieval import evaluate
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


def learnt(trials: TrialSet, folder: Path, shuffled: bool = False) -> tuple[Bundle, Gallery]:
    """A model of the training images, and a gallery of the test images.

    With `shuffled`, the model is told that other images were shown in training.
    """
    ids = sorted({*trials.items})
    seen = np.array([seen_in(one) for one in ids], np.float32)
    features = Features(tuple(ids), (EYE,), {"eye": seen})
    learns, asked = (trials.select([split], "split") for split in ("train", "test"))
    told = features
    if shuffled:
        other = np.random.default_rng(0).permutation(len(ids))
        told = Features(features.items, features.encoders, {"eye": seen[other]})
    models = train(learns, told, SETTINGS)
    bundle = make_bundle(folder, models, learns, told, SETTINGS, "a test")
    return bundle, build_gallery(asked.items, asked.items, features, bundle, "a test")


def found(trials: TrialSet, folder: Path, shuffled: bool = False) -> float:
    """How often the right one of the test images comes first, by a model of the training ones."""
    bundle, gallery = learnt(trials, folder, shuffled)
    asked = trials.select(["test"], "split")
    return evaluate(bundle, asked, gallery, [1]).points[0].top1.value
