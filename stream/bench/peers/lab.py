"""What every peer does with an epoch: the bundle's network and gallery, as a lab would run them.

Baseline, the bundle's matrix over channels (whitening and choice), SciPy's polyphase resampling,
the network in torch and a flat FAISS index, each with one thread.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import faiss
import numpy as np
import torch
from scipy.signal import resample_poly

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import open_bundle
from index.gallery import open_gallery
from stream.acquire.preprocess import Preprocessing
from stream.bench.peers.job import Job

TOP_K = 5


class Lab:
    """A bundle and a gallery, opened.

    Attributes:
        ids: of the gallery's images; a marker's code is the place of its image, from 1.
        tmin_s, tmax_s: of an epoch, both included; the baseline is its part before 0.
        n_times: samples of an epoch, `n_before` of them before its onset's.
    """

    def __init__(
        self, bundle_folder: Path, gallery_folder: Path, channels: Sequence[str], rate_hz: float
    ):
        torch.set_num_threads(1)
        faiss.omp_set_num_threads(1)
        bundle, gallery = open_bundle(bundle_folder), open_gallery(gallery_folder)
        preprocessing = Preprocessing.of(bundle)
        settings = preprocessing.settings
        self.ids = gallery.ids
        self.tmin_s, self.tmax_s = (settings.baseline_s or (0.0, 0.0))[0], settings.tmax_s
        self.n_before = round(-self.tmin_s * rate_hz)
        self.n_times = self.n_before + round(self.tmax_s * rate_hz) + 1
        self._spatial = preprocessing.spatial_matrix(channels)
        self._ratio = Fraction(settings.rate_hz / rate_hz).limit_denominator(1000)
        self._n_out = settings.n_times
        self._network = load_brain_encoder(bundle)
        self._index = faiss.IndexFlatIP(gallery.embeddings.shape[1])
        self._index.add(np.ascontiguousarray(gallery.embeddings))

    @classmethod
    def of(cls, job: Job) -> "Lab":
        return cls(job.bundle, job.gallery, job.channels, job.rate_hz)

    def prepared(self, epoch: np.ndarray) -> np.ndarray:
        """What the network takes, of an epoch (channels, `n_times`): float32 (outputs, times)."""
        level = epoch[:, : self.n_before + 1].mean(axis=1, keepdims=True)
        trial = self._spatial @ (epoch - level)
        if self._ratio != 1:
            trial = resample_poly(trial, self._ratio.numerator, self._ratio.denominator, axis=1)
        return np.ascontiguousarray(trial[:, -self._n_out :], np.float32)

    def embedding(self, prepared: np.ndarray) -> np.ndarray:
        """Unit-length float32 (dim,)."""
        with torch.inference_mode():
            z = self._network(torch.from_numpy(prepared[None]))[0].numpy()
        return z / np.linalg.norm(z)

    def answer(self, epoch: np.ndarray, k: int = TOP_K) -> tuple[list[str], list[float]]:
        """The best images, best first, and their cosines."""
        z = self.embedding(self.prepared(epoch))
        scores, rows = self._index.search(z[None], k)
        return [self.ids[row] for row in rows[0].tolist()], scores[0].tolist()

    def image(self, marker: object) -> str:
        """That a marker tells of: a code or a name."""
        return marker if isinstance(marker, str) else self.ids[int(str(marker)) - 1]
