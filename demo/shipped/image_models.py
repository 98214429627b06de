"""Trains the demo's two image encoders: a classifier (what is seen) and a VAE (how it looks).

Both learn from pictures of training concepts only. Fixed numbers of steps, one seed, no choice
by test data; the numbers on test concepts are measured once at the end and kept in the recipe.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from demo.shipped.image_metrics import attribute_labels, measure
from demo.stimuli import ATTRIBUTES, Stimulus, render, stimuli, training_concepts
from hvf_core.artifact import file_sha256
from hvf_core.provenance import provenance
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.classifier import SemanticNet, SemanticNetConfig
from index.encoders.parts import squared
from index.encoders.spec import EncoderSpec

SIZE_PX = 128
_NET = SemanticNetConfig(
    size_px=80,
    widths=(32, 64, 96, 160),
    dim=256,
    heads={name: len(values) for name, values in ATTRIBUTES.items()},
)


@dataclass(frozen=True)
class Recipe:
    """How the two encoders are trained."""

    seed: int = 2026
    concepts: int = 1800
    exemplars: int = 4
    classifier_steps: int = 1100
    classifier_batch: int = 64
    classifier_rate: float = 3e-3
    place_weight: float = 0.3  # the place is seen beside the concept, so it counts for less
    vae_crop_steps: int = 5000  # on quarters of pictures, four times as fast
    vae_crop_batch: int = 16
    vae_whole_steps: int = 1200
    vae_whole_batch: int = 8
    vae_rate: float = 2e-3
    vae_edge_weight: float = 0.5
    vae_kl_weight: float = 3e-4


def make_image_models(out_dir: Path, recipe: Recipe = Recipe()) -> dict[str, float]:
    """Trains both encoders, measures them, and writes it all into `out_dir`.

    Beside the files of `train_image_models` this is `recipe.json`: how the encoders were made and
    their metrics on test concepts, which are also returned.
    """
    began = time.perf_counter()
    train_image_models(out_dir, recipe)
    minutes = (time.perf_counter() - began) / 60
    metrics = measure(out_dir)
    files = [out_dir / "semantic.safetensors", *sorted((out_dir / "vae").glob("*.safetensors"))]
    report = recipe_of("python -m demo assets --part encoders", recipe, out_dir, files)
    report |= {"minutes": round(minutes, 1), "metrics_on_test_concepts": metrics}
    write_json(out_dir / "recipe.json", report)
    return metrics


def train_image_models(out_dir: Path, recipe: Recipe) -> None:
    """Trains both encoders and writes their weights and `encoders.json`, the list of them.

    `index.encoders.spec.read_specs` reads that list. Takes 10 to 30 minutes on two cores.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        seen = stimuli(training_concepts()[: recipe.concepts], recipe.exemplars)
        pictures = drawn(seen, progress)
        _train_classifier(seen, pictures, recipe, out_dir / "semantic.safetensors", progress)
        _train_vae(pictures, recipe, out_dir / "vae", progress)
    specs = (
        EncoderSpec(
            name="demo-semantic",
            kind="classifier",
            source="./semantic.safetensors",
            dim=_NET.dim,
            size_px=_NET.size_px,
        ),
        EncoderSpec(
            name="demo-vae", kind="diffusers-vae", source="./vae", dim=1024, size_px=SIZE_PX
        ),
    )
    write_json(out_dir / "encoders.json", [spec.model_dump(exclude_none=True) for spec in specs])


def recipe_of(command: str, recipe: Any, folder: Path, files: Sequence[Path]) -> dict[str, object]:
    """How weights were made by a recipe, a dataclass: what a recipe.json beside them says."""
    return {
        **provenance(command, "torch", "numpy"),
        "recipe": to_jsonable_python(recipe),
        "sha256": {str(file.relative_to(folder)): file_sha256(file) for file in files},
    }


