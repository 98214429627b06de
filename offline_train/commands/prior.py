"""prior: trains a Fusion Prior on images in folders and shards."""

from collections.abc import Callable
from functools import partial
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
    from offline_train.prior.samples import PriorBoard
    from offline_train.prior.training import PriorProgress


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
    from index.encoders.spec import read_specs
    from offline_train.prior.batches import n_learnt
    from offline_train.prior.images import find_images
    from offline_train.prior.preparing import Preparation
    from offline_train.prior.training import make_prior, train_prior
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
        how = (read_specs(encoders), loaded, settings, cache)
        say = partial(console.print, soft_wrap=True)
        latents, features = Preparation(pictures, *how, bar, say).all(adapter)  # and is gone
        board = None
        if state.is_main_process:
            board = _board(out, pictures, features, loaded, settings)
        look = None if board is None else board.look
        with bar("training the prior") as tell:
            told = (_follower(board, tell), cache / CHECKPOINTS, look, adapter)
            trained = train_prior(latents, features, loaded, settings, *told)
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


def _board(
    out: Path,
    pictures: "Pictures",
    features: "Encoded",
    base: "DiffusionBase",
    settings: PriorSettings,
) -> "PriorBoard":
    """TensorBoard's, of the images that are only looked at."""
    from index.encoders.parts import square_picture
    from offline_train.prior.samples import PriorBoard

    looked_at = features.items[len(features.items) - settings.n_samples :]
    size_px = needed(settings.size_px)
    squares = [square_picture(pictures.read(item), size_px) for item in looked_at]
    return PriorBoard(out.with_name(f"{out.name}-tensorboard"), squares, features, base)


def _follower(
    board: "PriorBoard | None", tell: Callable[..., None]
) -> "Callable[[PriorProgress], None]":
    """Shows on a bar, and on the board, how far a training is."""

    def follow(step: "PriorProgress") -> None:
        needed(board).tell(step)  # only the first process, which has it, is told
        text = None if step.loss is None else f"training the prior, loss {step.loss:.4f}"
        if step.step == step.n_steps:
            text = "painting samples, measuring the embeddings of all images"
        tell(step.step, step.n_steps, text)

    return follow
