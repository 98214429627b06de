"""The latents that a Fusion Prior is trained on: made once and kept, or made as they are needed.

Those of ImageNet take more memory than a workstation has, so they are read from a memory-mapped
array, or never all there. They are the mean latents times the VAE's scaling factor, encoded in
float32 and rounded to float16.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from decoder.painting.spec import BaseSpec
from hvf_core.artifact import read_manifest, whole_file, write_manifest
from hvf_core.problem import Problem
from hvf_core.specs import Frozen
from index.encoders.load import BATCH, ImageEncoder, same_encoder
from index.encoders.spec import EncoderSpec
from index.images import READING
from offline_train.checkpoint import identify
from offline_train.data.features import Encoded, Features
from offline_train.features.cache import BLOCK

MANIFEST, ARRAY = "latents.json", "latents.npy"
_VERSION: Literal[1] = 1


class _LatentsManifest(Frozen):
    schema_version: Literal[1] = _VERSION
    contents_sha256: str
    encoder: str
    """Checksum of the VAE's weights."""
    fingerprint: tuple[float, ...]
    """Of the VAE."""
    scaling_factor: float
    """That the mean latents have been multiplied with."""
    size_px: int
    n_items: int
    blocks: tuple[str, ...] = ()
    """Checksum of each block of `BLOCK` images that is done, in order."""


def vae_encoder(spec: BaseSpec, size_px: int) -> EncoderSpec:
    """A diffusion model's VAE as an image encoder."""
    return EncoderSpec(
        name="latents",
        kind="diffusers-vae",
        source=spec.vae or spec.source,
        subfolder=spec.vae_subfolder if spec.vae else "vae",
        dim=4 * (size_px // 8) ** 2,
        size_px=size_px,
    )


@dataclass(frozen=True)
class SharedLatents:
    """The latents (images, 4, side, side) that one of the image encoders gives."""

    features: Features | Encoded
    encoder: str
    side: int

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.features.items), 4, self.side, self.side

    def __getitem__(self, rows: NDArray[np.intp], /) -> NDArray[np.float32]:
        return self.features.at(rows)[self.encoder].reshape(-1, *self.shape[1:])


@dataclass(frozen=True)
class MadeLatents:
    """Latents (images, 4, side, side) that are made when they are asked for, and kept nowhere.

    One image is encoded at a time: what it gives does not depend on which others are asked for,
    and beside a training there is little memory.
    """

    items: Sequence[str]
    read: Callable[[str], NDArray[np.uint8]]
    """Gives the (height, width, 3) image of an id; threads call it."""
    vae: ImageEncoder
    n_threads: int = 1
    """That read images."""

    @property
    def shape(self) -> tuple[int, ...]:
        side = self.vae.spec.size_px // 8
        return len(self.items), 4, side, side

    def __getitem__(self, rows: NDArray[np.intp], /) -> NDArray[np.float16]:
        with ThreadPoolExecutor(self.n_threads) as threads:
            seen = threads.map(lambda row: self.vae.prepare(self.read(self.items[row])), rows)
            encoded = np.concatenate([self.vae.embed([one]) for one in seen])
        return _checked(encoded, self.vae).reshape(-1, *self.shape[1:]).astype(np.float16)


