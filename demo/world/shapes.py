"""The twenty shapes of the demo's world, as signed distance functions.

Each is the distance from points (x, y, z) to its surface, negative inside, or a lower bound of it;
y is up, the telling view is along z, and a shape fits into a ball of radius 1.3 about the origin.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
"""float32 throughout; NumPy's types lose that where a number of Python's is added."""
Size = tuple[float, float, float]
Field = Callable[[Array, Array, Array], Array]


def length(*axes: Array) -> Array:
    total = np.square(axes[0])
    for axis in axes[1:]:
        total = total + axis * axis
    return np.sqrt(total)


def _blend(a: Array, b: Array, soft: float) -> Array:
    """Union of two bodies whose seam is rounded over `soft` units."""
    overlap = np.maximum(soft - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap * overlap * (0.25 / soft)


def _cut(a: Array, b: Array, soft: float = 0.08) -> Array:
    """Intersection of two bodies whose edge is rounded over `soft` units."""
    return -_blend(-a, -b, soft)


def _box(x: Array, y: Array, z: Array, half: Size, rounding: float = 0.06) -> Array:
    outside = (
        np.maximum(np.abs(axis) - (size - rounding), 0)
        for axis, size in zip((x, y, z), half, strict=True)
    )
    return length(*outside) - rounding


def _puff(outline: Array, z: Array, thick: float) -> Array:
    """A flat outline (distance in x, y) blown up like a cushion of half-thickness `thick`."""
    return length(np.maximum(outline + thick, 0), z) - thick


def _slope(radius: Array, y: Array, apex: float, steep: float) -> Array:
    """A cone that opens downwards from `apex`; `steep` is its height per unit of radius."""
    return (radius * steep + (y - apex)) / float(np.hypot(steep, 1))


def _ball(x: Array, y: Array, z: Array) -> Array:
    return length(x, y, z) - 0.92


def _cube(x: Array, y: Array, z: Array) -> Array:
    return _box(x, y, z, (0.72, 0.72, 0.72), 0.1)


def _cone(x: Array, y: Array, z: Array) -> Array:
    return _cut(_slope(length(x, z), y, 1.15, 2.3), -0.9 - y, 0.15)


def _ring(x: Array, y: Array, z: Array) -> Array:
    return length(length(x, y) - 0.68, z) - 0.27


def _star(x: Array, y: Array, z: Array) -> Array:
    sector = 2 * np.pi / 5
    angle = np.arctan2(x, y)
    angle = np.abs(angle - sector * np.round(angle / sector))
    radius = length(x, y)
    # One facet spans the tip, the inner corner and the ridge in front.
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    return (along * 0.55 + across * 0.95 + np.abs(z) * 1.25 - 0.55) / 1.664 - 0.05


def _heart(x: Array, y: Array, z: Array) -> Array:
    x, y = np.abs(x), y + 0.08
    right, left = (x + y) * 0.7071, (y - x) * 0.7071
    square = length(np.maximum(np.abs(right) - 0.52, 0), np.maximum(np.abs(left) - 0.52, 0))
    lobe = length(np.maximum(right - 0.52, -0.3), left) - 0.5
    return _puff(np.minimum(square, lobe) - 0.04, z, 0.36)


def _moon(x: Array, y: Array, z: Array) -> Array:
    disc = length(x, y) - 0.95
    return _puff(_cut(disc, 0.74 - length(x - 0.5, y - 0.22), 0.05), z, 0.22)


def _gem(x: Array, y: Array, z: Array) -> Array:
    sector = np.pi / 4
    angle = np.arctan2(z, x)
    angle = angle - sector * np.round(angle / sector)
    radius = length(x, z) * np.cos(angle)
    crown = radius * 0.62 + y * 0.785 - 0.83
    pavilion = radius * 0.72 - y * 0.694 - 0.64
    return np.maximum(np.maximum(y - 0.62, crown), pavilion) - 0.02


def _mug(x: Array, y: Array, z: Array) -> Array:
    radius = length(x, z)
    wall = _box(radius - 0.6, y, radius * 0, (0.08, 0.78, 0.1), 0.07)
    base = _box(radius, y + 0.7, radius * 0, (0.6, 0.08, 0.1), 0.05)
    handle = _cut(length(length(x - 0.68, y) - 0.36, z) - 0.1, 0.6 - radius)
    return np.minimum(np.minimum(wall, base), handle)


def _mushroom(x: Array, y: Array, z: Array) -> Array:
    radius = length(x, z)
    cap = _cut(length(radius, (y - 0.02) * 1.05) - 0.95, 0.05 - y, 0.18)
    stalk = radius - 0.27 - 0.12 * np.square(np.minimum(y, 0))
    return _blend(cap, _cut(stalk, np.abs(y + 0.4) - 0.55, 0.12), 0.12)


def _vase(x: Array, y: Array, z: Array) -> Array:
    radius = length(x, z)
    profile = 0.47 + 0.25 * np.cos(2.7 * y + 0.9) + 0.05 * y
    outside = _cut((radius - profile) * 0.75, np.abs(y) - 0.95, 0.06)
    inside = np.maximum((radius - profile + 0.1) * 0.75, -0.5 - y)
    return _cut(outside, -inside, 0.05)


def _house(x: Array, y: Array, z: Array) -> Array:
    walls = _box(x, y + 0.42, z, (0.64, 0.5, 0.6), 0.03)
    door = _box(x, y + 0.6, z + 0.6, (0.15, 0.32, 0.12), 0.02)
    roof = _cut(_slope(np.abs(x), y, 0.95, 0.95), np.abs(z) - 0.74, 0.04)
    roof = _cut(roof, -0.02 - y, 0.04)
    chimney = _box(x - 0.42, y - 0.62, z, (0.12, 0.36, 0.12), 0.02)
    return np.minimum(np.minimum(np.maximum(walls, -door), roof), chimney)


def _duck(x: Array, y: Array, z: Array) -> Array:
    body = (length(x * 0.74 + 0.06, (y + 0.42) * 1.12, z) - 0.56) * 0.9
    tail = length(x + 0.78, y + 0.12, z * 0.8) - 0.15
    head = length(x - 0.42, y - 0.42, z) - 0.42
    beak = (length((x - 0.86) * 0.8, (y - 0.34) * 1.9, z) - 0.19) * 0.55
    return np.minimum(_blend(_blend(body, tail, 0.5), head, 0.18), beak)


def _pawn(x: Array, y: Array, z: Array) -> Array:
    radius = length(x, z)
    base = _box(radius, y + 0.82, radius * 0, (0.62, 0.15, 0.1), 0.09)
    body = _cut((radius - 0.2 - 0.17 * np.square(y - 0.4)) * 0.8, np.abs(y + 0.3) - 0.6)
    collar = length(np.maximum(radius - 0.28, 0), y - 0.24) - 0.07
    head = length(radius, y - 0.6) - 0.37
    return np.minimum(_blend(_blend(base, body, 0.15), collar, 0.06), head)


def _pumpkin(x: Array, y: Array, z: Array) -> Array:
    ribs = np.abs(np.sin(4 * np.arctan2(z, x)))
    radius = length(x, z)
    body = length(radius - 0.3, (y + 0.12) * 0.85) - 0.56 - 0.09 * np.sqrt(ribs) * radius
    stalk = length(x - 0.1 * y, np.maximum(np.abs(y - 0.6) - 0.22, 0), z) - 0.11
    return np.minimum(body * 0.8, stalk)


def _tree(x: Array, y: Array, z: Array) -> Array:
    radius = length(x, z)
    tree = _cut(radius - 0.16, np.abs(y + 0.7) - 0.28, 0.04)
    for apex, foot in ((1.05, 0.3), (0.72, -0.12), (0.38, -0.56)):
        tree = np.minimum(tree, _cut(_slope(radius, y, apex, 1.2), foot - y, 0.1))
    return tree


def _car(x: Array, y: Array, z: Array) -> Array:
    body = _box(x, y + 0.22, z, (1.05, 0.26, 0.52), 0.14)
    cabin = _box(x * (1 + 0.3 * y) + 0.1, y - 0.2, z, (0.58, 0.3, 0.44), 0.14) * 0.85
    hub = length(np.abs(x) - 0.58, y + 0.48)
    wheel = length(np.maximum(hub - 0.2, 0), np.maximum(np.abs(z) - 0.5, 0)) - 0.08
    return np.minimum(_blend(body, cabin, 0.08), wheel)


def _chair(x: Array, y: Array, z: Array) -> Array:
    seat = _box(x, y + 0.1, z, (0.58, 0.09, 0.56), 0.06)
    back = _box(x, y - 0.5, z - 0.48, (0.58, 0.56, 0.09), 0.06)
    legs = _box(np.abs(x) - 0.46, y + 0.55, np.abs(z) - 0.44, (0.1, 0.45, 0.1), 0.05)
    return np.minimum(np.minimum(seat, back), legs)


def _bear(x: Array, y: Array, z: Array) -> Array:
    side = np.abs(x)
    body = length(x, (y + 0.38) * 0.95, z) - 0.5
    head = length(x, y - 0.42, z) - 0.42
    ear = length(side - 0.36, y - 0.78, z) - 0.17
    limb = length(side - 0.36, y + 0.78, z + 0.4) - 0.22
    arm = length(side - 0.55, y + 0.2, z + 0.15) - 0.2
    snout = length(x, y - 0.34, z + 0.38) - 0.16
    parts = np.minimum(np.minimum(ear, limb), np.minimum(arm, snout))
    return _blend(_blend(body, head, 0.08), parts, 0.06)


def _cactus(x: Array, y: Array, z: Array) -> Array:
    trunk = length(x, np.maximum(np.abs(y) - 0.7, 0), z) - 0.27
    # The right arm sits higher than the left one.
    height = y - 0.12 * np.sign(x)
    side = np.abs(x)
    elbow = length(np.maximum(np.abs(side - 0.3) - 0.3, 0), height + 0.12, z)
    fore = length(side - 0.62, np.maximum(np.abs(height - 0.14) - 0.26, 0), z)
    return _blend(trunk, np.minimum(elbow, fore) - 0.16, 0.1)


@dataclass(frozen=True)
class Shape:
    field: Field
    foot: float  # y at which it stands
    turn_rad: float = 0.0  # yaw of its most telling view


SHAPES = {
    "ball": Shape(_ball, -0.92),
    "cube": Shape(_cube, -0.72, 0.6),
    "cone": Shape(_cone, -0.9),
    "ring": Shape(_ring, -0.95, 0.3),
    "star": Shape(_star, -0.86),
    "heart": Shape(_heart, -0.9),
    "moon": Shape(_moon, -0.95),
    "gem": Shape(_gem, -0.95),
    "mug": Shape(_mug, -0.78),
    "mushroom": Shape(_mushroom, -0.95),
    "vase": Shape(_vase, -0.95),
    "house": Shape(_house, -0.92, 0.5),
    "duck": Shape(_duck, -0.92),
    "pawn": Shape(_pawn, -0.97),
    "pumpkin": Shape(_pumpkin, -0.78),
    "tree": Shape(_tree, -0.98),
    "car": Shape(_car, -0.76, -0.4),
    "chair": Shape(_chair, -1.0, 0.6),
    "bear": Shape(_bear, -1.0),
    "cactus": Shape(_cactus, -0.97),
}
