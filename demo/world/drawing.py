"""Draws a scene of the demo's world: one sculpture, its light, its shadow, its place.

The sculpture is found by sphere tracing (J. C. Hart, "Sphere tracing", The Visual Computer 12,
1996). Lengths are those of a shape (about 2 units tall), x to the right, y up, z away from the
eye; on the screen, u and v are half image heights. Points and colours are (3, ...) float32.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo.world.materials import COLOURS, INK, IVORY, MATERIALS, Material
from demo.world.places import PLACES, Place, backdrop, ground, linear
from demo.world.shapes import SHAPES, Array, Shape

_LENS = 2.6  # focal length in half image heights
_EYE = np.array((0, 1.7, 0), np.float32)
_DISTANCE = 4.7
_REACH = 1.3  # every shape fits into a ball of this radius
_BLOCK = 4  # rays are first followed in blocks of 4 x 4
_STEPS = 22
_TOUCH_PX = 0.25  # a ray this near to the sculpture has arrived


@dataclass(frozen=True)
class Scene:
    """What to draw; shape, material, colour and place are names."""

    shape: str
    material: str
    colour: str
    place: str
    turn_rad: float  # away from the shape's most telling view
    size: float
    side: float  # to the right of the middle
    horizon: float  # v of the horizon
    light_azimuth_rad: float  # 0 shines from behind the eye, positive from the right
    light_elevation_rad: float
    seed: int  # of clouds, ridges and ground


class _Body:
    """The sculpture, standing in the scene: a shape that is turned, scaled and moved."""

    def __init__(self, shape: Shape, scene: Scene) -> None:
        self.field = shape.field
        self.size = scene.size
        self.centre = np.array((scene.side, -shape.foot * scene.size, _DISTANCE), np.float32)
        turn = shape.turn_rad + scene.turn_rad
        c, s = math.cos(turn), math.sin(turn)
        # Of scene axes into own axes.
        self.turn = np.array(((c, 0, -s), (0, 1, 0), (s, 0, c)), np.float32)

    def own(self, points: Array) -> Array:
        """Points of the scene in the shape's own axes and scale."""
        shifted = (points.reshape(3, -1) - self.centre[:, None]) / self.size
        return (self.turn @ shifted).reshape(points.shape)


def _normals(body: _Body, points: Array) -> Array:
    """Unit normals at points in the shape's axes, from four samples around each."""
    corners = np.array(((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)), np.float32)
    samples = [body.field(*(points + 0.012 * corner[:, None])) for corner in corners]
    normals = corners.T @ np.stack(samples)
    return normals / (np.sqrt(np.square(normals).sum(axis=0)) + 1e-9)


def _follow(
    body: _Body, eye: Array, rays: Array, start: Array, pixel: float, reach_px: float
) -> tuple[Array, Array]:
    """Follows rays until they come within `reach_px` of the sculpture or leave it behind.

    Returns, per ray, the way to its nearest point and the gap there in pixels.
    """
    toward = -(eye @ rays)
    way, nearest = start.copy(), start.copy()
    gap = np.full_like(start, np.inf)
    live = np.arange(start.size)
    directions, origin = rays, eye[:, None]
    for step in range(_STEPS):
        here = way[live]
        distance = body.field(*(origin + here * directions))
        miss = distance / (here * pixel)
        nearer = miss < gap[live]
        gap[live[nearer]], nearest[live[nearer]] = miss[nearer], here[nearer]
        way[live] = here + distance
        if step % 2:
            keep = (np.abs(miss) > reach_px) & (here < toward[live] + _REACH)
            if not keep.any():
                break
            live, directions = live[keep], directions[:, keep]
    return nearest, gap


