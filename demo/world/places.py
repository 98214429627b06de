"""Where the sculptures of the demo's world stand: skies, ridges before them, grounds and light.

Pictures are (3, rows, columns) of linear light, which is sRGB squared: close to the true curve,
and cheap.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from demo.world.materials import Rgb
from demo.world.shapes import Array


@dataclass(frozen=True)
class Ridge:
    outline: str  # hills, firs, trunks, towers, panels or band
    colour: Rgb
    height: float  # above the horizon, in half image heights
    soft_px: float = 1.5  # blur at 128 px: far things are out of focus


@dataclass(frozen=True)
class Place:
    sky: tuple[Rgb, Rgb]  # overhead, at the horizon
    ground: tuple[Rgb, Rgb]
    relief: str  # grain, ripples, planks or paving
    ridges: tuple[Ridge, ...]
    sun: Rgb = (1.0, 0.95, 0.85)
    sun_power: float = 1.0
    ambient: float = 0.55
    clouds: float = 0.0
    haze: float = 0.5  # how far the ground fades into the sky's colour at the horizon


PLACES = {
    "beach": Place(
        ((0.25, 0.55, 0.90), (0.78, 0.90, 0.97)),
        ((0.93, 0.84, 0.66), (0.80, 0.68, 0.48)),
        "grain",
        (
            Ridge("band", (0.10, 0.50, 0.66), 0.0),
            Ridge("hills", (0.36, 0.58, 0.60), 0.10),
        ),
        clouds=0.8,
        haze=0.1,
    ),
    "forest": Place(
        ((0.42, 0.62, 0.40), (0.86, 0.92, 0.68)),
        ((0.36, 0.46, 0.18), (0.20, 0.25, 0.10)),
        "grain",
        (
            Ridge("firs", (0.40, 0.56, 0.34), 0.70, 2.5),
            Ridge("trunks", (0.29, 0.27, 0.17), 0.16, 2.0),
        ),
        sun=(1.0, 0.96, 0.70),
        ambient=0.5,
    ),
    "desert": Place(
        ((0.36, 0.52, 0.80), (0.98, 0.85, 0.66)),
        ((0.90, 0.62, 0.36), (0.76, 0.45, 0.25)),
        "ripples",
        (
            Ridge("hills", (0.74, 0.46, 0.36), 0.34),
            Ridge("hills", (0.84, 0.55, 0.34), 0.14),
        ),
        sun=(1.0, 0.88, 0.66),
        sun_power=1.1,
        haze=0.25,
    ),
    "meadow": Place(
        ((0.24, 0.50, 0.90), (0.80, 0.92, 0.99)),
        ((0.50, 0.70, 0.24), (0.28, 0.52, 0.16)),
        "grain",
        (
            Ridge("hills", (0.48, 0.66, 0.72), 0.42, 2.0),
            Ridge("hills", (0.36, 0.60, 0.28), 0.20),
            Ridge("firs", (0.16, 0.38, 0.18), 0.12),
        ),
        clouds=1.0,
        haze=0.2,
    ),
    "snow": Place(
        ((0.46, 0.62, 0.84), (0.92, 0.93, 0.97)),
        ((0.95, 0.97, 1.00), (0.78, 0.85, 0.95)),
        "grain",
        (
            Ridge("hills", (0.74, 0.80, 0.90), 0.55, 2.0),
            Ridge("firs", (0.22, 0.34, 0.38), 0.26),
        ),
        sun=(1.0, 0.94, 0.88),
        sun_power=0.8,
        ambient=0.62,
        clouds=0.4,
    ),
    "city": Place(
        ((0.05, 0.06, 0.17), (0.42, 0.24, 0.42)),
        ((0.30, 0.30, 0.38), (0.17, 0.17, 0.25)),
        "paving",
        (
            Ridge("towers", (0.16, 0.14, 0.27), 0.62),
            Ridge("towers", (0.08, 0.08, 0.16), 0.34),
        ),
        sun=(1.0, 0.86, 0.66),
        sun_power=0.9,
        ambient=0.42,
        haze=0.6,
    ),
    "room": Place(
        ((0.82, 0.74, 0.66), (0.70, 0.60, 0.54)),
        ((0.64, 0.42, 0.25), (0.47, 0.28, 0.15)),
        "planks",
        (
            Ridge("panels", (0.79, 0.64, 0.50), 1.0, 1.0),
            Ridge("band", (0.93, 0.90, 0.85), 0.07),
        ),
        sun=(1.0, 0.93, 0.82),
        sun_power=0.85,
        haze=0.0,
    ),
    "seabed": Place(
        ((0.10, 0.42, 0.66), (0.03, 0.22, 0.44)),
        ((0.56, 0.72, 0.66), (0.26, 0.46, 0.50)),
        "ripples",
        (
            Ridge("hills", (0.05, 0.28, 0.46), 0.40, 4.0),
            Ridge("firs", (0.04, 0.30, 0.36), 0.24, 3.0),
        ),
        sun=(0.75, 1.0, 0.98),
        sun_power=0.95,
        ambient=0.5,
        haze=0.75,
    ),
}


def linear(colour: Rgb) -> Array:
    """An sRGB colour as linear light."""
    return np.square(np.array(colour, np.float32))


@cache
def _cloudscape() -> Array:
    """256 x 256 tile of smooth noise, mean 0, standard deviation 1 (power falls as 1/f^2.6)."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((256, 256))) * frequency**-1.3
    noise = np.fft.irfft2(spectrum)
    return (noise / noise.std()).astype(np.float32)


