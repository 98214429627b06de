"""A decoder that is quick: four images on a circle, two channels, trials of three samples."""

from types import SimpleNamespace

import numpy as np
import pytest

from decoder.anytime import WholeTrials
from decoder.bundle import BrainEncoderRecord, BundleManifest, HVFRecord, ImageEncoderRecord
from decoder.calibration import Calibration
from decoder.live import LiveDecoder
from index.gallery import Gallery
from index.ranking import Ranker
from index.search.flat import Flat

N_SLICES = 3
N_STIMULI = 4
CALIBRATION = Calibration(
    tmax_s=(0.1, 0.2),
    repeats=(1, 4),
    mean=((3.0, 2.0), (1.3, 0.7)),
    added=((1.0, 1.6), (1.0, 1.4)),
    n_items=40,
)
MANIFEST = BundleManifest(
    channels=("a", "b"),
    rate_hz=10,
    tmin_s=0.0,
    tmax_s=0.2,
    preprocessing={},
    brain_encoder=BrainEncoderRecord(hidden=2),
    image_encoders=(ImageEncoderRecord(name="semantic", dim=2, checksum="5e"),),
    hvf=HVFRecord(hidden=2),
    embedding_dim=2,
    logit_scale=1.0,
    space="s",
    calibration=CALIBRATION,
)
ANGLES = np.linspace(0, 2 * np.pi, N_STIMULI, endpoint=False)
EMBEDDINGS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
NAMES = tuple(f"stimulus {n}" for n in range(N_STIMULI))
GALLERY = Gallery(NAMES, NAMES, EMBEDDINGS, "s", (), "test")


def live_decoder(evidence="mean"):
    """One that answers after two samples of three, and after all, by the sum of its EEG."""
    shares = WholeTrials(SimpleNamespace(n_times=N_SLICES, n_channels=2), (2, 3))

    def engine(x):
        z = x.sum(axis=1)
        return (z / max(np.linalg.norm(z), 1e-6),)

    told = {"evidence": evidence, "clock": lambda: 0.0, "say": pytest.fail}
    return LiveDecoder(MANIFEST, shares, Ranker(Flat(EMBEDDINGS), GALLERY), engine, **told)
