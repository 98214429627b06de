"""What a Fusion Prior learns from, features and latents, made once it was told what that takes."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast
from numpy.typing import NDArray

from decoder.painting.base import DiffusionBase
from hvf_core.problem import needed
from index.encoders.load import load_encoder, load_encoders
from index.encoders.spec import EncoderSpec
from offline_train.data.features import Encoded, encode_images
from offline_train.data.images import Pictures
from offline_train.data.latents import (
    MadeLatents,
    cache_latents,
    latents_folder,
    n_kept,
    shared_latents,
    vae_encoder,
)
from offline_train.prior.batches import Latents
from offline_train.prior.estimate import N_TRIED, Estimate, timed, try_steps
from offline_train.prior.settings import PriorSettings
from offline_train.prior.training import Adapter

Bar = Callable[[str], AbstractContextManager[Callable[..., None]]]
"""Shows, while its block lasts, how far something is: it yields what is told `done, total`."""


class Preparation:
    """Features and latents of images, as every process of a training makes them.

    Args:
        pictures: the images.
        encoders: that see them.
        base: the diffusion model, whose VAE makes the latents.
        settings: of the training.
        cache: where what was made is kept.
        bar: shows how far it is.
        say: hears what a person should know.
    """

    def __init__(
        self,
        pictures: Pictures,
        encoders: Sequence[EncoderSpec],
        base: DiffusionBase,
        settings: PriorSettings,
        cache: Path,
        bar: Bar,
        say: Callable[[str], None],
    ) -> None:
        self._pictures, self._encoders, self._base = pictures, encoders, base
        self._settings, self._cache, self._bar, self._say = settings, cache, bar, say
        self._state = PartialState()
        self._items = tuple(pictures.contents)
        n_threads = max(1, min(16, (os.cpu_count() or 1) // self._state.num_processes))
        vae = vae_encoder(base.spec, needed(settings.size_px))
        self._vae = load_encoder(vae, str(self._state.device))
        self._made = MadeLatents(self._items, pictures.read, self._vae, n_threads)
        self._folder = latents_folder(cache, self._vae, pictures.contents)

    def all(self, start_from: Adapter | None) -> tuple[Latents, Encoded]:
        """Latents and features of all images, once it has said what the training will take.

        Args:
            start_from: as of `train_prior`.

        Raises:
            Problem: the disk has too little room, or as `encode_images`, `cache_latents` and
                `train_prior` do.
        """
        keeps_latents = self._keeps_latents(start_from)
        with self._state.main_process_first():
            features, _, _ = self._seen(self._items)
            if (shared := shared_latents(features, self._vae)) is not None:
                return shared, features
            if not keeps_latents:
                return self._made, features
            factor, read = self._base.vae.config["scaling_factor"], self._pictures.read
            with self._bar("encoding latents") as tell:
                told = (self._vae, factor, self._folder, tell, self._say)
                return cache_latents(self._pictures.contents, read, *told), features

    def _keeps_latents(self, start_from: Adapter | None) -> bool:
        """Whether they are kept on disk, as the first process decides for all, and says."""
        estimate = self._estimate(start_from)
        keeps = torch.zeros(1, device=self._state.device)
        if self._state.is_main_process:
            keeps += estimate.keeps_latents(self._settings, self._cache)
            self._say(estimate.sentence(self._settings, self._cache, bool(keeps)))
        return bool(broadcast(keeps))

    def _estimate(self, start_from: Adapter | None) -> Estimate:
        """What is ahead, as a few images and steps let expect."""
        n, n_few = len(self._items), min(len(self._items), N_TRIED)
        rows = self._drawn(n_few)
        with self._state.main_process_first():
            few, few_s, n_new = self._seen([self._items[row] for row in rows])
        latents: Latents | None = shared_latents(few, self._vae)
        n_lacking, made_s = 0, 0.0
        if latents is None:
            self._made[rows[:1]]  # the first one is slow
            encoded, made_s = timed(lambda: self._made[rows])
            latents = encoded
            n_lacking = n - n_kept(self._folder)
        return Estimate(
            n_images=n,
            features_s=few_s / n_few * n if n_new else 0.0,
            features_bytes=4 * sum(one.dim for one in few.encoders) * n_new * n // n_few,
            latents_s=made_s / n_few * n_lacking,
            latents_bytes=2 * self._vae.spec.dim * n_lacking,
            latent_s=made_s / n_few / self._state.num_processes,
            tried=try_steps(latents, few, self._base, self._settings, start_from),
        )

    def _drawn(self, n: int) -> NDArray[np.intp]:
        """Rows of some images, the same in all processes."""
        # Others each time, as what an interrupted run has encoded would stand for all.
        seed = torch.tensor(np.random.default_rng().integers(2**31), device=self._state.device)
        rng = np.random.default_rng(int(broadcast(seed)))
        return rng.choice(len(self._items), n, replace=False)

    def _seen(self, items: Sequence[str]) -> tuple[Encoded, float, int]:
        """What encoders see in images, the seconds that it took, and how many were new to them."""
        pictures, n_new = self._pictures, 0
        networks = load_encoders(self._encoders, str(self._state.device))  # until it returns
        some = {item: pictures.contents[item] for item in items}
        bare = pictures.contents.keys() - pictures.files.keys()
        with self._bar("encoding images") as tell:

            def follow(done: int, total: int) -> None:
                nonlocal n_new
                n_new = total
                tell(done, total)

            told = (self._cache, follow, self._say, bare)
            encoded, took_s = timed(lambda: encode_images(some, pictures.read, networks, *told))
        return encoded, took_s, n_new
