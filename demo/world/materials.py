"""Materials of the sculptures in the demo's world: solid patterns, shine and colours."""

from dataclasses import dataclass

import numpy as np

from demo.world.shapes import Array, Field

Rgb = tuple[float, float, float]


def _edge(wave: Array, sharp: float) -> Array:
    """A wave in -1..1 made into soft-edged bands in 0..1."""
    return np.clip(0.5 + sharp * wave, 0, 1)


def _swirl(x: Array, y: Array, z: Array) -> Array:
    """Smooth noise without a table: sines that bend each other."""
    a = np.sin(2.1 * x + 1.7 * np.sin(2.9 * y + 1.3))
    b = np.sin(2.7 * z + 1.9 * np.sin(2.3 * x - 0.7))
    return 0.5 * (a + b * np.cos(1.9 * y + a))


def _stripes(x: Array, y: Array, z: Array) -> Array:
    return _edge(np.sin(11 * (y + 0.35 * x)), 3.5)


def _dots(x: Array, y: Array, z: Array) -> Array:
    wave = np.cos(7.4 * x) + np.cos(7.4 * y + 0.5) + np.cos(7.4 * z)
    return _edge(np.abs(wave) - 1.3, 3.5)


def _checks(x: Array, y: Array, z: Array) -> Array:
    return _edge(np.sin(7.3 * x + 0.6) * np.sin(7.3 * y + 0.4) * np.sin(7.3 * z + 0.5), 6)


def _grain(x: Array, y: Array, z: Array) -> Array:
    rings = np.hypot(x - 0.4, z + 0.5) * 4.2 + 0.5 * _swirl(x, 0.6 * y, z) + 0.45 * y
    fibre = np.sin(41 * x + 3 * y) * np.sin(37 * z + 4 * y)
    return np.clip(1.15 * np.square(rings % 1) + 0.14 * fibre, 0, 1)


def _veins(x: Array, y: Array, z: Array) -> Array:
    bend = _swirl(1.7 * x, 1.7 * y, 1.7 * z)
    vein = np.abs(np.sin(3.1 * x + 2.2 * y - 2.4 * z + 2.6 * bend))
    fine = np.abs(np.sin(6.3 * x - 4.6 * y + 5.1 * z + 4.1 * bend))
    return np.clip(1 - 3.2 * vein, 0, 1) + 0.55 * np.clip(1 - 4 * fine, 0, 1) * vein


def _speckles(x: Array, y: Array, z: Array) -> Array:
    bend = _swirl(2.2 * x, 2.2 * y, 2.2 * z)
    spot = np.sin(15 * x + 3 * bend) + np.sin(16 * y - 4 * bend) + np.sin(14 * z + 3.5 * bend)
    return _edge(spot - 1.15, 1.6)


def _stitches(x: Array, y: Array, z: Array) -> Array:
    column = (x + 0.55 * z) * 4.6
    column = np.abs(column - np.round(column))
    row = y * 6.2 + 1.1 * column
    return np.clip(2.2 * np.abs(row - np.round(row)) + 0.9 * (0.5 - column) - 0.45, 0, 1)


def _plain(x: Array, y: Array, z: Array) -> Array:
    return np.zeros_like(x)


@dataclass(frozen=True)
class Material:
    pattern: Field
    contrast: float = 0.9  # share of the second colour where the pattern is 1
    dark: bool = False  # the second colour is a shade of the first, not its counterpart
    shine: float = 0.5  # strength of the highlight
    mirror: float = 0.06  # share of the surroundings it reflects head-on
    clear: float = 0.0  # share of the surroundings that shows through


MATERIALS = {
    "glossy": Material(_plain, shine=1.1, mirror=0.1),
    "metallic": Material(_plain, shine=1.6, mirror=0.85),
    "wooden": Material(_grain, contrast=0.75, dark=True, shine=0.12, mirror=0.0),
    "marble": Material(_veins, contrast=0.85, shine=0.6, mirror=0.07),
    "striped": Material(_stripes),
    "dotted": Material(_dots),
    "checked": Material(_checks, shine=0.3),
    "speckled": Material(_speckles, contrast=0.85, shine=0.15, mirror=0.0),
    "knitted": Material(_stitches, contrast=0.8, dark=True, shine=0.0, mirror=0.0),
    "glass": Material(_plain, shine=1.6, mirror=0.1, clear=0.8),
}

# sRGB, 0..1.
COLOURS: dict[str, Rgb] = {
    "red": (0.83, 0.11, 0.12),
    "orange": (0.96, 0.49, 0.07),
    "yellow": (0.97, 0.83, 0.14),
    "green": (0.16, 0.58, 0.20),
    "turquoise": (0.13, 0.73, 0.70),
    "blue": (0.12, 0.29, 0.80),
    "purple": (0.48, 0.17, 0.65),
    "pink": (0.96, 0.50, 0.70),
    "white": (0.93, 0.92, 0.90),
    "black": (0.12, 0.12, 0.14),
}
IVORY: Rgb = (0.96, 0.92, 0.82)
INK: Rgb = (0.13, 0.13, 0.19)
