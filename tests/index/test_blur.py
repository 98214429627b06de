"""The blur of UBP before an image encoder, against one that is written out here."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from hvf_core.problem import Problem
from index.encoders.blur import blurred
from index.encoders.load import load_encoder
from index.encoders.spec import read_specs
from tests.lookalikes.eye import EYE


def _by_hand(image: np.ndarray, kernel_px: int) -> np.ndarray:
    """OpenCV's Gaussian of that size and the mask of the authors' code, place by place."""
    sigma = 0.3 * ((kernel_px - 1) * 0.5 - 1) + 0.8
    bell = np.exp(-((np.arange(kernel_px) - kernel_px // 2) ** 2) / (2 * sigma**2))
    kernel = np.outer(bell, bell) / bell.sum() ** 2
    out = np.empty_like(image)
    for colour in range(3):
        padded = np.pad(image[..., colour].astype(float), kernel_px // 2, "reflect")
        soft = convolve2d(padded, kernel, "valid")
        for row in range(224):
            for column in range(224):
                away = min(1, np.hypot(row - 112, column - 112) / np.hypot(111, 111))
                sharp = 0.5 * np.exp(-3 * away)
                mixed = sharp * image[row, column, colour] + (1 - sharp) * soft[row, column]
                out[row, column, colour] = round(mixed)
    return out


@pytest.mark.slow
def test_the_blur_is_that_of_the_authors_to_a_level_of_brightness() -> None:
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    found, wanted = blurred(image, 15).astype(int), _by_hand(image, 15).astype(int)
    assert np.abs(found - wanted).max() <= 1


def test_an_encoder_that_is_said_with_a_blur_sees_it_and_is_another_one() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    plain, soft, softer = (
        load_encoder(read_specs(EYE + word)[0]) for word in ("", ":blur45", ":blur51")
    )
    np.testing.assert_array_equal(soft.encode([image]), plain.encode([blurred(image, 45)]))
    assert len({plain.checksum, soft.checksum, softer.checksum}) == 3
    assert soft.spec.name == f"{plain.spec.name}-blur45"


def test_a_kernel_without_a_middle_is_refused() -> None:
    with pytest.raises(Problem, match=r"'RN50:blur50'.*odd"):
        read_specs("RN50:blur50")
