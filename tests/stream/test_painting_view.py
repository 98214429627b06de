"""What a person sees of the painter while a session runs, and in its last table."""

import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from stream.acquire.lsl import local_clock
from stream.pipeline.books.summary import summary_rows
from stream.pipeline.books.terminal import TerminalView
from stream.pipeline.wire.messages import Noted, Painted, PaintingState, Retrieval
from stream.pipeline.wire.nodes import SUPERVISOR
from tests.refs import about, answer


def image(trial: int, age_s: float = 2.0) -> Painted:
    readable_s = local_clock() - age_s
    return Painted(
        about=about(trial),
        answer=answer(0.3 if trial == 3 else 1.0),
        seed=40 + trial,
        ip_scale=1.0,
        steps=4,
        size_px=64,
        strength=1.0,
        file="images/x.png",
        image_format="webp",
        image=b"",
        stamps={"window_end": readable_s, "published": readable_s + 1.25},
    )


def state(trial: int, what: str) -> PaintingState:
    return PaintingState(trial=trial, state=what, detail="")


def noted(node: str, text: str) -> Noted:
    return Noted(node=node, text=text, facts={})


@pytest.fixture(params=[True, False], ids=["headless", "live"])
def shown(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Shows messages and returns what is on the screen."""

    def show(*messages: object) -> str:
        file = io.StringIO()
        console = Console(file=file, force_terminal=not request.param, width=200, height=20)
        view = TerminalView(console, request.param, None, "live '[/b] {x}'")
        view.open()
        for message in messages:
            view.take(message)
        view.close()
        return file.getvalue()

    show.headless = request.param
    return show


def test_images_are_counted_and_the_newest_has_an_age(shown) -> None:
    said = shown(
        state(1, "begun"),
        image(1),
        state(2, "begun"),
        state(2, "cancelled"),
        image(3),
    )
    if shown.headless:
        assert said.splitlines() == [
            "trial 1: painted (1.25 s)",
            "trial 3: painted from 0.3 s (1.25 s)",
        ]
    else:
        assert re.search(r"2 painted · 1 left out · image of trial 3, 2\.\d s old", said)


def test_nobody_steers_the_terminal_by_a_marker(shown) -> None:
    sent = "\x1b[2J\x1b]0;mine\x07\n\u202eb\udc80"
    stamps = dict.fromkeys(("window_end", "published"), 1.0)
    facts = {"ids": ["a"], "labels": [sent], "scores": [1.0], "probabilities": [1.0]}
    facts |= {"confidence": 1.0, "calibrated": True, "abstain": False, "rank": 1}
    seen = [about(n, stimulus=sent, group="a") for n in (1, 2)]
    answers = [Retrieval(about=one, answer=answer(), stamps=stamps, **facts) for one in seen]
    said = shown(*answers, noted("reader", f"'{sent}'"))
    for part in ("\x1b[2J\x1b]", "\x1b]", "\x07", "\u202e", "\udc80"):
        assert part not in said
    assert said.count(r"\x1b[2J\x1b]0;mine\x07\n\u202eb\udc80") >= 5


@pytest.mark.parametrize("no_color", [True, False])
def test_pictures_are_made_of_colours(no_color: bool) -> None:
    picture, file = io.BytesIO(), io.StringIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    colours = {"color_system": "truecolor", "no_color": no_color}
    console = Console(file=file, force_terminal=True, width=80, height=50, **colours)
    view = TerminalView(console, False, None, "demo")
    view.open()
    view.take(replace(image(1), image=picture.getvalue()))
    view.close()
    assert ("▀" in file.getvalue()) is not no_color


def test_what_looks_like_markup_is_shown_as_it_is(shown) -> None:
    stamps = dict.fromkeys(("window_end", "published"), 1.0)
    said = shown(
        Retrieval(
            about=about(1, stimulus="[/b] shown"),
            answer=answer(),
            ids=["a"],
            labels=["[red]car"],
            scores=[1.0],
            probabilities=[1.0],
            confidence=1.0,
            calibrated=True,
            abstain=False,
            rank=1,
            stamps=stamps,
        )
    )
    assert shown.headless or "live '[/b] {x}'" in said
    assert "[/b] shown" in said
    assert "[red]car" in said


def test_what_the_supervisor_notes_was_said_by_then(shown) -> None:
    said = shown(noted(SUPERVISOR, "it died"), noted("paint", "it paints"))
    assert "it died" not in said
    assert "paint: it paints" in said


def test_the_last_table_tells_of_the_painting() -> None:
    p = {"p50": 1500.0, "p95": 2000.0, "p99": 2500.0, "max": 3000.0}
    painting = {"painted": 3, "cancelled": 1, "superseded": 1, "failed": 0, "image_ms": p}
    summary = {
        "markers": 4,
        "decoded": 4,
        "cut": 0,
        "dropped": {},
        "n": 0,
        "by_tmax": {},
        "confidence": None,
        "latency_ms": {},
        "painting": painting | {"given_up": "there is no prior"},
    }
    assert list(summary_rows(summary))[1:] == [
        ("painted", "3 painted, 2 left out"),
        ("· window's end → image", "p50 1.50 s   p99 2.50 s"),
        ("· given up", "there is no prior"),
    ]
