"""Rate, drift and gaps of a stream: right, the same everywhere, none where they mean nothing."""

import io
import re
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.screen import Screen
from stream.acquire.acquisition import Acquisition
from stream.acquire.chunk import Chunk
from stream.acquire.trials import Cutting, Window
from stream.acquire.watch.rate import Flow
from stream.pipeline.books.painting_tally import PaintingTally
from stream.pipeline.books.summary import summary_rows
from stream.pipeline.books.terminal import StreamNews, TerminalView
from stream.pipeline.wire.frames import pack, unpack
from stream.pipeline.wire.messages import Painted, Retrieval, StreamHealth
from tests.refs import about, answer

DECLARED_HZ = 250.0
NO_FLOW = Flow()
STATES = ("stalled", "recovered", "streaming", "lost")
SUMMARY = {
    "markers": 0,
    "decoded": 0,
    "cut": 0,
    "dropped": {},
    "n": 0,
    "by_tmax": {},
    "confidence": None,
    "latency_ms": {},
    "painting": None,
}


def streamed(ppm: float, lost: tuple[int, ...] = (), lasts_s: float = 30.0) -> Acquisition:
    """What a stream with a period that is longer by `ppm` came to; a loss is of half a second."""
    acquisition = Acquisition(1, Cutting(Window(0, 100), DECLARED_HZ))
    stamps_s = 900.0 + np.arange(int(lasts_s * DECLARED_HZ)) / DECLARED_HZ * (1 + ppm * 1e-6)
    gone = [number + k for number in lost for k in range(125)]
    for part in np.array_split(np.delete(stamps_s, gone), 200):
        acquisition.add_eeg(Chunk(part, np.zeros((len(part), 1)), 0.0, float(part[-1])))
    return acquisition


def health(state: str, flow: Flow = NO_FLOW) -> StreamHealth:
    return StreamHealth(
        stream="cap",
        state=state,
        **flow._asdict(),
        age_s=0.0,
        flat=[],
        clipped=[],
        offset_s=0.0,
        offset_uncertainty_s=0.0,
    )


def on_screen(flow: Flow) -> str:
    """The line below the answers."""
    screen = Screen(file=io.StringIO(), width=200, height=20, force_terminal=True)
    view = TerminalView(screen, False, None, "live")
    view.open()
    view.take(unpack(pack(health("streaming", flow))))
    view.close()
    return screen.file.getvalue()


@settings(max_examples=10, deadline=None)
@given(
    ppm=st.floats(-200, 200),
    lost=st.sets(st.sampled_from([2000, 3500, 5000, 6200]), max_size=3),
)
def test_screen_and_summary_tell_the_same_and_it_is_right(ppm: float, lost: set[int]) -> None:
    acquisition = streamed(ppm, tuple(sorted(lost)), lasts_s=30 + 0.5 * len(lost))
    flow = acquisition.flow
    came_hz = DECLARED_HZ / (1 + ppm * 1e-6)  # but for what was lost
    assert flow.rate_hz == pytest.approx(came_hz, rel=0.1 if lost else 1e-4)
    assert flow.drift_ppm is None or flow.drift_ppm == pytest.approx(ppm, abs=5)
    assert lost or flow.drift_ppm is not None
    assert flow.gaps == len(lost)
    rows = dict(summary_rows(SUMMARY | {"streams": acquisition.facts()}))
    assert rows["EEG"] == flow.told()
    assert flow.told() in on_screen(flow)


def test_nothing_is_told_before_it_is_known() -> None:
    assert streamed(0.0, lasts_s=2.0).flow == Flow(None, None, 0)
    assert Flow().told() == ""
    assert "EEG" not in dict(summary_rows(SUMMARY | {"streams": streamed(0, lasts_s=2.0).facts()}))
    assert " Hz" not in on_screen(Flow())
    assert "stream 'cap' is streaming" in on_screen(Flow())  # which is news, as it is of markers


@given(st.lists(st.tuples(st.sampled_from([0.3, 20, 90]), st.sampled_from(STATES)), max_size=40))
def test_a_stall_is_told_or_counted_and_a_loss_is_told(changes: list[tuple[float, str]]) -> None:
    news, now_s, lines = StreamNews(), 0.0, list[str]()
    for after_s, state in changes:
        now_s += after_s
        lines += news.of(health(state), now_s)
    lines += news.rest()
    states = [state for state, _ in groupby(state for _, state in changes)]
    n_told = lines.count("stream 'cap' is stalled")
    counted = re.findall(r"stalled (once|\d+ times) more", " ".join(lines))
    n_counted = sum(1 if one == "once" else int(one.split()[0]) for one in counted)
    assert n_told + n_counted == states.count("stalled")
    assert n_told > 0 or not n_counted
    assert lines.count("stream 'cap' is lost") == states.count("lost")


def test_stalls_of_a_busy_machine_are_a_line_a_minute() -> None:
    news = StreamNews()
    states = (("stalled", "recovered", "streaming")[n % 3] for n in range(3 * 150))
    lines = [one for n, state in enumerate(states) for one in news.of(health(state), 0.5 * n)]
    assert lines[:3] == [f"stream 'cap' is {state}" for state in STATES[:3]]
    assert (
        lines[3:]
        == ["stream 'cap' stalled 39 times more within a minute"]
        + ["stream 'cap' stalled 40 times more within a minute"] * 2
    )


@pytest.mark.parametrize("percent", [-20, -2, 2, 20])
def test_another_rate_is_no_drift(percent: int) -> None:
    flow = streamed((1 / (1 + percent / 100) - 1) * 1e6).flow
    assert flow.rate_hz == pytest.approx(DECLARED_HZ * (1 + percent / 100), rel=1e-3)
    assert flow.drift_ppm is None
    assert "ppm" not in flow.told()


@pytest.mark.parametrize("is_timed", [True, False])
def test_in_virtual_time_nothing_is_told_of_how_long_it_took(is_timed: bool) -> None:
    stamps = {"window_end": 1.0, "taken": 1.0, "painted": 2.0, "published": 2.0}
    found = {"ids": ["a"], "labels": ["a"], "scores": [1.0], "probabilities": [1.0], "rank": 1}
    sure = {"confidence": 1.0, "calibrated": True, "abstain": False}
    image = {"seed": 1, "ip_scale": 1.0, "steps": 4, "size_px": 64, "strength": 1.0, "image": b""}
    about_it = {"about": about(1), "answer": answer(), "stamps": stamps}
    screen = Screen(file=io.StringIO(), width=200)
    view = TerminalView(screen, True, None, "replay", is_timed=is_timed)
    view.take(Retrieval(**about_it, **found, **sure))
    view.take(Painted(**about_it, **image, file="x.png", image_format="png"))
    said = screen.file.getvalue()
    assert ("1000.0 ms" in said) == ("painted (1.00 s)" in said) == is_timed
    tally = PaintingTally(is_timed)
    tally.add_image(1, {"provisional": False, "stamps": stamps})
    spans = {name for name in tally.summary(1, {}) if name.endswith("_ms")}
    assert spans == ({"image_ms", "paint_ms"} if is_timed else {"paint_ms"})
