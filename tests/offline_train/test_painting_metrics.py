"""The scores of paintings against known answers, a slow oracle and the libraries' own calls."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import correlation
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity

from offline_train.paintings.metrics import (
    COMPARED_PX,
    correlation_distance,
    pixel_correlation,
    resized,
    structural_similarities,
    two_way,
)


def pictures(n: int, seed: int, size_px: int = 32) -> np.ndarray:
    """Smooth ones: the same noise at any pixel would be lost when they are enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3))
    return np.kron(coarse, np.ones((1, size_px // 4, size_px // 4, 1))).astype(np.uint8)


def test_a_perfect_painting_has_perfect_scores() -> None:
    seen = pictures(5, 0)
    assert pixel_correlation(seen, seen) == pytest.approx(1)
    assert structural_similarities(seen, seen) == pytest.approx(1)
    features = np.random.default_rng(1).normal(size=(5, 40))
    assert two_way(features, features).tolist() == [1.0] * 5
    assert correlation_distance(features, features) == pytest.approx(0, abs=1e-12)


def test_a_negative_has_the_correlation_minus_1() -> None:
    seen = pictures(3, 0)
    assert pixel_correlation(seen, 255 - seen) == pytest.approx(-1, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 8), width=st.integers(2, 6), seed=st.integers(0, 999))
def test_two_way_is_what_its_definition_says(n: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen, painted = rng.normal(size=(2, n, width))
    wins = np.zeros(n)
    for j in range(n):
        own = np.corrcoef(seen[j], painted[j])[0, 1]
        for i in range(n):
            # Strictly less; with two numbers r is only 1 or -1 to rounding.
            other = np.corrcoef(seen[i], painted[j])[0, 1]
            wins[j] += i != j and other < own - 1e-9
    assert two_way(seen, painted) == pytest.approx(wins / (n - 1), abs=1e-9 if width > 2 else 1)


def test_independent_features_are_identified_by_chance() -> None:
    rng = np.random.default_rng(0)
    seen, painted = rng.normal(size=(2, 400, 50))
    scores = two_way(seen, painted)
    assert abs(scores.mean() - 0.5) < 4 * scores.std() / 20


def test_over_all_pairings_chance_is_exactly_a_half() -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(12, 30))
    painted = seen + 0.5 * rng.normal(size=seen.shape)  # identified nearly always if paired right
    shifts = [two_way(seen, np.roll(painted, k, axis=0)).mean() for k in range(12)]
    assert shifts[0] > 0.95
    assert np.mean(shifts) == pytest.approx(0.5)


def test_equal_likeness_is_no_success() -> None:
    seen = np.repeat(np.random.default_rng(0).normal(size=(1, 8)), 3, axis=0)
    assert two_way(seen, seen).tolist() == [0.0] * 3


def test_what_does_not_vary_correlates_with_nothing() -> None:
    seen = pictures(3, 0)
    for grey in (0, 77, 255):
        plain = np.full_like(seen, grey)
        assert pixel_correlation(seen, plain).tolist() == [0.0] * 3
        assert np.isfinite(structural_similarities(seen, plain)).all()
    features = np.random.default_rng(0).normal(size=(3, 11))
    plain = np.full((3, 11), 0.7)
    assert plain[0].mean() != 0.7  # so that rounding is left of it when it is centred
    assert two_way(features, plain).tolist() == [0.0] * 3
    assert correlation_distance(features, plain).tolist() == [1.0] * 3


def test_pixcorr_is_numpy_s() -> None:
    seen, painted = pictures(2, 0), pictures(2, 1)
    pairs = zip(resized(seen, COMPARED_PX), resized(painted, COMPARED_PX), strict=True)
    expected = [np.corrcoef(a.numpy().ravel(), b.numpy().ravel())[0, 1] for a, b in pairs]
    assert pixel_correlation(seen, painted) == pytest.approx(expected, abs=1e-6)


def test_the_order_of_the_images_matters() -> None:
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(50, 30))
    painted = seen + 0.5 * rng.normal(size=seen.shape)
    assert two_way(seen, painted).mean() > 0.99
    assert abs(two_way(seen, np.roll(painted, 1, axis=0)).mean() - 0.5) < 0.1


def test_distances_are_scipy_s() -> None:
    seen, painted = np.random.default_rng(0).normal(size=(2, 6, 11))
    expected = [correlation(a, b) for a, b in zip(seen, painted, strict=True)]
    assert correlation_distance(seen, painted) == pytest.approx(expected)


def test_ssim_is_scikit_image_s_on_grey_pictures() -> None:
    seen, painted = pictures(2, 0), pictures(2, 1)
    assert COMPARED_PX == 425
    expected = []
    for a, b in zip(resized(seen, COMPARED_PX), resized(painted, COMPARED_PX), strict=True):
        grey = [rgb2gray(np.moveaxis(x.numpy(), 0, -1)) for x in (b, a)]
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        expected.append(structural_similarity(*grey, data_range=1.0, **options))
    assert structural_similarities(seen, painted) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("size_px", [24, 100])
def test_resizing_is_torchvision_s(size_px: int) -> None:
    from torchvision.transforms import v2  # here: it takes seconds, of every worker

    images = torch.from_numpy(pictures(2, 0, 64)).permute(0, 3, 1, 2) / 255
    resize = v2.Resize((size_px, size_px), v2.InterpolationMode.BILINEAR, antialias=True)
    assert torch.allclose(resized(pictures(2, 0, 64), size_px), resize(images), atol=1e-6)


def test_resizing_keeps_the_range_and_the_mean() -> None:
    seen = pictures(2, 0)
    assert np.array_equal(resized(seen, 32).numpy(), np.moveaxis(seen, -1, 1) / np.float32(255))
    large = resized(seen, 100)
    assert large.shape == (2, 3, 100, 100)
    assert float(large.min()) >= 0
    assert float(large.max()) <= 1
    assert float(large.mean()) == pytest.approx(seen.mean() / 255, abs=0.01)
