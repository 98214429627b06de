"""Features: the embeddings of images by frozen encoders, extracted once, kept by image id."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from decoder.bundle import ImageEncoderRecord
from hvf_core.problem import Problem
from index.encoders.health import refuse_collapsed
from index.encoders.load import ImageEncoder
from offline_train.checkpoint import identify

BLOCK = 256
"""Images between two writes to the cache: what an interruption costs at most."""


@dataclass(frozen=True, eq=False)
class Features:
    """Embeddings of images by every encoder; images and trials are joined by id, never by row."""

    items: tuple[str, ...]
    """Image ids."""
    encoders: tuple[ImageEncoderRecord, ...]
    embeddings: Mapping[str, np.ndarray]
    """float32 (items, dim) by the encoder's name, as the encoder gives them."""

    def select(self, items: Sequence[str]) -> "Features":
        """The features of these items, in this order.

        Raises:
            Problem: when there are none of one of them.
        """
        rows = {item: row for row, item in enumerate(self.items)}
        absent = next((item for item in items if item not in rows), None)
        if absent is not None:
            raise Problem(f"image {absent!r} has no features: extract them for all stimuli")
        order = [rows[item] for item in items]
        embeddings = {name: array[order] for name, array in self.embeddings.items()}
        return Features(tuple(items), self.encoders, embeddings)

    def check_encoders(self, wanted: Sequence[ImageEncoderRecord], whose: str) -> None:
        """Refuses features of other image encoders than a model was trained with."""
        if self.encoders != tuple(wanted):
            theirs = ", ".join(encoder.name for encoder in wanted)
            raise Problem(
                f"{whose} was trained with the image encoders {theirs}; give the same file with "
                "--encoders, or the same --labels in the same order"
            )


def label_features(labels: Sequence[str]) -> Features:
    """One-hot vectors in place of images' embeddings, to tell a few classes apart."""
    encoder = ImageEncoderRecord(name="label", dim=len(labels), checksum=identify(list(labels)))
    return Features(tuple(labels), (encoder,), {"label": np.eye(len(labels), dtype=np.float32)})


def extract_features(
    items: Sequence[str],
    load_image: Callable[[str], np.ndarray],
    encoders: Sequence[ImageEncoder],
    cache_dir: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Encodes images, or takes what was encoded before from the cache.

    The cache trusts ids: an image that changes needs another id, or another cache.

    Args:
        load_image: gives the uint8 (height, width, 3) image of an id; called once an image, and
            only for those that some encoder has not seen.
        encoders: frozen image encoders; each has a folder in the cache, named by its checksum.
        cache_dir: where embeddings are kept, written every `BLOCK` images.
        progress: told how many of the images to be encoded are done.

    Raises:
        Problem: when a cache file is damaged, or an encoder gives embeddings that are not finite
            or nearly the same for all images.
    """
    folders = {
        encoder.spec.name: cache_dir / f"{encoder.spec.name}-{encoder.checksum[:16]}"
        for encoder in encoders
    }
    known = {
        encoder.spec.name: _read_cache(folders[encoder.spec.name], encoder) for encoder in encoders
    }
    todo = [
        item for item in dict.fromkeys(items) if any(item not in seen for seen in known.values())
    ]
    for start in range(0, len(todo), BLOCK):
        block = todo[start : start + BLOCK]
        images = {item: load_image(item) for item in block}
        for encoder in encoders:
            seen = known[encoder.spec.name]
            unseen = [item for item in block if item not in seen]
            if unseen:
                embeddings = _encode(encoder, [images[item] for item in unseen])
                _append_to_cache(folders[encoder.spec.name], encoder, unseen, embeddings)
                seen.update(zip(unseen, embeddings, strict=True))
        progress(start + len(block), len(todo))
    found = {name: np.stack([seen[item] for item in items]) for name, seen in known.items()}
    for name, array in found.items():
        if len(items) > 1:
            refuse_collapsed(array, name)
    records = tuple(
        ImageEncoderRecord(name=e.spec.name, dim=e.spec.dim, checksum=e.checksum) for e in encoders
    )
    return Features(tuple(items), records, found)


def _encode(encoder: ImageEncoder, images: list[np.ndarray]) -> np.ndarray:
    embeddings = encoder.encode(images)
    if not np.isfinite(embeddings).all():
        raise Problem(
            f"image encoder {encoder.spec.name!r} gives values that are not finite: "
            "its weights are damaged, fetch them again"
        )
    return embeddings


def _append_to_cache(
    folder: Path, encoder: ImageEncoder, ids: list[str], embeddings: np.ndarray
) -> None:
    """Adds a file to the cache, named by its ids, so that it takes no other one's place."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{identify([*ids])[:16]}.safetensors"
    draft = path.with_suffix(f".draft-{os.getpid()}")
    metadata = {
        "ids": json.dumps(ids),
        "encoder": encoder.checksum,
        "sha256": hashlib.sha256(embeddings.tobytes()).hexdigest(),
    }
    save_file({"embeddings": embeddings}, draft, metadata)
    draft.replace(path)


def _read_cache(folder: Path, encoder: ImageEncoder) -> dict[str, np.ndarray]:
    known: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata()
                embeddings = file.get_tensor("embeddings")
            ids = json.loads(metadata["ids"])
            sound = (
                embeddings.dtype == np.float32
                and embeddings.shape == (len(ids), encoder.spec.dim)
                and metadata["encoder"] == encoder.checksum
                and metadata["sha256"] == hashlib.sha256(embeddings.tobytes()).hexdigest()
            )
        except (SafetensorError, KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise Problem(
                f"{path} is damaged or not of encoder {encoder.spec.name}: "
                "delete this file, its images are then encoded again"
            )
        known.update(zip(ids, embeddings, strict=True))
    return known
