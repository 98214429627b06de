"""Measures of the demo's pictures: encoders on unseen concepts, and what paintings still show."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo.stimuli import ATTRIBUTES, Stimulus, render, stimuli, test_concepts
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.classifier import SemanticNet, load_classifier
from index.encoders.health import embedding_health
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from offline_train.paintings.metrics import resized


def attribute_labels(listed: list[Stimulus]) -> dict[str, Tensor]:
    """The number of each stimulus's value, (n,), per attribute."""
    return {
        name: torch.tensor([values.index(stimulus.attributes[name]) for stimulus in listed])
        for name, values in ATTRIBUTES.items()
    }


def measure(folder: Path) -> dict[str, float]:
    """Metrics of the encoders in `folder` on two pictures of each of the 200 test concepts."""
    semantic, vae = (load_encoder(spec) for spec in read_specs(folder / "encoders.json"))
    listed = stimuli(test_concepts(), 2)
    pictures = np.stack([render(stimulus) for stimulus in listed])
    features, latents = semantic.encode(pictures), vae.encode(pictures)
    read = attribute_accuracy(folder / "semantic.safetensors", features, listed)
    metrics = {f"{name}_accuracy": accuracy for name, accuracy in read.items()}
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    nearest = (unit[1::2] @ unit[0::2].T).argmax(axis=1)
    metrics["retrieval_200_way_top1"] = float((nearest == np.arange(len(nearest))).mean())
    metrics["semantic_median_cosine"] = embedding_health(features)
    metrics["vae_median_cosine"] = embedding_health(latents)
    metrics["vae_latent_std"] = float(latents.std())
    metrics["vae_psnr_db"] = reconstruction_psnr_db(folder / "vae", pictures[::2])
    return {name: round(value, 4) for name, value in metrics.items()}


@torch.inference_mode()
def attribute_accuracy(
    weights: Path, features: NDArray[np.float32], listed: list[Stimulus]
) -> dict[str, float]:
    """Share of stimuli whose attribute the classifier's own heads read right, per attribute."""
    heads = load_classifier(weights).heads
    guesses = {name: heads[name](torch.from_numpy(features)).argmax(dim=1) for name in ATTRIBUTES}
    labels = attribute_labels(listed)
    return {name: (guesses[name] == labels[name]).float().mean().item() for name in ATTRIBUTES}


def attribute_scores(
    reader: SemanticNet, truth: Mapping[str, Sequence[int]]
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Scores, for `offline_train.paintings.scores.score`, of what can still be read off a painting.

    How well the reader reads at all is seen in what is painted from the images themselves.

    Args:
        reader: a classifier with a head for each attribute, in evaluation mode.
        truth: number of the right class of each image, by attribute.

    Returns:
        By a name that says how often a guess is right: from pictures, uint8 (n, h, w, 3), to 1
        where the attribute is read right and 0 where it is not, (n,).
    """

    def of(attribute: str) -> Callable[[np.ndarray], np.ndarray]:
        @torch.inference_mode()
        def read_right(pictures: np.ndarray) -> np.ndarray:
            logits = reader(resized(pictures, reader.config.size_px))[attribute]
            return (logits.argmax(dim=1).numpy() == np.asarray(truth[attribute])).astype(float)

        return read_right

    return {f"{name} (guess {1 / reader.config.heads[name]:.2f})": of(name) for name in truth}


@torch.inference_mode()
def reconstruction_psnr_db(vae_folder: Path, pictures: NDArray[np.uint8]) -> float:
    """Mean over pictures (n, h, w, 3) of 10 log10(255^2 / mean squared error) after the VAE."""
    declare_missing_ops()
    from diffusers.models import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(
        vae_folder, torch_dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
    ).eval()
    errors = []
    for part in torch.from_numpy(pictures).permute(0, 3, 1, 2).split(16):
        latent = vae.encode(part.float() / 127.5 - 1).latent_dist.mode()
        painted = ((vae.decode(latent).sample.clamp(-1, 1) + 1) * 127.5).round()
        errors.append((painted - part).square().mean(dim=(1, 2, 3)))
    return float((10 * torch.log10(255**2 / torch.cat(errors))).mean())
