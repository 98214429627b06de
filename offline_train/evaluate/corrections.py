"""What all queries of a test set together tell of each, without labels.

Results with any of these are *transductive*, and to be compared with published ones of that kind
alone: a live answer, which knows no later query, never is.
"""

from collections.abc import Collection
from typing import Literal

import numpy as np

Correction = Literal["whitening", "csls"]
SHRINKAGE = 0.2
"""Of SATTC's whitening (CVPR 2026): of the covariance towards a multiple of the identity."""
NEIGHBOURS = 10
"""Of CSLS (Conneau et al., ICLR 2018), and of SATTC."""
SAID: dict[Correction, str] = {
    "whitening": f"the subject's embeddings centred and whitened (shrinkage {SHRINKAGE:g})",
    "csls": f"hubs corrected by CSLS (k = {NEIGHBOURS})",
}


def corrected(
    queries: np.ndarray, gallery: np.ndarray, corrections: Collection[Correction]
) -> np.ndarray:
    """Scores of all queries of a subject, in place of inner products.

    Args:
        queries: float32 (n, dim); their lengths weigh the scores, as they do inner products.
        gallery: float32 (n_gallery, dim), L2-normalised.
        corrections: which; whitening comes first.

    Returns:
        float32 (n, n_gallery).
    """
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    unit = queries / lengths
    if "whitening" in corrections:
        unit = _whitened(unit)
    cosines = unit @ gallery.T
    if "csls" in corrections:
        cosines = 2 * cosines - _nearest(cosines, axis=1) - _nearest(cosines, axis=0)
    return (lengths * cosines).astype(np.float32)


def _whitened(unit: np.ndarray) -> np.ndarray:
    """Centred, times the inverse root of the shrunk covariance, and of unit length again.

    By the queries' own singular vectors, as what is orthogonal to all of them is only scaled.
    """
    centred = unit - unit.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    variances = sizes**2 / max(1, len(unit) - 1)
    shrunk = (1 - SHRINKAGE) * variances + SHRINKAGE * variances.sum() / unit.shape[1]
    white = (centred @ axes.T / np.sqrt(np.maximum(shrunk, 1e-12))) @ axes
    return white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)


def _nearest(cosines: np.ndarray, axis: int) -> np.ndarray:
    """The mean of the largest ones along an axis."""
    k = min(NEIGHBOURS, cosines.shape[axis])
    largest = np.partition(cosines, -k, axis=axis).take(range(-k, 0), axis=axis)
    return largest.mean(axis=axis, keepdims=True)