def shared_latents(features: Features | Encoded, vae: ImageEncoder) -> SharedLatents | None:
    """The latents among the features, if one of the encoders is the VAE.

    It is if it has the same weights and gives as many numbers, hence sees pictures of that size.
    """
    same = (vae.checksum, vae.spec.dim)
    names = (one.name for one in features.encoders if (one.checksum, one.dim) == same)
    found = next(names, None)
    return SharedLatents(features, found, vae.spec.size_px // 8) if found else None


def latents_folder(cache: Path, vae: ImageEncoder, contents: Mapping[str, str]) -> Path:
    """Where in a cache the latents of images of these contents, by this VAE, lie."""
    vae_name = f"{vae.spec.size_px}px-{vae.checksum[:16]}-{READING}"
    return cache / f"latents-{vae_name}-{identify(list(contents.values()))[:16]}"


def n_kept(directory: Path) -> int:
    """How many images' latents are in a folder, by what it says itself."""
    if not (directory / MANIFEST).exists():
        return 0
    found = read_manifest(directory, MANIFEST, _LatentsManifest, _VERSION)
    return min(found.n_items, len(found.blocks) * BLOCK)


def cache_latents(
    contents: Mapping[str, str],
    read: Callable[[str], np.ndarray],
    vae: ImageEncoder,
    scaling_factor: float,
    directory: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> np.ndarray:
    """Encodes images, or goes on where an interrupted run of the same images was.

    Args:
        contents: what names the content of each image, by its id.
        read: gives the uint8 (height, width, 3) image of an id; one is in memory at a time.
        vae: of `vae_encoder`, loaded.
        scaling_factor: of the VAE; what `vae` gives has been multiplied with it.
        progress: told how many images are done, and of how many.
        say: hears that some are damaged, which are made again.

    Returns:
        float16 (images, 4, side, side), memory-mapped, to be read only.

    Raises:
        Problem: the directory holds latents of other images, of another VAE or size; an image
            cannot be read; or the VAE gives values that are not finite.
    """
    items, side = tuple(contents), vae.spec.size_px // 8
    shape = (len(items), 4, side, side)
    manifest = _LatentsManifest(
        contents_sha256=identify(list(contents.values())),
        encoder=vae.checksum,
        fingerprint=vae.fingerprint,
        scaling_factor=scaling_factor,
        size_px=vae.spec.size_px,
        n_items=len(items),
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / ARRAY
    if (directory / MANIFEST).exists():
        found = read_manifest(directory, MANIFEST, _LatentsManifest, _VERSION)
        same = found.model_copy(update={"blocks": (), "fingerprint": vae.fingerprint}) == manifest
        if not same or not same_encoder(vae.fingerprint, found.fingerprint):
            raise Problem(
                f"'{directory}' holds latents of other images, of another VAE or another size: "
                "delete it, or name another folder"
            )
        n_whole = _n_whole(path, shape, found.blocks)
        if n_whole < len(found.blocks):
            say(f"the latents in '{path}' are damaged from image {n_whole * BLOCK} on: made again")
        manifest = found.model_copy(update={"blocks": found.blocks[:n_whole]})
    if not manifest.blocks:
        _make_room(path, shape)
    array = np.lib.format.open_memmap(path, "r+")
    for first in range(len(manifest.blocks) * BLOCK, len(items), BLOCK):
        encoded = _encoded(items[first : first + BLOCK], read, vae)
        block = _checked(encoded, vae).reshape(-1, *shape[1:]).astype(np.float16)
        array[first : first + len(block)] = block
        array.flush()  # before the manifest says that they are there
        manifest = manifest.model_copy(update={"blocks": (*manifest.blocks, _checksum(block))})
        write_manifest(directory / MANIFEST, manifest)
        progress(first + len(block), len(items))
    array.flags.writeable = False
    return array  # and not what by now is at `path`: another process may have begun there too


def _encoded(
    items: Sequence[str], read: Callable[[str], np.ndarray], vae: ImageEncoder
) -> np.ndarray:
    batches = (items[first : first + BATCH] for first in range(0, len(items), BATCH))
    return np.concatenate(
        [vae.embed([vae.prepare(read(item)) for item in batch]) for batch in batches]
    )


def _checked(latents: np.ndarray, vae: ImageEncoder) -> np.ndarray:
    if not np.isfinite(latents).all():
        raise Problem(
            f"the VAE '{vae.spec.source}' gives values that are not finite: its weights are "
            "damaged, fetch them again"
        )
    return latents


def _make_room(path: Path, shape: tuple[int, ...]) -> None:
    """Puts an empty array there; one that another process may have mapped is left to it."""
    with whole_file(path) as draft:
        np.lib.format.open_memmap(draft, "w+", np.float16, shape).flush()
        if hasattr(os, "posix_fallocate"):
            # Where a disk is full a write to what is mapped would end the process at once.
            with draft.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, draft.stat().st_size)


def _n_whole(path: Path, shape: tuple[int, ...], checksums: Sequence[str]) -> int:
    """How many blocks are what was written, up to the first that is not."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return 0
    if array.shape != shape or array.dtype != np.float16:
        return 0
    blocks = (array[i * BLOCK : (i + 1) * BLOCK] for i in range(len(checksums)))
    whole = (_checksum(block) == known for block, known in zip(blocks, checksums, strict=True))
    return next((i for i, is_whole in enumerate(whole) if not is_whole), len(checksums))


def _checksum(block: np.ndarray) -> str:
    return hashlib.sha256(block.tobytes()).hexdigest()[:16]
