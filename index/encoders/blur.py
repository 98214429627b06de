"""Images blurred away from their middle, as UBP (CVPR 2025) has them seen by an encoder."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from index.encoders.parts import Parts, square_picture

SIDE_PX = 224
"""Of the picture that is blurred, in whose pixels the kernel is told."""
_STAYS = 0.5
"""How much of the sharp image is left in the middle; both as the authors' code has it."""
_FALL = 3.0
"""How fast less of it is left towards the corners: by e^-3."""


def blurred(image: NDArray[np.uint8], kernel_px: int) -> NDArray[np.uint8]:
    """An RGB image (h, w, 3) of any size, made square and blurred: (224, 224, 3).

    It is mixed with itself behind a Gaussian of `kernel_px` a side, the more the farther from the
    middle. The Gaussian is as wide as OpenCV makes it for a kernel of this size.
    """
    from scipy.ndimage import gaussian_filter  # here: few encoders need it

    sharp, radius = square_picture(image, SIDE_PX).astype(np.float32), kernel_px // 2
    sigma = 0.3 * (radius - 1) + 0.8
    soft = gaussian_filter(sharp, (sigma, sigma, 0), mode="mirror", radius=(radius, radius, 0))
    return (soft + _sharpness() * (sharp - soft)).round().astype(np.uint8)


@cache
def _sharpness() -> NDArray[np.float32]:
    """The share of the sharp image at each place, (224, 224, 1)."""
    middle, last = SIDE_PX // 2, SIDE_PX - 1
    along = (np.arange(SIDE_PX) - middle) / (last - middle)
    distance = np.hypot(*np.meshgrid(along, along)) / np.sqrt(2)
    return (_STAYS * np.exp(-_FALL * distance.clip(max=1)))[..., None].astype(np.float32)


def behind_blur(parts: Parts, kernel_px: int) -> Parts:
    """An encoder that sees every image blurred, and has another checksum."""
    return parts._replace(
        prepare=lambda image: parts.prepare(blurred(image, kernel_px)),
        settings={**parts.settings, "blur_px": kernel_px},
    )
