"""Options that several commands share, images that become features, an evaluation's report."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from hvf_core.numbers import numbers
from hvf_core.problem import Problem
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from offline_train.data.features import Features, extract_features, label_features
from offline_train.evaluate.pictures import write_pictures
from offline_train.evaluate.result import Evaluation

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
COMMAND = shlex.join(["python", "-m", "offline_train", *sys.argv[1:]])
console = Console()

Out = Annotated[Path, typer.Option(help="folder to write")]
Images = Annotated[
    Path | None, typer.Option(help="folder of images; a file's name is its stimulus id")
]
Encoders = Annotated[
    Path | None, typer.Option(help="JSON list of image encoders, or `paper`; `labels` need none")
]
Labels = Annotated[
    bool, typer.Option("--labels", help="the stimulus ids are classes: no images, no encoders")
]


def features_of(
    items: tuple[str, ...] | list[str],
    images: Path | None,
    encoders: Path | None,
    labels: bool,
    cache: Path,
) -> Features:
    if labels:
        return label_features(sorted(items))
    if images is None or encoders is None:
        raise typer.BadParameter("give --images and --encoders, or --labels")
    files = {path.stem: path for path in image_files(images)}
    absent = next((item for item in items if item not in files), None)
    if absent is not None:
        raise Problem(f"the folder '{images}' has no image of stimulus '{absent}'; add it")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = [load_encoder(spec, device) for spec in read_specs(encoders)]
    with Progress(console=console) as progress:
        task = progress.add_task("encoding images", total=None)
        return extract_features(
            items,
            lambda item: read_image(files[item]),
            loaded,
            cache,
            lambda done, total: progress.update(task, completed=done, total=total),
        )


def image_files(folder: Path | None) -> list[Path]:
    if folder is None or not folder.is_dir():
        raise Problem(f"there is no folder of images '{folder}'; give one with --images")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise Problem(f"the folder '{folder}' holds no image; expected {', '.join(IMAGE_SUFFIXES)}")
    return files


def read_image(path: Path) -> np.ndarray:
    try:
        return np.array(Image.open(path).convert("RGB"))
    except OSError as error:
        raise Problem(f"the image '{path}' cannot be read ({error}); replace it") from None


def repeat_numbers(repeats: str) -> list[int]:
    """The whole numbers of `--repeats`."""
    found = numbers(repeats, "--repeats")
    if any(n != int(n) or n < 1 for n in found):
        raise typer.BadParameter(f"--repeats '{repeats}' is no list of numbers such as 1,4,20")
    return [int(n) for n in found]


def report(evaluation: Evaluation, out: Path | None) -> None:
    """Prints an evaluation and, into a folder, writes it as JSON and pictures."""
    console.print(evaluation.table())
    console.print(evaluation.selective_table())
    if out is not None:
        pictures = write_pictures(evaluation, out)
        text = evaluation.model_dump_json(indent=2) + "\n"
        (out / "evaluation.json").write_text(text, encoding="utf-8")
        console.print(f"in '{out}': evaluation.json, {', '.join(p.name for p in pictures)}")
