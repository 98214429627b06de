"""The latents that a Fusion Prior is trained on: made once, read from disk as they are needed.

A memory-mapped array, because those of ImageNet take more memory than a workstation has. They are
the mean latents times the VAE's scaling factor, encoded in float32 and kept in float16.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from decoder.painting.spec import BaseSpec
from hvf_core.artifact import read_manifest, write_manifest
from hvf_core.problem import Problem
from hvf_core.specs import Frozen
from index.encoders.load import ImageEncoder
from index.encoders.spec import EncoderSpec
from offline_train.checkpoint import identify
from offline_train.data.features import BLOCK, Features

MANIFEST, ARRAY = "latents.json", "latents.npy"
_VERSION: Literal[1] = 1


class _LatentsManifest(Frozen):
    schema_version: Literal[1] = _VERSION
    items_sha256: str
    encoder: str
    """Checksum of the VAE's weights."""
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
        kind="autoencoder_kl",
        source=spec.vae or spec.source,
        subfolder=spec.vae_subfolder if spec.vae else "vae",
        dim=4 * (size_px // 8) ** 2,
        size_px=size_px,
    )


def shared_latents(features: Features, vae: ImageEncoder) -> np.ndarray | None:
    """The latents (images, 4, side, side) among the features, if one of the encoders is the VAE.

    It is if it has the same weights and gives as many numbers, hence sees pictures of that size.
    """
    side = vae.spec.size_px // 8
    for encoder in features.encoders:
        if (encoder.checksum, encoder.dim) == (vae.checksum, vae.spec.dim):
            return features.embeddings[encoder.name].reshape(-1, 4, side, side)
    return None


def latents_folder(cache: Path, vae: ImageEncoder, items: Sequence[str]) -> Path:
    """Where in a cache the latents of these images, by this VAE, lie."""
    name = f"latents-{vae.spec.size_px}px-{vae.checksum[:16]}-{identify(list(items))[:16]}"
    return cache / name


def cache_latents(
    items: Sequence[str],
    load_image: Callable[[str], np.ndarray],
    vae: ImageEncoder,
    scaling_factor: float,
    directory: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Encodes images, or goes on where an interrupted run of the same images was.

    Args:
        load_image: gives the uint8 (height, width, 3) image of an id.
        vae: of `vae_encoder`, loaded.
        scaling_factor: of the VAE; what `vae` gives has been multiplied with it.
        progress: told how many images are done, and of how many.

    Returns:
        float16 (items, 4, side, side), memory-mapped, to be read only.

    Raises:
        Problem: the directory holds latents of other images, of another VAE or size, or damaged
            ones; or the VAE gives values that are not finite.
    """
    side = vae.spec.size_px // 8
    shape = (len(items), 4, side, side)
    manifest = _LatentsManifest(
        items_sha256=identify(list(items)),
        encoder=vae.checksum,
        scaling_factor=scaling_factor,
        size_px=vae.spec.size_px,
        n_items=len(items),
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / ARRAY
    if (directory / MANIFEST).exists():
        found = read_manifest(directory, MANIFEST, _LatentsManifest, _VERSION)
        if found.model_copy(update={"blocks": ()}) != manifest:
            raise Problem(
                f"'{directory}' holds latents of other images, of another VAE or another size: "
                "delete it, or name another folder"
            )
        manifest = found
        array = _opened(path, shape, manifest.blocks)
    else:
        array = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    for first in range(len(manifest.blocks) * BLOCK, len(items), BLOCK):
        encoded = vae.encode([load_image(item) for item in items[first : first + BLOCK]])
        if not np.isfinite(encoded).all():
            raise Problem(
                f"the VAE '{vae.spec.source}' gives values that are not finite: its weights are "
                "damaged, fetch them again"
            )
        block = encoded.reshape(-1, *shape[1:]).astype(np.float16)
        array[first : first + len(block)] = block
        array.flush()  # before the manifest says that they are there
        manifest = manifest.model_copy(update={"blocks": (*manifest.blocks, _checksum(block))})
        write_manifest(directory / MANIFEST, manifest)
        progress(first + len(block), len(items))
    return np.load(path, mmap_mode="r")


def _opened(path: Path, shape: tuple[int, ...], checksums: Sequence[str]) -> np.memmap:
    try:
        array = np.load(path, mmap_mode="r+", allow_pickle=False)
        reason = f"it holds {array.dtype} of the shape {array.shape}, not float16 of {shape}"
        if array.shape == shape and array.dtype == np.float16:
            blocks = (array[i * BLOCK : (i + 1) * BLOCK] for i in range(len(checksums)))
            spoilt = [i for i, block in enumerate(blocks) if _checksum(block) != checksums[i]]
            if not spoilt:
                return array
            reason = f"those from image {spoilt[0] * BLOCK} on are not what was written"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise Problem(
        f"the latents in '{path}' are damaged ({reason}): delete the folder, they are made again"
    )


def _checksum(block: np.ndarray) -> str:
    return hashlib.sha256(block.tobytes()).hexdigest()[:16]
