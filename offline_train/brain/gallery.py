"""Makes galleries: the HVF's embeddings of images, with their names; and what they are asked."""

import glob
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from pydantic import JsonValue
from torch.nn import functional

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle, ImageEncoderRecord
from decoder.evidence import Weights
from decoder.hvf import load_hvf
from hvf_core.artifact import sealed_directory, space_needed, write_manifest
from hvf_core.lock import alone_in
from hvf_core.problem import Problem
from index.encoders.load import load_encoders
from index.encoders.spec import read_specs
from index.gallery import MANIFEST, Gallery, open_gallery
from index.gallery.appending import Part, Row, Writer
from index.gallery.manifest import IMAGES, GalleryManifest, read_gallery_manifest
from index.images import read_image
from index.search.measure import Queries
from offline_train.checkpoint import identify
from offline_train.data.features import Features, check_encoders, records_of
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import check_trials, embed

BATCH = 1024
"""Images fused at a time."""
_MOST_QUERIES = 500
"""Of each sort."""
Progress = Callable[[int, int], None]


class Featured(Protocol):
    """Images of which there are features, all in memory or not."""

    @property
    def encoders(self) -> tuple[ImageEncoderRecord, ...]: ...

    def select(self, items: Sequence[str]) -> Features:
        """The features of these images, in this order."""


def build_gallery(
    ids: Sequence[str],
    labels: Sequence[str],
    features: Features,
    bundle: Bundle,
    created_by: str,
) -> Gallery:
    """Fuses images' features into a gallery in memory by a bundle's HVF.

    Args:
        ids: images, in the order of the gallery's rows.
        labels: name of each image, for people.
        features: of these images, and perhaps of others.

    Raises:
        Problem: when an image has no features, or an id comes twice.
    """
    rows = [Row(*names) for names in zip(ids, labels, strict=True)]
    return Gallery(
        ids=tuple(ids),
        labels=tuple(labels),
        embeddings=np.concatenate([part for _, part in fused(rows, features, bundle)]),
        space=bundle.manifest.space,
        image_encoders=features.encoders,
        created_by=created_by,
    )


def fused(
    rows: Sequence[Row],
    features: Featured,
    bundle: Bundle,
    progress: Progress = lambda done, total: None,
    first: int = 0,
) -> Iterator[Part]:
    """Rows from the `first` on and their fused embeddings, some at a time.

    Raises:
        Problem: an image has no features.
    """
    hvf = load_hvf(bundle)
    for start in range(first, len(rows), BATCH):
        some = rows[start : start + BATCH]
        found = features.select([row.id for row in some]).embeddings
        with torch.inference_mode():
            z = hvf({name: torch.from_numpy(array) for name, array in found.items()})
            embeddings = functional.normalize(z, dim=1).numpy()
        yield some, embeddings
        progress(start + len(some), len(rows))


def make_from_features(
    folder: Path,
    rows: Sequence[Row],
    contents: Sequence[str],
    features: Featured,
    bundle: Bundle,
    created_by: str,
    thumbnail_px: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Gallery:
    """Writes a gallery whole or not at all; killed, it goes on from there when it is called again.

    Args:
        folder: where to; a gallery that was there is replaced.
        rows: what it gets.
        contents: names the content of each image, as of `pictures_of`.
        features: of these images.
        bundle: whose HVF fuses them.
        created_by: the command that makes it.
        thumbnail_px: small copies of the images are kept, of at most so many pixels a side.
        progress: told how many of the images are done.

    Raises:
        Problem: an id comes twice, an image has no features or cannot be kept, the embeddings are
            nearly the same, or it cannot be written.
    """
    manifest = GalleryManifest(
        space=bundle.manifest.space,
        image_encoders=features.encoders,
        dim=bundle.manifest.embedding_dim,
    )
    told: list[JsonValue] = [
        [row.id, row.label, row.picture is None, content]
        for row, content in zip(rows, contents, strict=True)
    ]
    plan = identify([manifest.model_dump(mode="json"), told, thumbnail_px])
    folder = folder.resolve()
    begun = folder.with_name(f".{folder.name}.begun-{plan[:16]}")
    way_out = (
        f"make room and give the command again, which goes on from what it has left in '{begun}', "
        "or delete that folder"
    )
    with space_needed(folder, way_out):
        if not (begun / MANIFEST).is_file():
            (begun / IMAGES).mkdir(parents=True, exist_ok=True)
            write_manifest(begun / MANIFEST, manifest)
    with ExitStack() as stack:
        busy = f"'{folder}' is being made by another program: wait until it ends"
        stack.enter_context(alone_in(begun, busy))
        stack.enter_context(space_needed(folder, way_out))
        there = read_gallery_manifest(begun)
        n_counted = there.n_rows
        with Writer(begun, there, created_by, thumbnail_px) as writer:
            for some, embeddings in fused(rows, features, bundle, progress, n_counted):
                writer.add(some, embeddings)
                if writer.manifest.n_rows > n_counted:
                    n_counted = writer.commit().n_rows
            writer.commit()
        if (folder / MANIFEST).is_file():  # and is replaced
            stack.enter_context(alone_in(folder, busy))
        with sealed_directory(folder, MANIFEST) as draft:
            # The manifest first: killed in between, no rows count of which the files are gone.
            for path in sorted(begun.iterdir(), key=lambda path: path.name != MANIFEST):
                path.rename(draft / path.name)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.begun-*"):
        with suppress(Problem), alone_in(left, "somebody makes another one"):
            shutil.rmtree(left, ignore_errors=True)
    return open_gallery(folder)


def embed_picture(file: Path, bundle: Bundle, encoders: str) -> np.ndarray:
    """The embedding of one picture file, (dim,), by image encoders and a bundle's HVF.

    Raises:
        Problem: it cannot be read, or the bundle was trained with other encoders.
    """
    image = read_image(file)
    loaded = load_encoders(read_specs(encoders), "cpu")
    check_encoders(records_of(loaded), bundle.manifest.image_encoders, "the bundle")
    seen = {one.spec.name: one.embed([one.prepare(image)]) for one in loaded}
    features = Features((file.name,), records_of(loaded), seen)
    [(_, embeddings)] = fused([Row(file.name, file.name)], features, bundle)
    return embeddings[0]


def brain_queries(bundle: Bundle, trial_set: TrialSet) -> Queries:
    """The embeddings of trials and, where there are repeats, of their means, in random order.

    Raises:
        Problem: the trials are not preprocessed as the bundle needs them.
    """
    check_trials(bundle, trial_set)
    manifest, rng = bundle.manifest, np.random.default_rng(0)
    repeats = list(trial_set.repeats.values())
    alone = np.arange(len(trial_set))[:, None]
    together = [trials for trials in repeats if len(trials) > 1]
    groups = [
        sort[i] for sort in (alone, together) for i in rng.permutation(len(sort))[:_MOST_QUERIES]
    ]
    groups = [groups[i] for i in rng.permutation(len(groups))]
    vectors = embed(load_brain_encoder(bundle), trial_set.mean(groups))
    weights = Weights("mean", manifest.logit_scale, manifest.calibration)
    tmax_s = manifest.tmax_s
    temperatures = [weights.temperature(tmax_s, len(group)) for group in groups]
    return Queries(
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        weights.of_one(tmax_s) / np.array(temperatures),
        "brain",
    )
