"""A made-up brain: what every image evokes, so that whoever mixes up ids decodes nothing."""

import zlib

import numpy as np

HIDDEN = 6
"""Numbers that are all this brain knows of an image."""


def seen_in(image: str) -> np.ndarray:
    """What there is to see in an image, (HIDDEN,), by its id alone."""
    return np.random.default_rng(zlib.crc32(image.encode())).standard_normal(HIDDEN)


def evoked(image: str, n_channels: int, n_times: int) -> np.ndarray:
    """(channels, times), of a size of about 1; other images evoke other responses."""
    mixing = np.random.default_rng(n_channels * 1000 + n_times)
    space = mixing.standard_normal((n_channels, HIDDEN))
    course = mixing.standard_normal((HIDDEN, n_times))
    return (space * seen_in(image)) @ course / np.sqrt(HIDDEN)
