"""The health of embeddings: whether unrelated images have unrelated ones."""

import numpy as np
from numpy.typing import NDArray

from hvf_core.problem import Problem

COLLAPSED_COSINE = 0.9


def embedding_health(embeddings: NDArray[np.float32]) -> float:
    """Median cosine of random pairs of different rows (n, dim): about 0 to 0.5 is healthy.

    Measured values for comparison: 0.33 for CLIP ViT-B-32, 0.04 for SDXL's VAE.
    """
    rng = np.random.default_rng(0)
    first = rng.integers(len(embeddings), size=4096)
    second = (first + rng.integers(1, len(embeddings), size=4096)) % len(embeddings)
    norms = np.linalg.norm(embeddings, axis=1) + 1e-12
    dots = np.einsum("ij,ij->i", embeddings[first], embeddings[second])
    return float(np.median(dots / (norms[first] * norms[second])))


def refuse_collapsed(embeddings: NDArray[np.float32], name: str) -> None:
    """Raises Problem if unrelated images have nearly the same embedding: a spoilt encoder or cache.

    A collapsed cache still trains, and costs half of the accuracy without any other sign.
    """
    if not np.isfinite(embeddings).all():
        raise Problem(
            f"embeddings '{name}' hold numbers that are not finite: extract the features again"
        )
    cosine = embedding_health(embeddings)
    if cosine > COLLAPSED_COSINE:
        raise Problem(
            f"embeddings '{name}' are collapsed: the median cosine of random pairs is "
            f"{cosine:.3f}, expected at most {COLLAPSED_COSINE}; check the encoder's weights and "
            "extract the features again"
        )
