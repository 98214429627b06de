"""People whom the model has not seen: a minute of them helps, and of nobody anything is read."""

import shutil
from pathlib import Path

import pytest

from demo.model import DemoModel
from demo.unseen.measure import Measuring, claimed
from demo.unseen.report import PICTURE, RESULT, Unseen, unseen_of, write
from demo.unseen.settings import UnseenSettings
from demo.unseen.world import World
from hvf_core.problem import Problem

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("demo_model")]
FEW = UnseenSettings(
    people=2, pictures=20, sessions=1, unseen=1, minutes=(1,), repeats=(2,), asked=60, epochs=1
)


def test_a_minute_of_a_person_helps_and_of_nobody_anything_is_read(
    demo_model: DemoModel, tmp_path: Path
) -> None:
    """By the model that the demo ships, which knows the same brain in the usual head."""
    out = tmp_path / "unseen"
    with claimed(out, FEW):
        shutil.copytree(demo_model.bundle, out / "bundle")
        world = World.of(FEW)
        features = world.features(out / "features", lambda done, total: None)
        steps = []
        measuring = Measuring(out, FEW, world, features, lambda *told: steps.append(told[:2]))
        found = unseen_of(FEW, measuring.run())
        write(found, out)
    assert steps == sorted(steps)
    assert steps[-1] == (11, 11)
    assert (out / PICTURE).stat().st_size > 10_000
    assert Unseen.model_validate_json((out / RESULT).read_text()) == found

    top5 = {(line.method, line.answers): line.measured["top5"] for line in found.lines}
    chance = 100 * 5 / 60
    none, labels = top5["none", True], top5["labels", True]
    assert none.low > chance, "the same brain"
    assert labels.value > none.value + 5, "9 pictures of 60 where it was written"
    for method in ("none", "no labels", "labels", "from scratch"):
        assert abs(top5[method, False].value - chance) < 12, "three standard errors"

    with claimed(out, FEW):
        written = {file: file.stat().st_mtime_ns for file in out.rglob("*.json")}
        assert unseen_of(FEW, measuring.run()) == found
        assert {file: file.stat().st_mtime_ns for file in out.rglob("*.json")} == written
    others = FEW.model_copy(update={"epochs": 2})
    with pytest.raises(Problem, match="was begun with other settings"), claimed(out, others):
        pass


def test_more_than_the_demo_has_is_refused() -> None:
    with pytest.raises(Problem, match=r"1600 pictures .* are 2600, the demo has 1800"):
        World.of(UnseenSettings(pictures=1600))