def write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def drawn(listed: list[Stimulus], progress: Progress) -> NDArray[np.uint8]:
    pictures = np.empty((len(listed), SIZE_PX, SIZE_PX, 3), np.uint8)
    for n, stimulus in enumerate(progress.track(listed, description="drawing pictures")):
        pictures[n] = render(stimulus, SIZE_PX)
    return pictures


def _train_classifier(
    listed: list[Stimulus],
    pictures: NDArray[np.uint8],
    recipe: Recipe,
    file: Path,
    progress: Progress,
) -> None:
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    labels = attribute_labels(listed)
    small = torch.stack([(squared(p, _NET.size_px) * 255).round().byte() for p in pictures])
    # torch's types leave memory formats out.
    network = SemanticNet(_NET).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = recipe.classifier_steps
    optimiser, schedule = optimiser_of(network, recipe.classifier_rate, steps)
    for _ in progress.track(range(steps), description="training the classifier"):
        index = torch.from_numpy(rng.integers(len(small), size=recipe.classifier_batch))
        images = _moved(small[index].float() / 255, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        losses = (
            functional.cross_entropy(logits[name].float(), labels[name][index])
            * (recipe.place_weight if name == "place" else 1)
            for name in logits
        )
        step_of(network, sum(losses, torch.zeros(())), optimiser, schedule)
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    save_file(weights, file, {"config": _NET.model_dump_json()})


def _moved(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Mirrors about half of the images and shifts the batch by up to 4 pixels."""
    mirror = torch.from_numpy(rng.random(len(images)) < 0.5)[:, None, None, None]
    images = torch.where(mirror, images.flip(-1), images)
    padded = functional.pad(images, (4, 4, 4, 4), mode="replicate")
    top, left = rng.integers(9, size=2)
    size = images.shape[-1]
    return padded[..., top : top + size, left : left + size]


def optimiser_of(
    network: nn.Module, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW whose rate climbs for a tenth of the steps (at least 11) and then falls to 0."""
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    return optimiser, schedule


def step_of(
    network: nn.Module,
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    schedule.step()


def _train_vae(
    pictures: NDArray[np.uint8], recipe: Recipe, folder: Path, progress: Progress
) -> None:
    declare_missing_ops()
    from diffusers.models import AutoencoderKL

    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE_PX,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).train()
    steps = recipe.vae_crop_steps + recipe.vae_whole_steps
    optimiser, schedule = optimiser_of(vae, recipe.vae_rate, steps)
    for step in progress.track(range(steps), description="training the VAE"):
        if step < recipe.vae_crop_steps:
            images = _cut(pictures, recipe.vae_crop_batch, SIZE_PX // 2, rng)
        else:
            images = _cut(pictures, recipe.vae_whole_batch, SIZE_PX, rng)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            painted = vae.decode(posterior.sample()).sample
        error = painted.float() - images
        divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        loss = (
            error.abs().mean() + recipe.vae_edge_weight * edges + recipe.vae_kl_weight * divergence
        )
        step_of(vae, loss, optimiser, schedule)
    vae.eval()
    with torch.inference_mode():
        some = _cut(pictures, min(256, len(pictures)), SIZE_PX, rng)
        latents = torch.cat([vae.encode(part).latent_dist.mode() for part in some.split(16)])
    # Latents of unit standard deviation are what a diffusion model's noise schedule expects.
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    vae.half().save_pretrained(folder)


def _cut(pictures: NDArray[np.uint8], n: int, size_px: int, rng: np.random.Generator) -> Tensor:
    """Random pictures, or squares from within them, half of them mirrored: (n, 3, ...) in -1..1."""
    cuts = np.empty((n, size_px, size_px, 3), np.uint8)
    for cut in cuts:
        top, left = rng.integers(SIZE_PX - size_px + 1, size=2)
        picture = pictures[rng.integers(len(pictures))]
        cut[:] = picture[top : top + size_px, left : left + size_px][:, :: rng.choice((-1, 1))]
    return torch.from_numpy(cuts).permute(0, 3, 1, 2).float() / 127.5 - 1