def _noise(x: Array, y: Array) -> Array:
    """The tile at (x, y), one unit being 32 samples; the nearest sample, as it is smooth enough."""
    column, row = (x * 32).astype(np.int32) & 255, (y * 32).astype(np.int32) & 255
    return _cloudscape().ravel()[row * 256 + column]


def _outline(kind: str, u: Array, rng: np.random.Generator) -> Array:
    """Height profile of a ridge over the picture's columns, about 0..1."""
    a, b, c = rng.uniform(0, 2 * np.pi, 3).tolist()
    if kind == "hills":
        return 0.55 + 0.28 * np.sin(2.3 * u + a) + 0.15 * np.sin(5.1 * u + b)
    if kind == "firs":
        crowns = 0.42 * np.abs((u * 5.5 + a) % 1 - 0.5) + 0.18 * np.abs((u * 13 + b) % 1 - 0.5)
        return 0.62 + 0.15 * np.sin(7 * u + c) - 2 * crowns
    if kind == "trunks":
        trunks = np.sin(6 * u + a) + np.sin(11 * u + b) > 1.25
        return np.where(trunks, np.float32(20), 0.5 + 0.5 * np.sin(19 * u + c))
    if kind == "towers":
        heights = rng.uniform(0.35, 1.0, 64).astype(np.float32)
        return heights[((u + 2) * 5.5 + a).astype(np.int32)]
    if kind == "panels":
        return 20 * (np.sin(17 * u + a) > 0).astype(np.float32)
    return np.ones_like(u)


def _windows(u: Array, height: Array, rng: np.random.Generator) -> Array:
    """Light from the windows of towers: (3, rows, columns)."""
    lit = rng.random((32, 64)) < 0.3
    row, column = height * 15 + 16, (u + 2) * 15
    frame = (np.abs(row % 1 - 0.5) < 0.3) & (np.abs(column % 1 - 0.5) < 0.28)
    glow = lit[row.astype(np.int32) & 31, column.astype(np.int32) & 63] & frame
    return linear((0.95, 0.75, 0.40))[:, None, None] * glow


def backdrop(place: Place, u: Array, height: Array, seed: int) -> Array:
    """What stands behind the horizon: (3, rows, columns).

    `u` are the columns in half image heights from the middle, `height` the rows above the horizon.
    """
    rng = np.random.default_rng(seed)
    height = height[:, None]
    top, low = (linear(colour)[:, None, None] for colour in place.sky)
    rows = low + (top - low) * np.sqrt(np.clip(height, 0, 1))
    picture = np.repeat(rows, u.size, axis=2)
    if place.clouds:
        drift = rng.uniform(8, 16, 2).tolist()
        distance = 1 / (np.maximum(height, 0) + 0.25)
        cloud = _noise(u * distance * 0.5 + drift[0], distance * 0.9 + drift[1])
        cover = place.clouds * np.clip(0.55 * cloud, 0, 0.85) * np.clip(height * 6, 0, 1)
        picture += (1 - picture) * cover
    for ridge in place.ridges:
        profile = ridge.height * _outline(ridge.outline, u, rng)
        cover = np.clip((profile - height) * (64 / ridge.soft_px) + 0.5, 0, 1)
        surface = linear(ridge.colour)[:, None, None] * np.float32(rng.uniform(0.85, 1.15))
        if ridge.outline == "towers":
            surface = surface + _windows(u, height, rng)
        picture += (surface - picture) * cover
    return picture


def ground(place: Place, x: Array, z: Array, seed: int) -> Array:
    """Colour of the ground at points x to the right and z away from the eye: (3, rows, columns)."""
    a, b = np.random.default_rng(seed).uniform(64, 72, 2).tolist()
    near = 1 / (1 + np.square(z * 0.12))  # far relief is finer than a pixel and fades
    soft = _noise(x * 0.45 + a, z * 0.45 + b)
    if place.relief == "ripples":
        pattern = 0.5 + 0.42 * near * np.sin(4.2 * z + 0.6 * (a - 68) * x + 1.6 * soft)
    elif place.relief == "planks":
        board = x * 1.1 + a
        fibre = _noise(x * 4 + a, z * 0.3 + np.floor(board) * 1.7)
        seam = np.clip(1 - np.abs(board % 1 - 0.5) * 2, 0, 0.06) / 0.06
        pattern = 1 - (0.62 + 0.16 * fibre) * seam
    elif place.relief == "paving":
        gap = np.minimum(np.abs((x + a) % 1.3 - 0.65), np.abs((z + b) % 1.3 - 0.65))
        pattern = 0.45 + 0.2 * soft + 0.5 * near * np.clip(1 - gap * 16, 0, 1)
    else:
        pattern = 0.45 + 0.17 * soft + 0.24 * near * _noise(x * 2.6 + a, z * 2.6)
    light, dark = (linear(colour)[:, None, None] for colour in place.ground)
    return light + (dark - light) * np.clip(pattern, 0, 1)
