"""Which image each event code of THINGS-EEG2 means: by its table, or by the folders of images.

The codes are places in a list: training image (concept - 1) * 10 + within, test image = concept. An
image that is missing would shift all after it, so that nothing is taken that is not whole.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hvf_core.problem import Problem
from offline_train.data.images import IMAGE_SUFFIXES
from offline_train.data.saved import read_saved
from offline_train.data.study import ShownImage

TABLE = "image_metadata.npy"
_FOLDERS = {"train": ("training_images", "train_images"), "test": ("test_images",)}
_BESIDE = ("", "stimuli", "images", "Image_set")  # where images lie, from the data on upwards
_UP = 5


@dataclass(frozen=True)
class ThingsImages:
    """The images of each split by code, from 1 on."""

    path: Path
    """What says so."""
    by_split: Mapping[str, Sequence[ShownImage]]
    notices: tuple[str, ...] = ()
    """What a person should know of how they were found."""

    @property
    def shown(self) -> dict[str, ShownImage]:
        """All of them by id."""
        return {stem(one.path): one for images in self.by_split.values() for one in images}

    def ids(self, split: str) -> list[str]:
        """The id of each code of a split, code 1 first."""
        return [stem(one.path) for one in self.by_split[split]]

    def split_of(self, n: int, whose: str) -> str:
        """The split that has so many images."""
        sizes = {split: len(images) for split, images in self.by_split.items()}
        found = [split for split, size in sizes.items() if size == n]
        if len(found) != 1:
            told = ", ".join(f"{size} for {split}" for split, size in sizes.items())
            raise Problem(
                f"{whose} has {n} images and '{self.path}' names {told}, so nobody can say which "
                "image is which: give the images that were shown, none missing"
            )
        return found[0]


def stem(path: str) -> str:
    """The id of an image: the name of its file."""
    return re.split(r"[/\\]", path)[-1].rpartition(".")[0]


def concept_of(folder: str) -> str:
    """`aardvark` of `00001_aardvark`."""
    return re.sub(r"^\d+_", "", folder)


def things_images(near: Path, folder: Path | None, pickles: bool) -> ThingsImages:
    """Finds image_metadata.npy, or the folders of the images, in `folder` or near the data.

    Folders near the data that lack images are passed over where the table says what they hold.

    Raises:
        Problem: neither is there; or an image is missing.
    """
    places = [folder] if folder is not None else []
    places += [up / name for up in list(near.absolute().parents)[:_UP] for name in _BESIDE]
    tables = [place / TABLE for place in places if (place / TABLE).is_file()]
    roots = [place for place in places if _folder(place, "train") and _folder(place, "test")]
    if tables and (pickles or not roots):
        root = roots[0] if roots else None
        return _of_table(tables[0], root, root == folder, pickles)
    if roots:
        return ThingsImages(
            roots[0], {split: tuple(_of_folder(roots[0], split)) for split in _FOLDERS}
        )
    raise Problem(
        f"which images '{near}' is about is not known: put {TABLE} beside the data, or give "
        "--images FOLDER with training_images/ and test_images/ in it"
    )


def _folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in _FOLDERS[split] if (root / name).is_dir()), None)


def _of_table(path: Path, root: Path | None, is_asked_for: bool, pickles: bool) -> ThingsImages:
    table = read_saved(path, pickles)
    by_split, absent = {}, []
    for split, (name, *_) in _FOLDERS.items():
        concepts, files = (table.get(f"{split}_img_{what}", ()) for what in ("concepts", "files"))
        if not len(files) or len(concepts) != len(files):
            raise Problem(
                f"'{path}' names {len(files)} files and {len(concepts)} concepts for {split}, "
                "expected as many, and some: download it again"
            )
        below = _folder(root, split) if root is not None else None
        for concept, file in zip(concepts, files, strict=True):
            if below is not None and not (below / concept / file).is_file():
                absent.append(below / concept / file)
        by_split[split] = tuple(
            ShownImage(f"{below.name if below else name}/{concept}/{file}", concept_of(concept))
            for concept, file in zip(concepts, files, strict=True)
        )
    if not absent:
        return ThingsImages(path, by_split)
    if is_asked_for:
        raise Problem(
            f"the image '{absent[0]}' is missing, which '{path}' names: put it back, or leave out "
            "--images"
        )
    notice = f"'{root}' is passed over, as it lacks {len(absent)} images, first '{absent[0]}'"
    return replace(_of_table(path, None, False, pickles), notices=(notice,))


def _of_folder(root: Path, split: str) -> Iterator[ShownImage]:
    below = _folder(root, split)
    assert below is not None
    concepts = sorted(place for place in below.iterdir() if place.is_dir())
    images = [
        sorted(
            file
            for file in concept.iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("stim-")
        )
        for concept in concepts
    ]
    per_concept = max(map(len, images), default=0)
    for number, (concept, files) in enumerate(zip(concepts, images, strict=True), 1):
        if not concept.name.startswith(f"{number:05d}_") or len(files) != per_concept:
            raise Problem(
                f"'{concept}' is folder {number} of '{below}' and holds {len(files)} images, "
                f"expected folder {number:05d}_NAME of {per_concept}: an image is missing, and "
                "every code after it would mean another one; put it back"
            )
        for file in files:
            yield ShownImage(file.relative_to(root).as_posix(), concept_of(concept.name))
