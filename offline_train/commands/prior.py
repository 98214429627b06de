"""prior: trains a Fusion Prior on a folder of images."""

import zlib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer

from hvf_core.options import Asked, Flag, with_settings
from hvf_core.problem import Problem, needed
from hvf_core.provenance import command_line
from offline_train.commands.options import (
    CHECKPOINTS,
    TRAIN,
    Base,
    Cache,
    Encoders,
    Images,
    Out,
    bar,
    console,
    features_of,
)
from offline_train.prior.settings import PRESETS, PriorSettings


@with_settings(PriorSettings)
def prior(
    out: Out,
    base: Base,
    asked: Asked[PriorSettings],
    images: Images = None,
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
    from accelerate import PartialState

    from decoder.painting.base import load_base
    from decoder.painting.prior import PRIOR, read_adapter
    from decoder.painting.spec import read_base_spec
    from hvf_core.artifact import refuse_taken
    from index.encoders.load import load_encoder
    from index.encoders.parts import square_picture
    from offline_train.data.images import image_files
    from offline_train.data.latents import (
        cache_latents,
        latents_folder,
        shared_latents,
        vae_encoder,
    )
    from offline_train.prior.samples import PriorBoard
    from offline_train.prior.training import PriorProgress, make_prior, train_prior

    refuse_taken(out, PRIOR, "a prior")
    settings = asked.settings(dict(PRESETS[preset]))
    adapter = None if start_from is None else read_adapter(start_from)
    # In no order, so that the images that are only looked at, the last ones, are of all kinds.
    items = sorted(image_files(images), key=lambda item: (zlib.crc32(item.encode()), item))

    # Where several processes train, the others wait until the first has encoded all images.
    state = PartialState(cpu=settings.device == "cpu", timeout=timedelta(days=7))
    console.quiet = not state.is_main_process
    loaded = load_base(read_base_spec(base))
    size_px = settings.size_px or loaded.spec.size_px
    with state.main_process_first():
        pictures, features = features_of(items, images, encoders, cache)
        vae = load_encoder(vae_encoder(loaded.spec, size_px), str(state.device))
        latents = shared_latents(features, vae)
        if latents is None:
            factor = loaded.vae.config["scaling_factor"]
            contents, read, say = pictures.contents, pictures.read, console.print
            folder = latents_folder(cache, vae, contents)
            with bar("encoding latents") as tell:
                latents = cache_latents(contents, read, vae, factor, folder, tell, say)
    board = None
    if state.is_main_process:
        looked_at = items[max(0, len(items) - settings.n_samples) :]
        squares = [square_picture(pictures.read(item), size_px) for item in looked_at]
        board = PriorBoard(out.with_name(f"{out.name}-tensorboard"), squares, features, loaded)
    with bar("training the prior") as tell:

        def follow(step: PriorProgress) -> None:
            needed(board).tell(step)  # only the first process is told
            text = f"training the prior, loss {step.loss:.4f}" if step.loss else None
            tell(step.step, step.n_steps, text)

        try:
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
    make_prior(out, trained, features, loaded, settings, command_line(), dtype)
    console.print(f"prior in '{out}', last loss {trained.history[-1]['loss']:.4f}")
    console.print(f"next: {TRAIN} mbp TRIALS --prior {out} --images ...", soft_wrap=True)
