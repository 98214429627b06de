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
from stream.exports.columns import AS_TEXT
from stream.exports.finished import Say
from stream.exports.tables import cell, read_json, read_tsv, write_json, write_tsv

_LONGEST = 60  # of a label, in characters
_COLUMNS = {
    "stimulus_id": {"Description": "Of the stimulus in this data set; events have it in stim_id"},
    "type": {"Description": "Kind of the stimulus", "Levels": {"image": "A still image"}},
    "original_id": {"Description": f"Of the stimulus in the markers and in the gallery{AS_TEXT}"},
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
    root: Path, draft: Path, shown: Iterable[str], gallery: Gallery | None, say: Say
) -> Mapping[str, Stimulus]:
    """Adds stimuli to those of a data set; rows that are there stay as they are.

    Args:
        draft: of the data set, which gets the table and images that are new.
        shown: ids, as markers had them.
        gallery: has the images.

    Returns:
        What events say of each.

    Raises:
        Problem: another image of that id is there.
    """
    there, folder = root / "stimuli", draft / "stimuli"
    names, told = read_tsv(there / "stimuli.tsv")
    rows = {row["stimulus_id"]: row for row in told}
    ids = {row["original_id"]: row["stimulus_id"] for row in told if _is_kept(row["original_id"])}
    taken = {stim_id.lower() for stim_id in rows}
    stimuli: dict[str, Stimulus] = {}
    for original in dict.fromkeys(shown):
        number = gallery.row_of(original) if gallery is not None else None
        stim_id = ids.get(original) or _new_id(original, taken)
        new = {"stimulus_id": stim_id, "type": "image", "original_id": str(cell(original))}
        row = rows.setdefault(stim_id, new)
        taken.add(stim_id.lower())
        name = f"{stim_id}_image.png"
        if gallery is not None and number is not None:
            row.setdefault("description", gallery.labels[number])
            is_elsewhere = row.get("URL", "n/a") != "n/a"  # as somebody has entered
            image = gallery.image_of(number)
            if image is not None and not is_elsewhere:
                _copy(image, there / name, folder / name, original, say)
        is_present = (there / name).is_file() or (folder / name).is_file()
        row["present"] = str(is_present).lower()
        stimuli[original] = Stimulus(stim_id, name if is_present else None)
    write_tsv(folder / "stimuli.tsv", dict.fromkeys((*_COLUMNS, *names)), rows.values())
    write_json(folder / "stimuli.json", read_json(there / "stimuli.json") | _COLUMNS)
    return stimuli


def _is_kept(original: str) -> bool:
    """Whether an id is found again in the table, and no other one looks like it there."""
    return "\\" not in original and cell(original) == original.strip() == original != "n/a"


def _new_id(original: str, taken: set[str]) -> str:
    """`stim-` and a label of letters and digits alone, which no other stimulus has.

    It has a hash where the label would be long, for the name of a file, or could be another id's;
    of an id that is not kept it is always the same.
    """
    label = re.sub("[^0-9A-Za-z]", "", original)
    is_unique = _is_kept(original) and f"stim-{label}".lower() not in taken
    if not (label and is_unique and len(label) <= _LONGEST):
        digest = blake2b(original.encode(errors="surrogatepass"), digest_size=8).hexdigest()
        label = label[: _LONGEST - len(digest)] + digest
    return f"stim-{label}"


def _copy(path: Path, there: Path, to: Path, original: str, say: Say) -> None:
    pixels = io.BytesIO()
    try:
        Image.fromarray(read_image(path)).save(pixels, "PNG")  # and nothing but the pixels
    except Problem as problem:
        say(f"the image of '{original}' is left out: {problem}")
        return
    if there.is_file():
        if there.read_bytes() == pixels.getvalue():
            return
        raise Problem(
            f"the stimulus '{original}' shows another image in '{there}' than in this session's "
            "gallery: export the session into another data set"
        )
    with naming(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(pixels.getvalue())
