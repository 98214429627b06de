"""Options that several commands share, a bar for whatever takes long, and features of images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from decoder.painting.spec import PRESETS as BASES
from hvf_core.options import Flag
from hvf_core.problem import WrongUsage
from hvf_core.screen import Screen
from index.encoders.spec import PRESETS, EncoderSpec, read_specs

if TYPE_CHECKING:  # what a command needs is imported when it runs: --help waits for nothing
    from decoder.bundle import ImageEncoderRecord
    from offline_train.data.features import Encoded, Features
    from offline_train.data.images import Pictures
    from offline_train.data.trial_set import TrialSet

Out = Annotated[Path, typer.Option(help="Folder to write")]
Trials = Annotated[Path, typer.Option(help="Folder of a trial set that was not trained on")]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="Folder of the bundle")]
PriorFolder = Annotated[Path, typer.Option("--prior", help="Folder of the Fusion Prior")]
Base = Annotated[
    str, typer.Option(help=f"Folder of a diffusion model, or one of {', '.join(BASES)}")
]
Images = Annotated[
    Path | None,
    typer.Option(help="Folder of images, whose names are stimulus ids; or a table of them"),
]
Labels = Annotated[
    bool, Flag("--labels", help="The stimulus ids are classes: no images, no encoders")
]


def _are_known(encoders: str | None) -> str | None:
    """Refuses encoders that nobody knows before anything is read."""
    if encoders is not None:
        read_specs(encoders)
    return encoders


Encoders = Annotated[
    str | None,
    typer.Option(
        callback=_are_known,
        help=f"Image encoders: {', '.join(PRESETS)}; others by their names or descriptions, with "
        "commas between them; or a JSON list (docs/encoders.md)",
    ),
]


def _is_no_file(cache: Path) -> Path:
    """Refuses a file in place of a cache; one that can only be read may know all that is asked."""
    if cache.exists() and not cache.is_dir():
        raise WrongUsage(f"--cache '{cache}' is a file: name a folder, or what is to be one")
    return cache


Cache = Annotated[
    Path, typer.Option(callback=_is_no_file, help="Where features and latents are kept")
]
CHECKPOINTS = "checkpoints"
"""Where in the cache the states of trainings are kept, wherever their results are to be."""

console = Screen()


def beside(bundle: Path) -> Path | None:
    """The gallery beside a bundle, in which a session looks by default, where one is there."""
    gallery = bundle.parent / "gallery"
    return gallery if gallery.is_dir() else None


@contextmanager
def bar(text: str) -> Iterator[Callable[..., None]]:
    """Shows how far something is; yields what is told `done, total` and perhaps a new text.

    Where it was told of nothing, as nothing was to be done, nothing stays on the screen.
    """
    with Progress(console=console) as progress:
        task = progress.add_task(text, total=None)
        try:
            yield lambda done, total, description=None: progress.update(
                task, completed=done, total=total, description=description
            )
        finally:
            progress.live.transient = progress.tasks[0].total is None


def test_trials(folder: Path) -> "TrialSet":
    """The test trials of a trial set; all of them where it does not tell these apart."""
    from offline_train.data.trial_set import load_trial_set

    trials = load_trial_set(folder)
    has_test = "split" in trials.table and "test" in trials.table["split"].present
    return trials.select(["test"], "split") if has_test else trials


def features_of(
    items: Sequence[str] | None,
    images: Path | None,
    encoders: str | None,
    cache: Path,
    blur_prior: bool = False,
    check: "Callable[[tuple[ImageEncoderRecord, ...]], None]" = lambda records: None,
) -> "tuple[Pictures, Features]":
    """The images of these stimuli, or all of a folder, and what image encoders see in them.

    In place of a folder there may be a table of images, as `features` writes one. For a blur prior
    they are seen at less blur and at more as well. The encoders are checked before they see any.
    """
    from offline_train.data.image_table import pictures_of_table
    from offline_train.data.images import passed_over, pictures_of
    from offline_train.features.blur import blurs_of, features_by_blur

    if images is None or encoders is None:
        raise WrongUsage("give --images and --encoders; with --labels a bundle needs neither")
    blurs = blurs_of(read_specs(encoders), blur_prior)
    for sentence in passed_over(images):
        console.print(sentence)
    with bar("reading images") as tell:
        of = pictures_of_table if images.is_file() else pictures_of
        pictures = of(images, items, tell)
    ids = tuple(pictures.contents)
    return pictures, features_by_blur(
        blurs,
        # Those of less blur and more, after the usual ones, are others than a model knows.
        lambda specs: encoded(pictures, specs, cache, *[check] * (specs == blurs[0])).select(ids),
    )


def encoded(
    pictures: "Pictures",
    specs: Sequence[EncoderSpec],
    cache: Path,
    check: "Callable[[tuple[ImageEncoderRecord, ...]], None]" = lambda records: None,
) -> "Encoded":
    """Images as image encoders see them, which are checked before they have to.

    What these have seen before is in the cache.
    """
    import torch

    from index.encoders.load import load_encoders
    from offline_train.data.features import encode_images, records_of

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_encoders(specs, device)
    check(records_of(loaded))
    with bar("encoding images") as tell:
        contents, say = pictures.contents, console.print
        bare = contents.keys() - pictures.files.keys()
        return encode_images(contents, pictures.read, loaded, cache, tell, say, bare)
