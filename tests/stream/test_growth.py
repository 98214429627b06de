"""The table of answers that grow with their repeats, and pictures made of characters."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from stream.pipeline.books.growth import Growth, pictures
from stream.pipeline.wire.messages import Painted, Retrieval
from tests.refs import about, answer


def found(group: str, repeat: int, rank: int, sure: float, **other: object) -> Retrieval:
    facts = {
        "about": about(repeat, stimulus=group, group=group),
        "answer": answer(),
        "ids": ["a"],
        "labels": ["a car" if rank == 1 else "a cat"],
        "scores": [1.0],
        "probabilities": [sure],
        "confidence": sure,
        "calibrated": True,
        "abstain": False,
        "rank": rank,
        "stamps": {},
    }
    return Retrieval(**facts | other)


def lines_of(renderable: object, width: int = 120) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_answers_of_an_image_stand_in_its_row() -> None:
    growth = Growth()
    for repeat, (rank, sure) in enumerate([(12, 0.04), (3, 0.11), (1, 0.62)], 1):
        growth.add(found("car", repeat, rank, sure), "a car")
        growth.add(found("cat", repeat, 2, 0.3), "a cat")
    head, car, cat, legend = lines_of(growth.table())
    assert "sure (%) after each repeat" in head
    assert car.split() == ["a", "car", "4×", "11×", "62", "right:", "a", "car"]
    assert cat.split() == ["a", "cat", "30×", "30×", "30×", "wrong:", "a"]  # by its id
    assert legend == "how sure of the answer; × where the answer was wrong"


def test_a_narrow_screen_keeps_every_number_and_whether_it_is_right() -> None:
    growth = Growth()
    for repeat in range(1, 9):
        long = ["metallic turquoise mushroom"]
        growth.add(found("mushroom", repeat, 1, 0.1 * repeat, labels=long), *long)
    head, row, *_ = lines_of(growth.table(), width=80)
    assert "sure (%) after each repeat" in head
    *name, verdict, label = row.split()
    sure = [name.pop() for _ in range(8)][::-1]
    assert (" ".join(name), verdict) == (*long, "right:")
    assert [int(one) for one in sure] == list(range(10, 90, 10))
    assert label.startswith("met")
    assert label.endswith("…")


def test_uncalibrated_answers_show_ranks() -> None:
    growth = Growth()
    for rank in (12, 3):
        growth.add(found("car", 1, rank, 0.9, calibrated=False), "car")
    head, car, legend = lines_of(growth.table())
    assert "rank after each repeat" in head
    assert car.split()[1:3] == ["12×", "3×"]
    assert legend.startswith("place of the image seen;")


def test_there_is_no_table_before_anything_repeats() -> None:
    growth = Growth()
    growth.add(found("car", 1, 1, 0.5), "car")
    growth.add(found("cat", 1, 1, 0.5), "cat")
    assert growth.table() is None


def test_a_long_session_shows_the_images_that_came_last() -> None:
    growth = Growth()
    for repeat in range(1, 31):
        for n in range(20):
            growth.add(found(f"image {n:02d}", repeat, 1, 0.5), f"image {n:02d}")
    assert [line[:8] for line in lines_of(growth.table())[1:-1]] == [
        f"image {n:02d}" for n in range(12, 20)
    ]


@pytest.mark.parametrize(("rank", "said"), [(0, "a cat"), (1, "abstains from (a car)")])
def test_an_answer_that_is_not_judged_is_neither_right_nor_wrong(rank: int, said: str) -> None:
    growth = Growth()
    for repeat in (1, 2):
        growth.add(found("car", repeat, rank, 0.2, abstain=rank == 1), "car")
    _, row, _ = lines_of(growth.table())
    assert row.endswith(said)


def test_a_long_name_leaves_room_for_its_answers() -> None:
    growth = Growth()
    for repeat in (1, 2):
        growth.add(found("car", repeat, 1, 0.62), "x" * 1000)
    _, row, _ = lines_of(growth.table())
    assert row.split()[1:] == ["62", "62", "right:", "a", "car"]


def test_pictures_keep_their_colours(tmp_path) -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:32, :, 0] = halves[32:, :, 2] = 255  # red above blue
    Image.fromarray(halves).save(tmp_path / "seen.png")
    file = io.BytesIO()
    Image.fromarray(halves[::-1]).save(file, "png")
    image = Painted(
        about=about(1),
        answer=answer(),
        seed=1,
        ip_scale=1.0,
        steps=4,
        size_px=64,
        strength=1.0,
        file="images/x.png",
        image_format="png",
        image=file.getvalue(),
        stamps={},
    )
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=80)
    console.print(pictures(image, tmp_path / "seen.png", "a flag"))
    first, *_, last, captions = console.file.getvalue().rstrip("\n").splitlines()
    red, blue = "38;2;255;0;0;48;2;255;0;0", "38;2;0;0;255;48;2;0;0;255"
    assert first.index(red) < first.index(blue)  # seen, then painted
    assert last.index(blue) < last.index(red)
    assert captions.index("seen: a flag") < captions.index("painted from trial 1 (")
