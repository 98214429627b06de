"""TensorBoard of a Fusion Prior's training: its loss, and grids of what it paints by then."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from decoder.painting.base import DiffusionBase
from decoder.painting.sampler import Sampler, SamplerSettings
from hvf_core.problem import needed
from offline_train.prior.batches import Seen
from offline_train.prior.networks import PriorNetworks
from offline_train.prior.training import PriorProgress


class PriorBoard:
    """Writes what TensorBoard shows: `tensorboard --logdir DIRECTORY`.

    Args:
        directory: where to.
        pictures: the images that are looked at, uint8 (size, size, 3) each.
        features: of all images; those of the pictures are the last ones.
        base: what is trained on.
    """

    def __init__(
        self,
        directory: Path,
        pictures: Sequence[np.ndarray],
        features: Seen,
        base: DiffusionBase,
    ) -> None:
        self._writer = SummaryWriter(directory)
        self._base = base
        self._pictures = np.stack(pictures) if len(pictures) else None
        rows = np.arange(len(features.items))[len(features.items) - len(pictures) :]
        self._embeddings = {n: torch.from_numpy(x) for n, x in features.at(rows).items()}

    def tell(self, progress: PriorProgress) -> None:
        """Adds a point to the curves, where there is one."""
        if progress.loss is not None:
            self._writer.add_scalar("loss", progress.loss, progress.step)
            self._writer.add_scalar("gradient norm", progress.gradient_norm, progress.step)

    def look(self, step: int, networks: PriorNetworks) -> None:
        """Adds a grid: the pictures above, and below what is painted of them."""
        if self._pictures is None:
            return
        painted = self._painted(networks, self._pictures.shape[1])
        rows = np.concatenate([np.concatenate(list(r), axis=1) for r in (self._pictures, painted)])
        self._writer.add_image("seen, painted", rows, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    @torch.no_grad()
    def _painted(self, networks: PriorNetworks, size_px: int) -> np.ndarray:
        device = next(networks.parameters()).device
        embeddings = {name: x.to(device) for name, x in self._embeddings.items()}
        z_c = networks.projector(networks.hvf(embeddings))
        sampler = Sampler(
            self._base, networks.adapter(), SamplerSettings(size_px=size_px, preview="none")
        )
        return needed(sampler.paint(z_c, list(range(len(z_c)))))
