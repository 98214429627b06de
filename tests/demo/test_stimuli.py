import subprocess
import sys
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import stimuli as world
from demo.stimuli import COLOURS, MATERIALS, PLACES, SHAPES, Concept, Stimulus, render
from hvf_core.problem import Problem

concepts = st.builds(
    Concept, st.sampled_from(SHAPES), st.sampled_from(MATERIALS), st.sampled_from(COLOURS)
)


def test_the_world_has_200_test_concepts_that_training_never_shows():
    training, held_out = world.training_concepts(), world.test_concepts()
    assert len(held_out) == 200
    assert len(training) >= 300
    assert not set(training) & set(held_out)
    assert len({concept.name for concept in training + held_out}) == len(training + held_out)


@pytest.mark.parametrize("attribute", ["shape", "material", "colour"])
def test_test_concepts_hold_every_attribute_equally_often_and_training_any_prefix(attribute):
    values = {"shape": SHAPES, "material": MATERIALS, "colour": COLOURS}[attribute]
    held_out = Counter(getattr(concept, attribute) for concept in world.test_concepts())
    assert held_out == dict.fromkeys(values, 200 // len(values))
    prefix = Counter(getattr(concept, attribute) for concept in world.training_concepts()[:300])
    assert set(prefix) == set(values)
    assert min(prefix.values()) >= 0.4 * 300 / len(values)


@given(concepts, st.integers(0, 99))
def test_an_id_names_one_stimulus(concept, exemplar):
    stimulus = Stimulus(concept, exemplar)
    assert world.stimulus_from_id(stimulus.id) == stimulus
    assert stimulus.scene == Stimulus(concept, exemplar).scene


def test_an_id_reads_like_the_concept():
    stimulus = Stimulus(Concept("star", "striped", "red"), 3)
    assert stimulus.concept.name == "striped red star"
    assert stimulus.id == "striped_red_star_03"


@pytest.mark.parametrize(
    "unknown",
    ["", "striped_red_star", "striped_red_star_3", "red_striped_star_03", "striped_red_star_03\n"],
)
def test_an_unknown_id_is_a_problem_that_shows_a_known_one(unknown):
    with pytest.raises(Problem, match="an id is material_colour_shape_number") as caught:
        world.stimulus_from_id(unknown)
    example = str(caught.value).rsplit("'", 2)[1]
    assert world.stimulus_from_id(example).id == example


@pytest.mark.parametrize("exemplars", [0, 101])
def test_numbers_of_exemplars_that_ids_cannot_hold_are_refused(exemplars):
    with pytest.raises(Problem, match="1 to 100"):
        world.stimuli(world.test_concepts(), exemplars)


def test_stimuli_come_concept_by_concept():
    first, second = world.test_concepts()[:2]
    listed = world.stimuli((first, second), 2)
    assert listed == [
        Stimulus(first, 0),
        Stimulus(first, 1),
        Stimulus(second, 0),
        Stimulus(second, 1),
    ]


def test_exemplars_of_a_concept_walk_through_all_places():
    concept = world.test_concepts()[0]
    assert {Stimulus(concept, n).scene.place for n in range(len(PLACES))} == set(PLACES)


def test_a_picture_is_the_same_in_another_process():
    stimulus = world.stimuli(world.test_concepts()[:1], 1)[0]
    code = (
        "import zlib; from demo.stimuli import render, stimulus_from_id; "
        f"print(zlib.crc32(render(stimulus_from_id('{stimulus.id}'))))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == zlib.crc32(render(stimulus))


def test_a_picture_does_not_depend_on_what_was_drawn_before():
    first, second = world.stimuli(world.test_concepts()[:1], 2)
    alone = render(first)
    np.random.seed(7)
    render(second)
    np.testing.assert_array_equal(render(first), alone)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_fills_a_good_part_of_the_picture_in_its_colour(shape):
    """Two colours of one scene differ exactly where the sculpture is, and mirrors it."""
    scenes = [Stimulus(Concept(shape, "glossy", colour), 0).scene for colour in ("red", "green")]
    red, green = (
        world.draw(type(scenes[0])(**{**vars(scenes[0]), "colour": scene.colour}), 128)
        for scene in scenes
    )
    where = np.abs(red.astype(int) - green).max(axis=2) > 40
    assert 0.05 < where.mean() < 0.5
    redness = red[where].astype(int) @ (1, -1, 0)
    assert np.median(redness) > 40
    # Nothing touches the border, so no sculpture is cut off.
    border = np.concatenate([where[0], where[-1], where[:, 0], where[:, -1]])
    assert not border.any()


def test_pictures_have_the_asked_size_and_the_same_content_at_any():
    stimulus = world.stimuli(world.test_concepts()[:1], 1)[0]
    small, large = render(stimulus, 64), render(stimulus, 128)
    assert small.shape == (64, 64, 3)
    assert small.dtype == np.uint8
    halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 6


def test_pictures_differ_between_exemplars_and_between_concepts():
    listed = world.stimuli(world.test_concepts()[:12], 2)
    pictures = np.stack([render(stimulus, 64).astype(float) for stimulus in listed])
    for n, picture in enumerate(pictures):
        others = np.abs(np.delete(pictures, n, axis=0) - picture).mean(axis=(1, 2, 3))
        assert others.min() > 8
    assert (pictures.std(axis=(1, 2)) > 5).all()