def _trace(body: _Body, rays: Array, pixel: float) -> tuple[NDArray[np.intp], Array, Array]:
    """Finds the sculpture on the screen.

    Returns the pixels (flat index) that it covers, the part of each that it covers, and the
    points that they show, in the shape's axes.
    """
    size_px = rays.shape[1]
    eye = body.own(_EYE)
    middle = _BLOCK // 2
    coarse = body.turn @ rays[:, middle::_BLOCK, middle::_BLOCK].reshape(3, -1)
    toward = -(eye @ coarse)
    half_chord = _REACH**2 - eye @ eye + np.square(toward)
    met = np.flatnonzero(half_chord > -0.3)
    start = toward[met] - np.sqrt(np.maximum(half_chord[met], 0))
    way, gap = _follow(body, eye, coarse[:, met], start, pixel, _BLOCK)
    close = gap < _BLOCK

    # The pixels of the blocks that came close, starting a little before where the block arrived.
    across = -(-(size_px - middle) // _BLOCK)
    row, column = np.divmod(met[close], across)
    offset = np.arange(_BLOCK)
    rows = np.repeat(row[:, None] * _BLOCK + offset, _BLOCK, axis=1)
    columns = np.tile(column[:, None] * _BLOCK + offset, _BLOCK)
    inside = ((rows < size_px) & (columns < size_px)).ravel()
    index = (rows * size_px + columns).ravel()[inside]
    start = np.repeat(way[close] * (1 - _BLOCK * pixel), _BLOCK**2)[inside]
    directions = body.turn @ rays.reshape(3, -1)[:, index]
    way, gap = _follow(body, eye, directions, start, pixel, _TOUCH_PX)
    seen = gap < 1 + _TOUCH_PX
    points = eye[:, None] + way[seen] * directions[:, seen]
    return index[seen], np.clip(1 + _TOUCH_PX - gap[seen], 0, 1), points


def _shadow(body: _Body, x: Array, z: Array, light: Array) -> tuple[Array, Array]:
    """Of points on the ground: the shares of sunlight and of skylight that reach them."""
    points = body.own(np.stack([x, np.zeros_like(x), z])).reshape(3, -1)
    toward = body.turn @ light
    sky = np.clip(0.25 + 1.1 * body.field(*points), 0, 1)
    # Softened shadows reach a little beyond the ball around the shape.
    past = -(toward @ points)
    aside = np.square(points).sum(axis=0) - np.square(past)
    near = np.flatnonzero((aside < (_REACH + 0.25) ** 2) & (past > -_REACH))
    points = points[:, near]
    way, open_part = np.full(near.size, np.float32(0.06)), np.ones(near.size, np.float32)
    for _ in range(12):
        distance = body.field(*(points + way * toward[:, None]))
        open_part = np.minimum(open_part, 0.5 + 5 * distance / way)
        way = way + np.clip(distance, 0.07, 0.5)
    sun = np.ones(x.size, np.float32)
    sun[near] = np.square(np.clip(open_part, 0, 1))
    return sun.reshape(x.shape), sky.reshape(x.shape)


def _doubled(coarse: Array, shape: tuple[int, int]) -> Array:
    """A plane at half size brought to `shape` by linear interpolation."""
    for axis, size in enumerate(shape):
        index = np.arange(size)
        upper = np.minimum((index + 1) // 2, coarse.shape[axis] - 1)
        coarse = 0.5 * (coarse.take(index // 2, axis) + coarse.take(upper, axis))
    return coarse


def _lit_ground(
    body: _Body, place: Place, scene: Scene, u: Array, drop: Array, light: Array
) -> Array:
    """The ground on the rows that lie `drop` below the horizon: (3, rows, columns)."""
    z = np.broadcast_to((_EYE[1] * _LENS / drop)[:, None], (drop.size, u.size))
    x = u * z * (1 / _LENS)
    sun, sky = (_doubled(part, x.shape) for part in _shadow(body, x[::2, ::2], z[::2, ::2], light))
    incoming = _sun(place) * light[1] * sun + _skylight(place) * sky
    picture = ground(place, x, z, scene.seed) * incoming
    fog = place.haze * np.exp(-5 * drop)[:, None]
    return picture + (linear(place.sky[1])[:, None, None] - picture) * fog


def _sun(place: Place) -> Array:
    return (linear(place.sun) * np.float32(1.25 * place.sun_power))[:, None, None]


def _skylight(place: Place) -> Array:
    tint = linear(place.sky[0]) * 0.35 + 0.65
    return (tint * (place.ambient / tint.mean()))[:, None, None]


def _paint(material: Material, colour: str, points: Array) -> Array:
    """The sculpture's own colour at points in its axes."""
    base = linear(COLOURS[colour])
    second = base * 0.3 if material.dark else linear(IVORY if base.mean() < 0.45 else INK)
    share = np.float32(material.contrast) * material.pattern(*points)
    return base[:, None] + (second - base)[:, None] * share


def _shade(
    body: _Body,
    scene: Scene,
    points: Array,
    view: Array,
    light: Array,
    seen: NDArray[np.intp],
    behind: Array,
) -> Array:
    """Light from the sculpture's points to the eye: (3, n). `behind` is the place without it."""
    place, material = PLACES[scene.place], MATERIALS[scene.material]
    normals = _normals(body, points)
    # A surface that is near to another one just before it lies in a crease and gets less light.
    crease = np.clip(0.35 + 3 * body.field(*(points + 0.22 * normals)), 0, 1)
    normals = body.turn.T @ normals
    sun, skylight = _sun(place)[..., 0], _skylight(place)[..., 0]

    diffuse = np.clip(0.85 * (light @ normals) + 0.15, 0, 1)
    bounce = 0.3 * linear(place.ground[0])[:, None]
    fill = skylight * (0.62 + 0.38 * normals[1]) + bounce * (0.5 - 0.5 * normals[1])
    shaded = _paint(material, scene.colour, points) * (sun * diffuse + fill) * crease

    facing = (normals * view).sum(axis=0)
    grazing = np.square(np.square(1 - np.clip(-facing, 0, 1)))
    mirrored = view - 2 * facing * normals
    base = linear(COLOURS[scene.colour])[:, None]
    rows, columns = behind.shape[1:]
    if material.clear:
        down, right = 0.16 * normals[1] * rows, -0.16 * normals[0] * columns
        through = _colours_at(behind, seen // columns + down, seen % columns + right)
        through *= 0.15 + 1.1 * base
        shaded += (through - shaded) * (material.clear * (1 - 0.5 * grazing))
    if material.mirror:
        # The picture behind stands for the unseen one in front: high is sky, low is ground.
        v = scene.horizon + (0.95 - scene.horizon) * mirrored[1]
        down, right = 0.5 * (1 - v) * (rows - 1), 0.5 * (1 + 0.45 * mirrored[0]) * (columns - 1)
        around = _colours_at(behind, down, right)
        tint = 0.16 + 1.15 * base if material.mirror > 0.5 else 1
        strength = np.clip(material.mirror + 0.35 * grazing, 0, 1) * crease
        shaded += (around * tint - shaded) * strength
    glint = np.clip(light @ mirrored, 0, 1)
    for _ in range(5):
        glint = glint * glint
    return shaded + material.shine * glint * sun


def _colours_at(picture: Array, down: Array, right: Array) -> Array:
    rows, columns = picture.shape[1:]
    row = np.clip(np.int32(down), 0, rows - 1)
    column = np.clip(np.int32(right), 0, columns - 1)
    return picture.reshape(3, -1)[:, row * columns + column]


def _toward_light(scene: Scene) -> Array:
    flat = math.cos(scene.light_elevation_rad)
    return np.array(
        (
            math.sin(scene.light_azimuth_rad) * flat,
            math.sin(scene.light_elevation_rad),
            -math.cos(scene.light_azimuth_rad) * flat,
        ),
        np.float32,
    )


def draw(scene: Scene, size_px: int) -> NDArray[np.uint8]:
    """Draws a scene as sRGB (size_px, size_px, 3)."""
    place = PLACES[scene.place]
    body = _Body(SHAPES[scene.shape], scene)
    u = (np.arange(size_px, dtype=np.float32) + 0.5) * (2 / size_px) - 1
    height = -u - np.float32(scene.horizon)  # of the rows, above the horizon
    light = _toward_light(scene)

    below = int(np.count_nonzero(height >= 0))
    picture = np.empty((3, size_px, size_px), np.float32)
    picture[:, :below] = backdrop(place, u, height[:below], scene.seed)
    picture[:, below:] = _lit_ground(body, place, scene, u, -height[below:], light)

    rays = np.stack(np.broadcast_arrays(u, height[:, None], np.float32(_LENS)))
    rays = rays / np.sqrt(np.square(rays).sum(axis=0))
    seen, cover, points = _trace(body, rays, 2 / (size_px * _LENS))
    view = rays.reshape(3, -1)[:, seen]
    shaded = _shade(body, scene, points, view, light, seen, picture)
    pixels = picture.reshape(3, -1)
    pixels[:, seen] += (shaded - pixels[:, seen]) * cover

    picture *= 1 - 0.10 * np.square(u)[:, None] - 0.10 * np.square(u)  # a lens's dark corners
    over = np.maximum(picture - 0.75, 0)
    picture = np.minimum(picture, 0.75) + over / (1 + 2.5 * over)  # highlights roll off
    levels = (np.sqrt(np.clip(picture, 0, 1)) * 255 + 0.5).astype(np.uint8)
    return levels.transpose(1, 2, 0).copy()
