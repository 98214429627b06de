"""The paper's scores of painted pictures, one number for each picture.

PixCorr and SSIM compare pixels; features of a network are compared by two-way identification or by
their correlation distance (Ozcelik and VanRullen, 2023; Scotti et al., 2024; HVF, ICLR 2026).
What does not vary, such as a picture of one colour, correlates with nothing: r is 0, not NaN.
"""

from collections.abc import Iterator

import numpy as np
import torch
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from torch.nn import functional

COMPARED_PX = 425
"""Size at which pixels are compared."""
_RESIZED = f"at {COMPARED_PX} px (bilinear, antialiased)"
PIXEL_SCORES = {
    "PixCorr": f"Pearson's r of all values of a painting and its image, {_RESIZED}; higher is "
    "better",
    "SSIM": f"structural similarity of a painting and its image in grey, {_RESIZED}, Gaussian "
    "weights of sigma 1.5, population covariance, range 1; higher is better",
}
"""Their exact definitions."""
PAIRS = {
    "two_way": "two-way identification: for each painting j the share of all other images i with "
    "r(i, j) < r(j, j), Pearson's r; chance 0.5, higher is better",
    "distance": "1 - Pearson's r of a painting and its image; lower is better",
}
"""How features are compared."""
_ROUNDING = 1e-6  # relative to the largest value: what varies less in float32 does not vary


def resized(pictures: np.ndarray, size_px: int) -> torch.Tensor:
    """uint8 (n, height, width, 3) as float32 (n, 3, size, size) in 0..1, bilinear, antialiased.

    Antialiasing is torchvision's default since 0.17; papers with older ones scored without it.
    """
    images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    if images.shape[2:] == (size_px, size_px):
        return images
    size = (size_px, size_px)
    return functional.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)


def pixel_correlation(seen: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """PixCorr: Pearson's r of all values of each pair of pictures, uint8 (n, h, w, 3) to (n,)."""
    return np.array([(_unit(a) * _unit(b)).sum() for a, b in _pairs(seen, painted)])


def structural_similarities(seen: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """SSIM of each pair in grey (Wang et al., 2004), uint8 (n, h, w, 3) to (n,).

    A plain image of two dimensions: scikit-image up to 0.19 took the last axis for channels where
    the field's scripts ask for `multichannel`, and papers scored with it are higher.
    """
    return np.array(
        [
            structural_similarity(
                rgb2gray(b[0].transpose(1, 2, 0)),
                rgb2gray(a[0].transpose(1, 2, 0)),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
            )
            for a, b in _pairs(seen, painted)
        ]
    )


def two_way(seen: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """Two-way identification: how often a painting is more like its own image than another one.

    For painting j, the share of other images i with r(i, j) < r(j, j), Pearson's r of features.
    Chance is 0.5.

    Args:
        seen: features of the images, (n, ...).
        painted: features of the paintings, (n, ...), in the same order.

    Returns:
        (n,), one for each painting.
    """
    r = _unit(seen) @ _unit(painted).T
    n = len(r)
    return (r < np.diag(r)).sum(axis=0) / (n - 1)


def correlation_distance(seen: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """1 - Pearson's r of the features of each pair, (n, ...) to (n,); lower is better."""
    return 1 - (_unit(seen) * _unit(painted)).sum(axis=1)


def _pairs(seen: np.ndarray, painted: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Float32 (1, 3, size, size) of each; one at a time, as all at once are gigabytes."""
    for a, b in zip(seen, painted, strict=True):
        yield resized(a[None], COMPARED_PX).numpy(), resized(b[None], COMPARED_PX).numpy()


def _unit(features: np.ndarray) -> np.ndarray:
    """Centred rows of length 1, so that their products are Pearson's r."""
    rows = features.reshape(len(features), -1).astype(np.float64)
    least = _ROUNDING * np.abs(rows).max(axis=1, keepdims=True) * np.sqrt(rows.shape[1])
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows *= lengths > least
    rows /= np.where(lengths > least, lengths, 1)
    return rows
