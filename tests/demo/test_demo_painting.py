"""What the demo paints with: captions, the shipped models, and that the brain's share is real."""

import numpy as np
import pytest
import torch

from decoder.painting.base import load_base
from decoder.painting.prior import check_fits, load_prior
from decoder.painting.sampler import Sampler, SamplerSettings
from decoder.painting.spec import read_base_spec
from demo.settings import ASSETS
from demo.shipped.captions import SLOTS, UNSAID, CaptionEncoder, captions_of
from demo.shipped.diffusion_models import fit_latent_rgb, make_unet
from demo.stimuli import gallery_stimuli, render, stimuli, training_concepts
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from offline_train.paintings.metrics import pixel_correlation

pytestmark = pytest.mark.slow


def test_captions_say_what_is_seen_and_never_nothing() -> None:
    shown = stimuli(training_concepts()[:300], 1)
    captions = captions_of(shown)
    assert captions.min() > UNSAID
    for stimulus, caption in zip(shown, captions, strict=True):
        said = {
            slot: values[n - 1] for n, (slot, values) in zip(caption, SLOTS.items(), strict=True)
        }
        assert {slot: said[slot] for slot in stimulus.attributes} == stimulus.attributes
        assert (said["light"] == "from the right") == (stimulus.scene.light_azimuth_rad > 0)
    for column, values in zip(captions.T, SLOTS.values(), strict=True):
        assert set(column) == set(range(1, len(values) + 1))  # every word is said


def test_the_empty_caption_is_that_of_no_words() -> None:
    words = CaptionEncoder(8)
    tokens, pooled = words.empty()
    assert tokens.shape == (1, len(SLOTS), 8)
    assert pooled.shape == (1, 8)
    said, _ = words(torch.from_numpy(captions_of(stimuli(training_concepts()[:1], 1))))
    assert not torch.allclose(tokens, said)


def test_the_linear_preview_is_the_best_linear_map() -> None:
    rng = np.random.default_rng(0)
    latents = torch.from_numpy(rng.normal(size=(6, 4, 3, 3)).astype(np.float32))
    rows = rng.normal(size=(3, 5)) * 10
    colours = np.einsum("rc,nchw->nhwr", rows[:, :4], latents.numpy()) + rows[:, 4] + 128
    pictures = np.kron(colours, np.ones((1, 8, 8, 1)))
    found = np.array(fit_latent_rgb(latents, pictures))
    rows[:, 4] += 128
    assert np.allclose(found, rows, atol=1e-2)


def test_the_shipped_models_fit_each_other() -> None:
    base = load_base(read_base_spec(ASSETS))
    prior = load_prior(ASSETS / "prior")
    check_fits(prior, base)
    shipped = {name: tensor.shape for name, tensor in base.unet.state_dict().items()}
    assert shipped == {name: t.shape for name, t in make_unet().state_dict().items()}
    encoders = [load_encoder(spec) for spec in read_specs(ASSETS / "encoders.json")]
    checksums = {encoder.spec.name: encoder.checksum for encoder in encoders}
    assert {r.name: r.checksum for r in prior.manifest.image_encoders} == checksums


def test_images_of_unseen_concepts_are_painted_so_that_they_are_known() -> None:
    """Eight test images from their own embeddings: each is more like itself than like others."""
    shown = np.stack([render(stimulus) for stimulus in gallery_stimuli()[:8]])
    prior = load_prior(ASSETS / "prior")
    encoders = [load_encoder(spec) for spec in read_specs(ASSETS / "encoders.json")]
    with torch.no_grad():
        z_f = prior.hvf({e.spec.name: torch.from_numpy(e.encode(shown)) for e in encoders})
    settings = SamplerSettings(steps=6, preview="none")
    sampler = Sampler(load_base(read_base_spec(ASSETS)), prior.adapter, settings)
    painted = sampler.paint(prior.condition(z_f), list(range(8)))
    own = pixel_correlation(shown, painted)
    other = pixel_correlation(shown, np.roll(painted, 1, axis=0))
    assert own.mean() > 0.6 > other.mean() + 0.2
