"""The painter of the painting node: a Fusion Prior on a diffusion model.

This is the only part of it that knows torch.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from decoder.bundle import MANIFEST, open_bundle
from decoder.devices import device_of
from decoder.painting.base import DiffusionBase, load_base
from decoder.painting.previews import Grade, encode
from decoder.painting.prior import PRIOR, Prior, check_bundle, check_fits, load_prior
from decoder.painting.sampler import Sampler, SamplerSettings
from decoder.painting.spec import read_base_spec
from decoder.painting.step import Start, Step
from hvf_core.artifact import file_sha256
from hvf_core.problem import Problem, needed
from index.encoders.parts import squared
from index.images import read_image
from stream.pipeline.galleries import open_accepted
from stream.pipeline.nodes.easel import OutOfMemory
from stream.pipeline.wire.config import PaintingSettings, SessionConfig
from stream.pipeline.wire.messages import Embedded

_RESERVED_CORES = 3  # for the source of the streams, the reader and the decoder
_MAX_HALVINGS = 2
# Allocators other than CUDA's raise a plain RuntimeError.
_ALLOCATION = re.compile(
    r"out of memory|(can't|cannot) allocate memory|ALLOC_FAILED", re.IGNORECASE
)


def open_painter(config: SessionConfig) -> "DiffusionPainter":
    """Loads what a session paints with, and paints once to warm up.

    Raises:
        Problem: weights are missing or damaged, or do not fit each other or the bundle; or there is
            no such device.
        OutOfMemory: the memory does not suffice.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - _RESERVED_CORES))
    settings, bundle = needed(config.painting), needed(config.bundle)
    device = device_of(settings.device, last=True)
    with _memory_told():
        prior = load_prior(settings.prior)
        check_bundle(prior, open_bundle(bundle).manifest)
        spec = read_base_spec(settings.base or prior.manifest.base)
        base = load_base(
            spec,
            device=device,
            dtype=torch.float16 if device.type == "cuda" else torch.float32,
        )
        check_fits(prior, base)
        painter = DiffusionPainter(prior, base, config)
        painter.warm_up()
    painter.facts |= {
        "prior": file_sha256(settings.prior / PRIOR),
        "bundle": file_sha256(bundle / MANIFEST),
    }
    return painter


class DiffusionPainter:
    """Paints embeddings of a brain, one at a time.

    Args:
        prior: makes conditions of embeddings, and has the adapter.
        base: the diffusion model; from now on its UNet has the adapter's processors.
        config: how to paint, and where the first images of answers are, to begin with them.

    Raises:
        Problem: the settings ask for what the base or the gallery does not have.
    """

    def __init__(self, prior: Prior, base: DiffusionBase, config: SessionConfig):
        self._prior, self._base = prior, base
        self.facts: dict[str, Any] = {}
        self.adopt(config)

    def adopt(self, config: SessionConfig) -> None:
        """As `stream.pipeline.nodes.easel.Painter` says."""
        settings, base, prior = needed(config.painting), self._base, self._prior
        gallery = open_accepted(config) if settings.from_top is not None else None
        if gallery is not None and gallery.images is None:
            raise Problem(
                "the gallery has no images to begin with: make it from images with "
                "`offline_train gallery`, or leave --from-top out"
            )
        preview = settings.preview or _usual_preview(base)
        self._sampler = Sampler(
            base,
            prior.adapter,
            SamplerSettings(
                steps=settings.steps,
                guidance=settings.guidance,
                size_px=_size_px(settings, base.spec.size_px),
                ip_scale=settings.ip_scale,
                preview=preview,
                channels_last=base.device.type == "cuda",
                captured=True,
            ),
        )
        self._gallery, self._strength = gallery, settings.from_top
        self._skip_projector = settings.skip_projector
        self.facts |= {
            "base": base.spec.name,
            "device": base.device.type,
            "precision": str(base.dtype).removeprefix("torch."),
            "size_px": self._sampler.size_px,
            "steps": self._sampler.steps,
            "preview": preview,
        }
        self.about = (
            f"{base.spec.name} paints {self._sampler.size_px} px in {self._sampler.steps} steps "
            f"on {self.facts['device']} in {self.facts['precision']}"
        )

    def warm_up(self) -> None:
        """Paints once, so that the first trial does not wait for what is done only once."""
        self._sampler.warm_up()

    def paint(
        self, job: Embedded, seed: int, on_step: Callable[[Step], bool], start: Start | None
    ) -> np.ndarray | None:
        """As `stream.pipeline.nodes.easel.Painter` says."""
        with _memory_told():
            z = torch.from_numpy(np.array(job.array, np.float32))[None]
            z_c = self._prior.condition(z, skip_projector=self._skip_projector)
            pixels = self._sampler.paint(z_c, [seed], on_step, start or self._top(job.top_id))
        return None if pixels is None else pixels[0]

    def _top(self, id_: str) -> Start | None:
        """An image of the gallery to begin with; None where nothing is begun with one."""
        gallery, strength = self._gallery, self._strength
        if gallery is None or strength is None:
            return None
        row = gallery.row_of(id_)
        path = None if row is None else gallery.image_of(row)
        if path is None:
            raise Problem(
                f"the gallery no longer holds '{id_}', with which the image was to begin: the "
                "gallery was changed after this answer"
            )
        picture = squared(read_image(path), self._sampler.size_px)
        return Start(encode(self._base, picture), strength)


def _usual_preview(base: DiffusionBase) -> Grade:
    if base.tiny_vae is not None:
        return "tiny"
    return "linear" if base.spec.latent_rgb is not None else "none"


def _size_px(settings: PaintingSettings, usual_px: int) -> int:
    wanted_px = settings.size_px or usual_px
    if settings.halvings > _MAX_HALVINGS:
        raise Problem(
            f"the memory does not suffice to paint even {wanted_px >> _MAX_HALVINGS} px: end other "
            "programs that use it, or give a smaller model with --base"
        )
    return max(8, (wanted_px >> settings.halvings) // 8 * 8)


@contextmanager
def _memory_told() -> Iterator[None]:
    """Turns whatever an allocator raises into `OutOfMemory`."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory("the memory of the machine does not suffice") from error
    except (RuntimeError, Problem) as error:  # a Problem where weights were being loaded
        text = " ".join(str(error).split())
        if not _ALLOCATION.search(text):
            raise
        raise OutOfMemory(text[:200]) from error
