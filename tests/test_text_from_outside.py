"""Text from outside is shown as it is: nothing in it is markup, a format or a terminal's escape."""

import io
import re
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from hvf_core.problem import Problem, one_sentence
from hvf_core.screen import Screen
from hvf_core.text import printable
from stream.commands.app import app
from stream.doctor.verdict import Verdict
from stream.pipeline.books.summary import summary_table
from stream.pipeline.books.terminal import TerminalView
from stream.pipeline.wire.messages import (
    Message,
    Noted,
    PaintingState,
    Retrieval,
    Settled,
    StreamHealth,
)
from tests.refs import about, answer

HOSTILE = (
    "\x1b[2J\x1b]0;mine\x07 [red]a[/b] :car: {0} {task} %s %(x)s $y ${z} \u202eb\udc80\x9b1m\n"
)
# What rich itself moves the cursor by, where there are no colours.
_OUR_OWN = re.compile(r"\x1b\[(\?25[lh]|1A|2K)|\r")

tricky = st.sampled_from("\x1b\x9b[]m{}%$:/\\<&0;abc")
texts = st.text(st.one_of(st.characters(codec=None), tricky), min_size=1, max_size=20)
texts = texts.filter(lambda text: not text.isspace())
everywhere = settings(max_examples=60, deadline=None)


def is_shown(text: str, said: str) -> bool:
    """Whether it can be read, however lines were broken and filled."""
    return "".join(printable(text).split()) in "".join(said.split())


def steers(said: str) -> list[str]:
    """What is in it beside text and the ends of lines."""
    return [one for one in said if not (one.isprintable() or one == "\n")]


@given(st.text())
@example(HOSTILE)
def test_what_can_be_printed_stays_and_nothing_else_does(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    assert (printable(text) == text) == text.isprintable()


@everywhere
@given(texts)
@example(HOSTILE)
def test_a_screen_shows_strings_as_they_are(text: str) -> None:
    screen = Screen(file=io.StringIO(), width=1000)
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    for shown in (text, table):
        screen.file = io.StringIO()
        screen.print(shown)
        said = screen.file.getvalue()
        assert steers(said) == []
        lines = text.split("\n")
        assert all(is_shown(line, said) for line in lines)


def messages(text: str) -> list[Message]:
    """Those that bring a text to the screen, in all places that they have for one."""
    stamps = dict.fromkeys(("window_end", "published"), 1.0)
    seen = [about(trial, stimulus=text, group=text) for trial in (1, 2)]
    facts = {"scores": [1.0], "probabilities": [1.0], "confidence": 1.0, "stamps": stamps}
    facts |= {"calibrated": True, "abstain": False, "rank": 2, "ids": [text], "labels": [text]}
    health = {"rate_hz": 250.0, "drift_ppm": 0.0, "age_s": 0.0, "gaps": 0}
    health |= {"offset_s": 0.0, "offset_uncertainty_s": 0.0, "clipped": (), "flat": (text,)}
    return [
        *(StreamHealth(stream=text, state=state, **health) for state in ("streaming", "lost")),
        Noted(node="reader", text=text, facts={}),
        *(Retrieval(about=one, answer=answer(), **facts) for one in seen),
        PaintingState(trial=1, state="failed", detail=text),
        Settled(trial=1, outcome="dropped", reason=text, markers=2, pending=1),
    ]


@pytest.mark.parametrize("headless", [True, False])
@everywhere
@given(text=texts)
@example(text=HOSTILE)
def test_the_view_of_a_session(headless: bool, text: str) -> None:
    terminal = {"force_terminal": True, "color_system": None, "_environ": {}}
    screen = Screen(file=io.StringIO(), width=1000, height=60, **({} if headless else terminal))
    view = TerminalView(screen, headless, None, text)
    view.open()
    for message in messages(text):
        view.take(message)
    view.say(text)
    view.close()
    said = screen.file.getvalue()
    said = said if headless else _OUR_OWN.sub("", said)
    assert steers(said) == []
    assert is_shown(text, said)


@everywhere
@given(text=texts)
@example(text=HOSTILE)
def test_the_table_of_a_session(text: str) -> None:
    summary = {
        "session": text,
        "simulated": False,
        "markers": 1,
        "decoded": 0,
        "cut": 0,
        "dropped": {text: 1},
        "n": 0,
        "by_tmax": {},
        "confidence": None,
        "latency_ms": {},
        "painting": None,
        "streams": {"notices": [text]},
    }
    screen = Screen(file=io.StringIO(), width=1000)
    screen.print(summary_table(summary))
    assert steers(screen.file.getvalue()) == []


@dataclass
class Named:
    """A stream as it calls itself."""

    name: str

    def __str__(self) -> str:
        return f"'{self.name}' (EEG)"


@pytest.mark.slow
@everywhere
@given(text=texts)
@example(text=HOSTILE)
def test_streams_and_doctor(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.acquire.lsl.list_streams", lambda wait_s: [Named(text)])
        patch.setattr(
            "stream.doctor.run.examine", lambda named, doing: [("streams", Verdict("warn", text))]
        )
        for command in ("streams", "doctor"):
            done = CliRunner().invoke(app, [command])
            assert done.exception is None or isinstance(done.exception, SystemExit)
            assert steers(done.output) == []
            assert is_shown(text, done.output)


@everywhere
@given(text=texts)
@example(text=HOSTILE)
def test_a_problem(text: str) -> None:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", said)
        patch.setattr("sys.unraisablehook", None)  # what a program's beginning changes
        patch.setattr("hvf_core.problem.ASK_TO_END", ())
        with pytest.raises(SystemExit), one_sentence():
            raise Problem(f"the stream '{text}' is not there")
    assert said.getvalue() == f"the stream '{printable(text)}' is not there\n"


def test_a_text_of_our_own_keeps_its_style() -> None:
    screen = Screen(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    screen.print(Text("right", style="green"))
    assert screen.file.getvalue() == "\x1b[32mright\x1b[0m\n"
