"""Closed loops: what the example decides and adds up, and what it comes to (simulated)."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoder.anytime import shares_of
from decoder.brain.registry import load_brain_encoder
from decoder.bundle import load_bundle
from decoder.engines.graph import UnitLength
from decoder.engines.open import open_engine
from decoder.live import LiveDecoder, Slice
from demo.evaluation import simulated_tests
from demo.model import DemoModel
from demo.stimuli import gallery_stimuli
from index.gallery import load_gallery
from index.ranking import Ranker
from index.search.flat import Flat
from tests.calling import ROOT

sys.path.append(str(ROOT / "examples"))
import closed_loop
from closed_loop import Answers, as_accurate, present, report, share


class Scripted:
    """A session that answers as it is told; None is a trial that was dropped."""

    def __init__(self, answers: list[tuple[str, float] | None]):
        self.answers, self.asked = iter(answers), []

    def reset_group(self, image: str) -> None:
        self.asked.append(("reset", image))

    def wait_for(self, image: str, stamp_s: float, *, deadline_s: float) -> SimpleNamespace:
        self.asked.append((image, stamp_s))
        told = next(self.answers)
        if told == "unheard":
            raise closed_loop.TimeOut("nobody heard it")
        answer = told and SimpleNamespace(ids=[told[0], "another"], confidence=told[1])
        return SimpleNamespace(answer=answer)


@given(st.lists(st.none() | st.tuples(st.sampled_from("ab"), st.floats(0, 1)), min_size=8))
def test_an_image_is_shown_until_its_answer_is_sure(told) -> None:
    session, shown = Scripted(told), []

    def show(image: str) -> float:
        shown.append(image)
        return float(len(shown))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_loop, "PAUSE_S", 0.0)
        answers = present(session, show, "a", 8, until=0.9)
    sure = [told is not None and told[1] >= 0.9 for told in told[:8]]
    assert len(answers) == len(shown) == (sure.index(True) + 1 if any(sure) else 8)
    assert answers == [one or ("", 0.0) for one in told[: len(shown)]]
    assert session.asked == [("reset", "a"), *(("a", n + 1.0) for n in range(len(shown)))]


def test_what_nobody_heard_is_shown_again_and_in_the_end_it_is_said() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(closed_loop, "PAUSE_S", 0.0)
        session = Scripted(["unheard", None, "unheard", ("a", 1.0)])
        assert present(session, float, "1", 8, until=0.9) == [("", 0.0), ("a", 1.0)]
        with pytest.raises(closed_loop.TimeOut):
            present(Scripted(["unheard"] * 9), float, "1", 8, until=0.9)


@pytest.mark.parametrize(
    ("hits", "of", "interval"),  # of statsmodels' proportion_confint(method="wilson")
    [(0, 10, "0.0 to 27.8"), (50, 100, "40.4 to 59.6"), (9, 10, "59.6 to 98.2")],
)
def test_shares_have_wilsons_interval(hits: int, of: int, interval: str) -> None:
    said = share(np.arange(of) < hits)
    assert said == f"{hits} of {of}, {100 * hits / of:.1f} % ({interval})"


def test_a_schedule_as_accurate_is_found_between_two_numbers() -> None:
    right = np.array([[0, 0, 1, 1], [0, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]])  # 0, 1/2, 1, 3/4
    assert [as_accurate(right, at) for at in (0, 0.25, 0.5, 0.9, 1)] == [1, 1.5, 2, 2.8, 3]


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+", line)]


@pytest.mark.slow
def test_a_loop_of_an_ideal_observer_is_as_sure_as_it_is_right_with_fewer_presentations() -> None:
    # Wald's sequential test, of 20 images: that which is shown adds N(1, 1), each other N(0, 1).
    n, most, rng = 400, 16, np.random.default_rng(0)
    log_p = rng.normal(size=(n, most, 20)).cumsum(axis=1)
    log_p[..., 0] += np.arange(1, most + 1)
    p = np.exp(log_p) / np.exp(log_p).sum(axis=2, keepdims=True)
    images = [str(i) for i in range(n)]
    answers = [
        [(image if row.argmax() == 0 else "another", float(row.max())) for row in series]
        for image, series in zip(images, p, strict=True)
    ]
    used, _, sure, _, equal = report(images, answers, 0.9)
    first = [[p >= 0.9 for _, p in own[:-1]] + [True] for own in answers]
    assert numbers(used)[0] == np.mean([at.index(True) + 1 for at in first]).round(2)
    assert numbers(sure.split(";")[1])[1] > 90
    low, high = numbers(equal.split(";")[1])[1:]
    assert 0 < low < high
    assert report(images, [own[:3] for own in answers[:-1]] + [answers[-1][:2]], 0.9)[3:] == []


def series_of(model: DemoModel, folder: Path, amplitude: float) -> tuple[list[str], list[Answers]]:
    """What the demo's decoder answers, evidence added, to 24 images shown 12 times (simulated)."""
    bundle, gallery = load_bundle(model.bundle), load_gallery(model.gallery)
    shown = gallery_stimuli()[:24]
    trials = simulated_tests(bundle, folder / "trials", 12, shown=shown, amplitude=amplitude)
    shares = shares_of(load_brain_encoder(bundle), bundle.manifest.marks(()))
    network = UnitLength(shares.rest)
    engine = open_engine(network, shares.rest_shape, "torch", cache=folder, say=pytest.fail)
    ranker = Ranker(Flat(gallery.embeddings), gallery)
    told = {"evidence": "added", "clock": lambda: 0.0, "say": pytest.fail}
    decoder = LiveDecoder(bundle.manifest, shares, ranker, engine, **told)
    answers = []
    for image, places in trials.repeats.items():
        answers.append([])
        for place in places:
            eeg = np.ascontiguousarray(trials.data[trials.rows[place]])
            (answer,) = decoder.take(Slice(int(place), image, image, 0, True, eeg))
            best = answer.ranked.rows[0], np.exp(answer.ranked.log_p[0])
            answers[-1].append((gallery.ids[best[0]], float(best[1])))
    return [*trials.repeats], answers


@pytest.mark.slow
def test_the_simulated_subject_is_decoded_surely_and_nobody_is_not(
    demo_model: DemoModel, tmp_path: Path
) -> None:
    images, answers = series_of(demo_model, tmp_path / "subject", 1.0)
    used, _, sure, *_ = report(images, answers, 0.8)
    assert numbers(used)[0] < 11
    assert numbers(sure.split(";")[1])[1] > 50
    images, answers = series_of(demo_model, tmp_path / "nobody", 0.0)
    assert max(p for own in answers for _, p in own) < 0.8
    assert len(report(images, answers, 0.8)) == 3
