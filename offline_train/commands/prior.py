"""prior: trains a Fusion Prior on images in folders and shards."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hvf_core.options import Asked, Flag, onward, with_settings
from hvf_core.problem import Problem, WrongUsage, needed
from hvf_core.provenance import command_line
from offline_train.commands.options import (
    CHECKPOINTS,
    Base,
    Cache,
    Encoders,
    Out,
    bar,
    console,
)
from offline_train.prior.settings import PRESETS, PriorSettings

if TYPE_CHECKING:
    from decoder.painting.base import DiffusionBase
    from offline_train.data.features import Encoded
    from offline_train.data.images import Pictures
    from offline_train.prior.batches import Latents
    from offline_train.prior.training import Adapter


@with_settings(PriorSettings)
def prior(
    out: Out,
    base: Base,
    asked: Asked[PriorSettings],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Folder, shard (.tar, .parquet) or table (.csv) of them; repeatable"),
    ] = None,
    encoders: Encoders = None,
    preset: Annotated[
        Literal["paper", "released", "demo"],
        typer.Option(help="The paper's recipe, that of its released code, or for a small base"),
    ] = "paper",
    start_from: Annotated[
        Path | None, typer.Option(help="An IP-Adapter's safetensors file to begin with")
    ] = None,
    cache: Cache = Path("features"),
    half: Annotated[bool, Flag("--half", help="Write the weights in float16")] = False,
) -> None:
    """Trains a Fusion Prior: HVF, projector and IP-Adapter on a frozen diffusion model.

    A training that was interrupted goes on if it is started again. For its curves and pictures:
    tensorboard --logdir OUT-tensorboard. On several GPUs: accelerate launch -m offline_train ...

    Example: python -m offline_train prior --images all --encoders paper-prior --base sdxl-base ...
    """
    import torch

    from decoder.painting.base import load_base
    from decoder.painting.prior import PRIOR, read_adapter
    from decoder.painting.spec import read_base_spec
    from hvf_core.artifact import refuse_taken, refuse_unwritable
    from index.encoders.parts import square_picture
    from offline_train.prior.batches import n_learnt
    from offline_train.prior.images import find_images
    from offline_train.prior.samples import PriorBoard
    from offline_train.prior.training import PriorProgress, make_prior, train_prior
    from offline_train.together import joined

    if images is None or encoders is None:
        raise WrongUsage("give --images and --encoders")
    refuse_taken(out, PRIOR, "a prior")
    refuse_unwritable(cache)
    settings = asked.settings(dict(PRESETS[preset]))
    adapter = None if start_from is None else read_adapter(start_from)
    # Where several processes train, the others wait until the first has encoded all images.
    state = joined(cpu=settings.device == "cpu")
    console.quiet = not state.is_main_process
    with state.main_process_first(), bar("reading images") as tell:
        pictures = find_images(images, cache, lambda n: tell(n, None), console.print)
    n_learnt(len(pictures.contents), settings)  # before anything is encoded
    loaded = load_base(read_base_spec(base))
    settings = settings.model_copy(update={"size_px": settings.size_px or loaded.spec.size_px})
    try:
        latents, features = _prepared(pictures, encoders, loaded, settings, cache, adapter)
        board = None
        if state.is_main_process:
            looked_at = features.items[len(features.items) - settings.n_samples :]
            size_px = needed(settings.size_px)
            squares = [square_picture(pictures.read(item), size_px) for item in looked_at]
            board = PriorBoard(out.with_name(f"{out.name}-tensorboard"), squares, features, loaded)
        with bar("training the prior") as tell:

            def follow(step: PriorProgress) -> None:
                needed(board).tell(step)  # only the first process is told
                text = None if step.loss is None else f"training the prior, loss {step.loss:.4f}"
                if step.step == step.n_steps:
                    text = "painting samples, measuring the embeddings of all images"
                tell(step.step, step.n_steps, text)

            trained = train_prior(
                latents,
                features,
                loaded,
                settings,
                follow,
                checkpoint_dir=cache / CHECKPOINTS,
                look=None if board is None else board.look,
                start_from=adapter,
            )
    except torch.OutOfMemoryError:
        raise Problem(
            f"the GPU's memory is too small for a batch of {settings.batch_size} images in "
            f"{settings.parts} parts: give --parts {2 * settings.parts}, or --recompute"
        ) from None
    if board is None:
        return
    board.close()
    dtype = torch.float16 if half else torch.float32
    with console.status("writing the prior"):
        make_prior(out, trained, features, loaded, settings, command_line(), dtype)
    console.print(f"prior in '{out}', last loss {trained.history[-1]['loss']:.4f}")
    console.print(onward("mbp", "--prior", out), soft_wrap=True)


def _prepared(
    pictures: "Pictures",
    encoders: str,
    base: "DiffusionBase",
    settings: PriorSettings,
    cache: Path,
    adapter: "Adapter | None",
) -> "tuple[Latents, Encoded]":
    """What is learnt from, once it has been told what the training will take."""
    import numpy as np
    import torch
    from accelerate import PartialState
    from accelerate.utils import broadcast

    from index.encoders.load import load_encoder, load_encoders
    from index.encoders.spec import read_specs
    from offline_train.data.features import encode_images
    from offline_train.data.latents import (
        MadeLatents,
        cache_latents,
        latents_folder,
        n_kept,
        shared_latents,
        vae_encoder,
    )
    from offline_train.prior.estimate import N_TRIED, Estimate, timed, try_steps

    state, contents, n_new = PartialState(), pictures.contents, 0
    bare = contents.keys() - pictures.files.keys()

    def see(items: Sequence[str]) -> "tuple[Encoded, float]":
        networks = load_encoders(read_specs(encoders), str(state.device))  # until it returns
        some = {item: contents[item] for item in items}
        with bar("encoding images") as tell:

            def follow(done: int, total: int) -> None:
                nonlocal n_new
                n_new = total
                tell(done, total)

            told = (cache, follow, console.print, bare)
            return timed(lambda: encode_images(some, pictures.read, networks, *told))

    items = tuple(contents)
    n_threads = max(1, min(16, (os.cpu_count() or 1) // state.num_processes))
    vae = load_encoder(vae_encoder(base.spec, needed(settings.size_px)), str(state.device))
    made = MadeLatents(items, pictures.read, vae, n_threads)
    folder = latents_folder(cache, vae, contents)
    n, n_few = len(items), min(len(items), N_TRIED)
    # Others each time, as what an interrupted run has encoded would stand for all.
    drawn = broadcast(torch.tensor(np.random.default_rng().integers(2**31), device=state.device))
    rows = np.random.default_rng(int(drawn)).choice(n, n_few, replace=False)
    with state.main_process_first():
        few, few_s = see([items[row] for row in rows])
    tried: Latents | None = shared_latents(few, vae)
    n_lacking, made_s = 0, 0.0
    if tried is None:
        made[rows[:1]]  # the first one is slow
        encoded, made_s = timed(lambda: made[rows])
        tried = encoded
        n_lacking = n - n_kept(folder)
    steps = try_steps(tried, few, base, settings, adapter)
    keeps = torch.zeros(1, device=state.device)
    if state.is_main_process:
        numbers = sum(encoder.dim for encoder in few.encoders)
        estimate = Estimate(
            n_images=n,
            features_s=few_s / n_few * n if n_new else 0.0,
            features_bytes=4 * numbers * n_new * n // n_few,
            latents_s=made_s / n_few * n_lacking,
            latents_bytes=2 * vae.spec.dim * n_lacking,
            latent_s=made_s / n_few / state.num_processes,
            tried=steps,
        )
        keeps += estimate.keeps_latents(settings, cache)
        console.print(estimate.sentence(settings, cache, bool(keeps)), soft_wrap=True)
    keeps = broadcast(keeps)
    with state.main_process_first():
        features, _ = see(items)
        if (shared := shared_latents(features, vae)) is not None:
            return shared, features
        if not keeps:
            return made, features
        factor = base.vae.config["scaling_factor"]
        with bar("encoding latents") as tell:
            told = (vae, factor, folder, tell, console.print)
            return cache_latents(contents, pictures.read, *told), features
