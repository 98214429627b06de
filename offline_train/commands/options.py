"""Options that several commands share, a bar for whatever takes long, and features of images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from decoder.painting.spec import PRESETS as BASES
from hvf_core.options import Flag, called
from hvf_core.problem import Problem, WrongUsage
from hvf_core.screen import Screen
from index.encoders.spec import PRESETS as ENCODERS

if TYPE_CHECKING:  # what a command needs is imported when it runs: --help waits for nothing
    from index.images import read_image
    from offline_train.data.features import Features

TRAIN = called("hvf-train", "python -m offline_train")
LIVE = called("hvf-live", "python run_realtime.py")
Out = Annotated[Path, typer.Option(help="Folder to write")]
Trials = Annotated[Path, typer.Option(help="Folder of a trial set that was not trained on")]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="Folder of the bundle")]
PriorFolder = Annotated[Path, typer.Option("--prior", help="Folder of the Fusion Prior")]
Base = Annotated[
    str, typer.Option(help=f"Folder of a diffusion model, or one of {', '.join(BASES)}")
]
Images = Annotated[
    Path | None, typer.Option(help="Folder of images; a file's name is its stimulus id")
]
Labels = Annotated[
    bool, Flag("--labels", help="The stimulus ids are classes: no images, no encoders")
]
Encoders = Annotated[
    str | None, typer.Option(help=f"JSON list of image encoders, or one of {', '.join(ENCODERS)}")
]
Cache = Annotated[Path, typer.Option(help="Where features and latents are kept")]

console = Screen()


@contextmanager
def bar(text: str) -> Iterator[Callable[..., None]]:
    """Shows how far something is; yields what is told `done, total` and perhaps a new text."""
    with Progress(console=console) as progress:
        task = progress.add_task(text, total=None)
        yield lambda done, total, description=None: progress.update(
            task, completed=done, total=total, description=description
        )


def features_of(
    items: Sequence[str],
    images: Path | None,
    encoders: str | None,
    cache: Path,
    labels: bool = False,
) -> "Features":
    """What image encoders see in the images of these stimuli; or, of classes, one-hot vectors."""
    import torch

    from index.encoders.load import load_encoder
    from index.encoders.spec import read_specs
    from offline_train.data.features import extract_features, label_features
    from offline_train.data.images import image_files

    if labels:
        return label_features(sorted(items))
    if images is None or encoders is None:
        raise WrongUsage("give --images and --encoders; with --labels a bundle needs neither")
    files = image_files(images)
    absent = next((item for item in items if item not in files), None)
    if absent is not None:
        raise Problem(f"the folder '{images}' has no image of stimulus '{absent}'; add it")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = [load_encoder(spec, device) for spec in read_specs(encoders)]
    with bar("encoding images") as tell:
        return extract_features(items, lambda item: read_image(files[item]), loaded, cache, tell)
