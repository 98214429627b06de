"""The commands around the Fusion Prior: empty-prompt, prior, prior-gap.

What they do is imported when one is called: diffusers alone takes seconds, and most commands of
this program do without.
"""

from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from decoder.painting.spec import PRESETS as BASES
from decoder.painting.spec import read_base_spec
from offline_train.commands.options import Encoders, Images, Out, console
from offline_train.prior.settings import PRESETS

app = typer.Typer()

Base = Annotated[
    str, typer.Option(help=f"folder of a diffusion model, or one of {', '.join(BASES)}")
]
Cache = Annotated[Path, typer.Option(help="where features and latents are kept")]


@app.command()
def empty_prompt(base: Base = "sdxl-base") -> None:
    """Encodes the empty prompt of a diffusion model, once, so that painting needs no text encoder.

    Example: python -m offline_train empty-prompt --base sdxl-base
    """
    from offline_train.prior.empty_prompt import encode_empty_prompt

    for name, shape in encode_empty_prompt(read_base_spec(base)).items():
        console.print(f"{name}: {shape}", highlight=False)


@app.command()
def prior(
    out: Out,
    base: Base,
    images: Images = None,
    encoders: Encoders = None,
    preset: Annotated[
        Literal["paper", "released", "demo"],
        typer.Option(help="the paper's recipe, that of its released code, or for a small base"),
    ] = "paper",
    steps: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="over all GPUs")] = None,
    parts: Annotated[
        int | None, typer.Option(min=1, help="of a GPU's share of a batch, to save memory")
    ] = None,
    recompute: Annotated[
        bool | None, typer.Option(help="compute twice what would be kept, to save memory")
    ] = None,
    lr: Annotated[float | None, typer.Option(min=0.0)] = None,
    size: Annotated[int | None, typer.Option(min=8, help="of the pictures, pixels")] = None,
    dim: Annotated[int | None, typer.Option(min=1, help="width of the embedding")] = None,
    precision: Annotated[Literal["no", "bf16"] | None, typer.Option()] = None,
    samples: Annotated[
        int | None, typer.Option(min=0, help="images to paint and not to learn from")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="an IP-Adapter's safetensors file to begin with")
    ] = None,
    seed: int | None = None,
    device: Annotated[Literal["auto", "cpu"], typer.Option(help="auto: a GPU if any")] = "auto",
    cache: Cache = Path("features"),
    half: Annotated[bool, typer.Option("--half", help="write the weights in float16")] = False,
) -> None:
    """Trains a Fusion Prior: HVF, projector and IP-Adapter on a frozen diffusion model.

    A training that was interrupted goes on if it is started again. For its curves and pictures:
    tensorboard --logdir OUT-tensorboard. On several GPUs: accelerate launch -m offline_train ...

    Example: python -m offline_train prior --images train --encoders hvf.json --base sdxl-base ...
    """
    from offline_train.prior.run import train_on_files

    given = {"steps": steps, "batch_size": batch_size, "lr": lr, "size_px": size, "dim": dim}
    given |= {"parts": parts, "recompute": recompute, "precision": precision}
    given |= {"n_samples": samples, "seed": seed, "device": device}
    settings = PRESETS[preset].model_copy(update={k: v for k, v in given.items() if v is not None})
    dtype = torch.float16 if half else torch.float32
    train_on_files(images, encoders, base, settings, start_from, cache, out, dtype)


@app.command()
def prior_gap(
    bundle: Annotated[Path, typer.Option(help="folder of the bundle")],
    prior: Annotated[Path, typer.Option(help="folder of the Fusion Prior")],
    trials: Annotated[Path, typer.Option(help="folder of a trial set")],
    images: Images = None,
    encoders: Encoders = None,
    cache: Cache = Path("features"),
) -> None:
    """How brain embeddings differ from those of images, and what painting does about it.

    Example: python -m offline_train prior-gap --bundle b --prior p --trials held_out --images test
    """
    from offline_train.prior.run import tell_gap

    tell_gap(bundle, prior, trials, images, encoders, cache)
