"""The images that were shown, in the `stimuli/` of a data set, as BEP044 has them.

An image is written anew from its pixels: EXIF data, as of where it was taken, stay behind.
"""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from hvf_core.problem import Problem, naming
from index.gallery import Gallery
from index.images import read_image
from stream.exports.finished import Say
from stream.exports.tables import cell, read_json, read_tsv, write_json, write_tsv

_COLUMNS = {
    "stimulus_id": {"Description": "Of the stimulus in this data set; events have it in stim_id"},
    "type": {"Description": "Kind of the stimulus", "Levels": {"image": "A still image"}},
    "original_id": {"Description": "Of the stimulus in the markers and in the gallery"},
    "description": {"Description": "What the image shows"},
    "present": {
        "Description": "Whether the image is in this folder",
        "Levels": {"true": "It is", "false": "It was not there, or may not be shared"},
    },
    "URL": {"Description": "Where the image can be had"},
    "license": {"Description": "Under which the image may be used"},
    "copyright": {"Description": "Whose the image is"},
}


@dataclass(frozen=True)
class Stimulus:
    """What events say of a stimulus."""

    stim_id: str
    stim_file: str | None
    """Below `stimuli/`; None where there is no image."""


def write_stimuli(
    root: Path, shown: Iterable[str], gallery: Gallery | None, say: Say
) -> Mapping[str, Stimulus]:
    """Adds stimuli to those of a data set; rows that are there stay as they are.

    Args:
        shown: ids, as markers had them.
        gallery: has the images.

    Returns:
        What events say of each.

    Raises:
        Problem: another image of that id is there.
    """
    folder = root / "stimuli"
    names, told = read_tsv(folder / "stimuli.tsv")
    rows = {row["original_id"]: row for row in told}
    taken = {row["stimulus_id"].lower() for row in told}
    stimuli: dict[str, Stimulus] = {}
    for original in dict.fromkeys(shown):
        key, number = str(cell(original)), gallery.row_of(original) if gallery is not None else None
        row = rows.setdefault(key, {"type": "image", "original_id": key})
        stim_id = row.setdefault("stimulus_id", _new_id(original, taken))
        taken.add(stim_id.lower())
        file = folder / f"{stim_id}_image.png"
        if gallery is not None and number is not None:
            row.setdefault("description", gallery.labels[number])
            is_elsewhere = row.get("URL", "n/a") != "n/a"  # as somebody has entered
            if gallery.images is not None and not is_elsewhere:
                _copy(gallery.images[number], file, original, say)
        row["present"] = str(file.is_file()).lower()
        stimuli[original] = Stimulus(stim_id, file.name if file.is_file() else None)
    write_tsv(folder / "stimuli.tsv", dict.fromkeys((*_COLUMNS, *names)), rows.values())
    write_json(folder / "stimuli.json", read_json(folder / "stimuli.json") | _COLUMNS)
    return stimuli


def _new_id(original: str, taken: set[str]) -> str:
    """`stim-` and a label of letters and digits alone, which no other stimulus has."""
    label = re.sub("[^0-9A-Za-z]", "", original)
    if not label or f"stim-{label}".lower() in taken:
        label += blake2b(original.encode(), digest_size=4).hexdigest()
    return f"stim-{label}"


def _copy(path: Path, to: Path, original: str, say: Say) -> None:
    pixels = io.BytesIO()
    try:
        Image.fromarray(read_image(path)).save(pixels, "PNG")  # and nothing but the pixels
    except Problem as problem:
        say(f"the image of '{original}' is left out: {problem}")
        return
    if to.is_file() and to.read_bytes() != pixels.getvalue():
        raise Problem(
            f"the stimulus '{original}' shows another image in '{to}' than in this session's "
            "gallery: export the session into another data set"
        )
    with naming(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(pixels.getvalue())
