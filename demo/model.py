"""The demo's brain model: shipped small, unpacked once into a bundle and a gallery.

What is shipped keeps half precision, takes the HVF from the shipped Fusion Prior, and leaves out
the gallery's images, which are drawn. `python -m demo train` makes it.
"""

import hashlib
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.numpy import load_file

from decoder.bundle import (
    MANIFEST,
    SCHEMA_VERSION,
    SEEN,
    BundleManifest,
    Part,
    load_bundle,
    save_bundle,
)
from demo.settings import ASSETS, PRIOR
from demo.stimuli import gallery_stimuli, render
from hvf_core.artifact import (
    cache_folder,
    check_files,
    read_manifest,
    write_manifest,
    write_tensors,
)
from hvf_core.problem import Problem
from hvf_core.specs import loading
from index.gallery import Gallery, open_gallery, save_gallery
from index.gallery.manifest import SCHEMA_VERSION as GALLERY_VERSION

COMMAND = "python -m demo train"
SHIPPED = ASSETS / "model"
_HVF = PRIOR / "hvf.safetensors"
_DRAFT, _DRAFT_S = ".demo-", 3600.0  # one that is older is nobody's: unpacking takes seconds
_WAY_OUT = "get it again from where the program is from"
# What the cache holds was made by these: another place is taken where they change.
_MADE_BY = (Path(__file__), *sorted(Path(__file__).parent.glob("**/world/*.py")))


@dataclass(frozen=True)
class DemoModel:
    """Folders of the demo's bundle and gallery."""

    bundle: Path
    gallery: Path


def ready_model() -> DemoModel:
    """The demo's model in the cache of this machine, unpacked now where it is not there yet.

    Raises:
        Problem: the cache cannot be written, or what is shipped is damaged.
    """
    folder = cache_folder() / f"demo-{_checksum()}"
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep(folder.parent)
            with TemporaryDirectory(prefix=_DRAFT, dir=folder.parent) as draft:
                unpack(SHIPPED, Path(draft) / folder.name)
                _settle(Path(draft) / folder.name, folder)
        except OSError as error:
            raise Problem(
                f"the cache '{folder.parent}' cannot be written ({error.strerror}): set "
                "HVF_LIVE_CACHE to a folder that can"
            ) from None
    return DemoModel(folder / "bundle", folder / "gallery")


def pack(model: DemoModel, folder: Path) -> None:
    """Writes what is shipped of a model: the reverse of `unpack`, but for rounding."""
    bundle, gallery = load_bundle(model.bundle), open_gallery(model.gallery)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "brain": _halved(bundle.arrays("brain")),
        "preprocessing": bundle.arrays("preprocessing"),
        "gallery": _halved({"embeddings": gallery.counted}),
        "seen": {**(seen := bundle.arrays(SEEN)), **_halved({"trials": seen["trials"]})},
    }
    files = {
        f"{part}.safetensors": write_tensors(folder / f"{part}.safetensors", arrays)
        for part, arrays in parts.items()
    }
    write_manifest(folder / MANIFEST, bundle.manifest.model_copy(update={"files": files}))


def unpack(shipped: Path, folder: Path) -> DemoModel:
    """Writes `bundle` and `gallery` into a folder: all that a session needs.

    Raises:
        Problem: what is shipped is damaged.
    """
    manifest = read_manifest(shipped, MANIFEST, BundleManifest, SCHEMA_VERSION)
    check_files(shipped, manifest.files)
    parts: dict[Part, dict[str, np.ndarray]] = {
        "brain": _whole(shipped / "brain.safetensors"),
        "hvf": _whole(_HVF),
        "preprocessing": load_file(shipped / "preprocessing.safetensors"),
        SEEN: load_file(shipped / "seen.safetensors"),
    }
    parts[SEEN]["trials"] = parts[SEEN]["trials"].astype(np.float32)
    save_bundle(folder / "bundle", manifest, parts)
    tests = gallery_stimuli()
    embeddings = _whole(shipped / "gallery.safetensors")["embeddings"]
    gallery = Gallery(
        ids=tuple(stimulus.id for stimulus in tests),
        labels=tuple(stimulus.concept.name for stimulus in tests),
        embeddings=embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        space=manifest.space,
        image_encoders=manifest.image_encoders,
        created_by=COMMAND,
    )
    save_gallery(folder / "gallery", gallery, [render(stimulus) for stimulus in tests])
    return DemoModel(folder / "bundle", folder / "gallery")


def _halved(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def _whole(path: Path) -> dict[str, np.ndarray]:
    with loading("a part of the demo's model", str(path), _WAY_OUT):
        return {name: array.astype(np.float32) for name, array in load_file(path).items()}


def _sweep(cache: Path) -> None:
    """Removes the drafts of runs that were killed."""
    for draft in cache.glob(f"{_DRAFT}*"):
        with suppress(FileNotFoundError):  # somebody else has removed it
            if time.time() - draft.stat().st_mtime > _DRAFT_S:
                shutil.rmtree(draft)


def _settle(made: Path, folder: Path) -> None:
    """Moves what was made to its place, unless another run was there first."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _checksum() -> str:
    """Names what is shipped, and what unpacks it."""
    digest = hashlib.sha256(bytes([GALLERY_VERSION]))
    for path in (*_MADE_BY, _HVF, SHIPPED / MANIFEST):  # which has the checksums of the rest
        with loading("a part of the demo's model", str(path), _WAY_OUT):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
