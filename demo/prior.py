"""The demo's Fusion Prior: how it is trained, and how good what it paints is."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decoder.bundle import load_bundle
from decoder.painting.base import load_base
from decoder.painting.prior import Prior, load_prior
from decoder.painting.spec import read_base_spec
from demo.evaluation import simulated_tests
from demo.model import DemoModel
from demo.settings import ASSETS, PRIOR
from demo.shipped.image_metrics import attribute_labels, attribute_scores
from demo.stimuli import gallery_stimuli, render, stimuli, stimulus_from_id, training_concepts
from index.encoders.classifier import load_classifier
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from offline_train.commands.options import bar
from offline_train.data.features import extract_features
from offline_train.data.images import content_of
from offline_train.evaluate.seen import GIVE_OTHERS, check_seen
from offline_train.paintings.nets import load_feature_net
from offline_train.paintings.paint import paint_trials
from offline_train.paintings.scores import Paintings, PaintingScores, conditions_of, score
from offline_train.paintings.settings import PaintingsSettings
from offline_train.paintings.spec import FeatureNetSpec
from offline_train.prior.settings import PRESETS
from offline_train.prior.training import make_prior, train_prior

COMMAND = "python -m demo assets --part prior"


def make_prior_of_demo(assets: Path, n_concepts: int, exemplars: int) -> Prior:
    """Trains the prior on images of training concepts and writes `assets/prior`.

    The same as `python -m offline_train prior --preset demo` on the images of
    `python -m demo images`; takes about half an hour on two cores.
    """
    settings = PRESETS["demo"]
    base = load_base(read_base_spec(assets))
    ids = sorted(s.id for s in stimuli(training_concepts()[:n_concepts], exemplars))
    np.random.default_rng(settings.seed).shuffle(ids)
    encoders = [load_encoder(spec) for spec in read_specs(assets / "encoders.json")]
    with bar("encoding images") as tell, tempfile.TemporaryDirectory() as cache:
        # An id says all of its picture, as long as the cache lives.
        contents = dict(zip(ids, ids, strict=True))
        features = extract_features(contents, picture_of, encoders, Path(cache), tell)
    # One of the encoders is the base's own VAE at the size of the pictures.
    side = base.spec.size_px // 8
    latents = features.embeddings["demo-vae"].reshape(-1, 4, side, side)
    with bar("training the prior") as tell:
        trained = train_prior(
            latents, features, base, settings, lambda step: tell(step.step, step.n_steps)
        )
    half = torch.float16
    return make_prior(assets / "prior", trained, features, base, settings, COMMAND, half)


def picture_of(id: str) -> np.ndarray:
    """The picture of a stimulus, uint8 (128, 128, 3)."""
    return render(stimulus_from_id(id))


# The demo's own classifier in the place of the paper's networks, whose weights it does not have.
# It is also one of the encoders that z_f is made of, so that it is a judge that knows the painter.
_WEIGHTS = ASSETS / "semantic.safetensors"
_CLASSIFIER: dict[str, Any] = {"kind": "classifier", "source": str(_WEIGHTS), "size_px": 80}
NETS = (
    FeatureNetSpec(name="classifier, 2nd stage", layer="6", **_CLASSIFIER),
    FeatureNetSpec(name="classifier, 3rd stage", layer="10", **_CLASSIFIER),
    FeatureNetSpec(name="classifier, features", **_CLASSIFIER),
)


def evaluate_demo_paintings(
    model: DemoModel,
    directory: Path,
    settings: PaintingsSettings,
    *,
    n_images: int = 200,
    amplitude: float = 1.0,
) -> tuple[Paintings, PaintingScores]:
    """Paints test images from themselves, from the simulated brain, and from other trials.

    Args:
        model: the demo's.
        directory: where the trial set is written.
        settings: how; the largest number of repeats is recorded.
        n_images: of the 200 test images.
        amplitude: of the evoked response.
    """
    bundle, prior = load_bundle(model.bundle), load_prior(PRIOR)
    tests = gallery_stimuli()[:n_images]
    trials = simulated_tests(
        bundle, directory, max(settings.repeats), shown=tests, amplitude=amplitude
    )
    seen = check_seen(bundle, trials, settings.seen, GIVE_OTHERS)
    encoders = [load_encoder(spec) for spec in read_specs(ASSETS / "encoders.json")]
    contents = {item: content_of(picture_of(item)) for item in trials.items}
    features = extract_features(contents, picture_of, encoders, directory.with_name("features"))
    conditions = conditions_of(bundle, prior, trials, features, settings.repeats, settings.seed)
    base = load_base(read_base_spec(ASSETS))
    with bar("painting") as tell:
        paintings, told = paint_trials(
            conditions, prior, base, trials.items, picture_of, settings, tell
        )
    nets = [load_feature_net(spec) for spec in NETS]
    shown = [stimulus_from_id(item) for item in trials.items]
    truth = {name: labels.tolist() for name, labels in attribute_labels(shown).items()}
    reader = load_classifier(_WEIGHTS).eval()
    facts = {"subject": "simulated", "amplitude": amplitude, **told}
    return paintings, score(paintings, nets, facts, attribute_scores(reader, truth), seen)
