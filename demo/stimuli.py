"""The demo's stimuli: pictures of small sculptures in simple places, known by their ids.

A concept is a shape, a material and a colour ("striped red star"). A stimulus is one picture of
it: its place, pose, light and background follow from its id alone, so an id is all that a marker
needs to carry. `demo.world` draws them.
"""

import re
import zlib
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from demo.world.drawing import Scene, draw
from demo.world.materials import COLOURS as COLOUR_TABLE
from demo.world.materials import MATERIALS as MATERIAL_TABLE
from demo.world.places import PLACES as PLACE_TABLE
from demo.world.shapes import SHAPES as SHAPE_TABLE
from hvf_core.problem import Problem

SHAPES = tuple(SHAPE_TABLE)
MATERIALS = tuple(MATERIAL_TABLE)
COLOURS = tuple(COLOUR_TABLE)
PLACES = tuple(PLACE_TABLE)
ATTRIBUTES = {"shape": SHAPES, "material": MATERIALS, "colour": COLOURS, "place": PLACES}
"""What is seen in a picture, and what each may be."""


@dataclass(frozen=True)
class Concept:
    """What a picture shows: one of `SHAPES`, made of one of `MATERIALS`, in one of `COLOURS`."""

    shape: str
    material: str
    colour: str

    @property
    def name(self) -> str:
        return f"{self.material} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Stimulus:
    """One picture of a concept; `exemplar` (0..99) tells the pictures of a concept apart."""

    concept: Concept
    exemplar: int

    @property
    def id(self) -> str:
        return f"{self.concept.name.replace(' ', '_')}_{self.exemplar:02d}"

    @property
    def attributes(self) -> dict[str, str]:
        """What is seen in it, in words."""
        return {name: getattr(self.scene, name) for name in ATTRIBUTES}

    @cached_property
    def scene(self) -> Scene:
        """Where and how the sculpture stands."""
        rng = np.random.default_rng(zlib.crc32(self.id.encode()))
        # Exemplars walk through the places, so that those of one concept differ in it.
        place = PLACES[(zlib.crc32(self.concept.name.encode()) + self.exemplar) % len(PLACES)]
        return Scene(
            shape=self.concept.shape,
            material=self.concept.material,
            colour=self.concept.colour,
            place=place,
            turn_rad=rng.uniform(-0.5, 0.5),
            size=rng.uniform(0.88, 1.08),
            side=rng.uniform(-0.35, 0.35),
            horizon=rng.uniform(0.22, 0.42),
            light_azimuth_rad=rng.uniform(0.5, 1.3) * (1 if rng.random() < 0.5 else -1),
            light_elevation_rad=rng.uniform(0.6, 1.0),
            seed=int(rng.integers(2**32)),
        )


@cache
def _concepts(are_tests: bool) -> tuple[Concept, ...]:
    """All combinations that are for testing, or all others.

    One combination in ten is: those on a plane of the 20 x 10 x 10 grid that meets every pair of
    attributes equally often, so 200 test concepts hold each shape 10 times and each material and
    colour 20 times. Sorted by a hash of the name, so the first n are a fair sample.
    """
    found = [
        Concept(SHAPES[s], MATERIALS[m], COLOURS[c])
        for s, m, c in np.ndindex(len(SHAPES), len(MATERIALS), len(COLOURS))
        if ((s + 3 * m + 7 * c) % 10 == 0) == are_tests
    ]
    return tuple(sorted(found, key=lambda concept: zlib.crc32(concept.name.encode())))


def training_concepts() -> tuple[Concept, ...]:
    """The 1,800 concepts that models may learn from; the first n are a fair sample of them."""
    return _concepts(are_tests=False)


def test_concepts() -> tuple[Concept, ...]:
    """The 200 concepts that no model of the demo has seen; none is a training concept."""
    return _concepts(are_tests=True)


# Its name would make pytest take it for a test wherever it is imported.
vars(test_concepts)["__test__"] = False


def stimuli(concepts: tuple[Concept, ...], exemplars: int) -> list[Stimulus]:
    """The first `exemplars` (at most 100) pictures of each concept, concept by concept."""
    if not 1 <= exemplars <= 100:
        raise Problem(
            f"{exemplars} exemplars per concept were asked for: the demo world has 1 to 100"
        )
    return [Stimulus(concept, n) for concept in concepts for n in range(exemplars)]


def gallery_stimuli() -> list[Stimulus]:
    """One image of each test concept: what the demo shows, and the gallery it is found in."""
    return stimuli(test_concepts(), 1)


def schedule(n_trials: int, repeats: int, seed: int) -> list[Stimulus]:
    """As few test images as these repeats allow, in random order, all once before any comes again.

    Raises:
        Problem: there are not so many test images.
    """
    tests = gallery_stimuli()
    n_images = -(-n_trials // repeats)
    if n_images > len(tests):
        raise Problem(
            f"{n_trials} trials with {repeats} repeats need {n_images} images, the demo has "
            f"{len(tests)} test images; give fewer --trials or more --repeats"
        )
    rng = np.random.default_rng(seed)
    images = rng.permutation(len(tests))[:n_images]
    shown = [tests[i] for _ in range(repeats) for i in rng.permutation(images)]
    return shown[:n_trials]


def stimulus_from_id(id: str) -> Stimulus:
    """The stimulus whose id, such as `striped_red_star_03`, this is; raises Problem if none is."""
    match = re.fullmatch(r"([a-z]+)_([a-z]+)_([a-z]+)_([0-9]{2})", id)
    if match:
        material, colour, shape, exemplar = match.groups()
        if material in MATERIALS and colour in COLOURS and shape in SHAPES:
            return Stimulus(Concept(shape, material, colour), int(exemplar))
    raise Problem(
        f"stimulus '{id}' is not of the demo world: an id is material_colour_shape_number, "
        f"such as '{test_concepts()[0].name.replace(' ', '_')}_00'"
    )


def render(stimulus: Stimulus, size_px: int = 128) -> NDArray[np.uint8]:
    """Draws a stimulus as sRGB (size_px, size_px, 3): the same picture at any size."""
    return draw(stimulus.scene, size_px)
