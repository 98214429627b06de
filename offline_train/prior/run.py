"""The commands around the Fusion Prior; apart, as most commands need no diffusers."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from rich.progress import Progress
from rich.table import Table

from decoder.bundle import load_bundle
from decoder.painting.base import load_base
from decoder.painting.prior import check_bundle, load_prior, read_adapter
from decoder.painting.spec import read_base_spec
from hvf_core.problem import Problem
from index.encoders.load import ImageEncoder, load_encoder
from index.encoders.parts import square_picture
from offline_train.checkpoint import identify
from offline_train.commands.options import COMMAND, console, features_of, image_files, read_image
from offline_train.data.latents import Reordered, cache_latents, shared_latents, vae_encoder
from offline_train.data.trial_set import load_trial_set
from offline_train.prior.gap import cells, measure_gap
from offline_train.prior.samples import PriorBoard
from offline_train.prior.settings import PriorSettings
from offline_train.prior.training import PriorProgress, make_prior, train_prior


def train_on_files(
    images: Path | None,
    encoders: Path | None,
    base: str,
    settings: PriorSettings,
    start_from: Path | None,
    cache: Path,
    out: Path,
    dtype: torch.dtype,
) -> None:
    """Trains a prior on a folder of images and writes it.

    The state is kept in `OUT-checkpoint`, what TensorBoard shows in `OUT-tensorboard`.

    Args:
        images: folder; a file's name is the image's id.
        encoders: JSON list of image encoders.
        base: folder or name of the diffusion model.
        settings: how.
        start_from: file of an IP-Adapter to begin with.
        cache: folder of features and latents, made if need be.
        out: folder of the prior.
        dtype: of the weights on disk.
    """
    adapter = read_adapter(start_from) if start_from is not None else None
    files = _by_id(image_files(images))
    # Where several processes train, the others wait until the first has encoded all images.
    state = PartialState(cpu=settings.device == "cpu", timeout=timedelta(days=7))
    console.quiet = not state.is_main_process
    loaded = load_base(read_base_spec(base))
    size_px = settings.size_px or loaded.spec.size_px
    with state.main_process_first():
        features = features_of(sorted(files), images, encoders, False, cache)
        vae = load_encoder(vae_encoder(loaded.spec, size_px), str(state.device))
        latents = shared_latents(features, vae)
        if latents is None:
            scaling_factor = loaded.vae.config.scaling_factor
            latents = _cached(features.items, files, vae, scaling_factor, cache)
    # By a draw, so that the images that are only looked at, the last ones, are of all kinds.
    order = np.random.default_rng(settings.seed).permutation(len(files))
    latents = Reordered(latents, order)
    features = features.select([features.items[i] for i in order])
    board = None
    if state.is_main_process:
        looked_at = features.items[max(0, len(files) - settings.n_samples) :]
        pictures = [square_picture(read_image(files[item]), size_px) for item in looked_at]
        board = PriorBoard(out.with_name(f"{out.name}-tensorboard"), pictures, features, loaded)
    with Progress(console=console) as progress:
        task = progress.add_task("training the prior", total=settings.steps)

        def tell(step: PriorProgress) -> None:
            board.tell(step)
            text = f"training the prior, loss {step.loss:.4f}" if step.loss else None
            progress.update(task, completed=step.step, description=text)

        try:
            trained = train_prior(
                latents,
                features,
                loaded,
                settings,
                tell,
                checkpoint_dir=out.with_name(f"{out.name}-checkpoint"),
                look=board and board.look,
                start_from=adapter,
            )
        except torch.OutOfMemoryError:
            raise Problem(
                f"the GPU's memory is too small for a batch of {settings.batch_size} images in "
                f"{settings.parts} parts: give --parts {2 * settings.parts}, or --recompute"
            ) from None
    if not state.is_main_process:
        return
    board.close()
    make_prior(out, trained, features, loaded, settings, COMMAND, dtype)
    console.print(f"prior in '{out}', last loss {trained.history[-1]['loss']:.4f}")
    console.print(f"next: python -m offline_train mbp TRIALS --prior {out} --images ...")


def tell_gap(
    bundle: Path, prior: Path, trials: Path, images: Path | None, encoders: Path | None, cache: Path
) -> None:
    """Prints how brain embeddings differ from those of images, and what is done about it."""
    opened, painted_with = load_bundle(bundle), load_prior(prior)
    check_bundle(painted_with, opened.manifest)
    trial_set = load_trial_set(trials)
    features = features_of(trial_set.items, images, encoders, False, cache)
    table = Table(title="embeddings, and tokens made of them, against those of the image seen")
    table.add_column("", no_wrap=True)
    for heading in ("length", "cosine", "tokens: as it is", "length 1", "by the rule"):
        table.add_column(heading, justify="right")
    for row in measure_gap(opened, painted_with, trial_set, features):
        table.add_row(*cells(row))
    console.print(table)
    console.print(
        "the rule: painting brings every embedding to the mean length of the prior's training "
        f"images, {painted_with.manifest.z_norm:.3g}"
    )


def _by_id(paths: list[Path]) -> dict[str, Path]:
    """Image files by the id that each name stands for."""
    files: dict[str, Path] = {}
    for path in paths:
        other = files.setdefault(path.stem, path)
        if other is not path:
            raise Problem(
                f"'{other}' and '{path}' have the same name, which is the image's id: rename one"
            )
    return files


def _cached(
    items: tuple[str, ...],
    files: Mapping[str, Path],
    vae: ImageEncoder,
    scaling_factor: float,
    cache: Path,
) -> np.ndarray:
    """Latents of the images from a folder of the cache, where they are made if need be."""
    name = f"latents-{vae.spec.size_px}px-{vae.checksum[:16]}-{identify(list(items))[:16]}"
    with Progress(console=console) as progress:
        task = progress.add_task("encoding latents", total=len(files))
        return cache_latents(
            items,
            lambda item: read_image(files[item]),
            vae,
            scaling_factor,
            cache / name,
            lambda done, total: progress.update(task, completed=done),
        )
