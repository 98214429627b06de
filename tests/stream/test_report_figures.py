"""What the report computes of a session: known answers, intervals by another formula, curves."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvf_core.numbers import wilson
from stream.pipeline.report.accuracy import by_repeats, by_window_end, calibration, running, share
from stream.pipeline.report.charts import Frame, bars, chart, dots, line, ticks, time_axis
from stream.pipeline.report.curves import shares_frame
from stream.pipeline.report.story import Trial, number_runs


def answered(
    number: int, rank: int = 1, n_repeats: int = 1, sure: float = 0.5, group: str = ""
) -> Trial:
    answer = {
        "rank": rank,
        "n_repeats": n_repeats,
        "tmax_s": 1.0,
        "probabilities": [sure],
        "calibrated": True,
    }
    group = group or str(number)
    return Trial(number, float(number), group, group, "decoded", answer=answer)


def numbered(*trials: Trial) -> list[Trial]:
    number_runs(trials)
    return list(trials)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_has_the_shares_that_the_score_test_does_not_refuse(counts) -> None:
    k, n = counts
    found = k / n

    def is_refused(p: float) -> bool:
        return (found - p) ** 2 > 1.959964**2 * p * (1 - p) / n

    low, high = wilson(found, n)
    assert 0 <= low <= found + 1e-12
    assert found - 1e-12 <= high <= 1
    for edge, outward in ((low, -1e-6), (high, 1e-6)):
        assert not 0 < edge + outward < 1 or is_refused(edge + outward)
        assert not is_refused(edge - outward) or not 0 < edge - outward < 1


def test_intervals_of_known_counts() -> None:
    # R: prop.test(k, n, correct = FALSE)
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(23 / 40, 40) == pytest.approx((0.4220, 0.7149), abs=1e-4)


def test_repeats_that_share_eeg_count_once_for_an_interval() -> None:
    trials = numbered(
        answered(1, 3, 1, group="a"),
        answered(2, 1, 1, group="b"),
        answered(3, 1, 2, group="a"),
        answered(4, 1, 1, group="a"),  # begun anew
        answered(5, 1, 2, group="a"),
    )
    assert [trial.run for trial in trials] == [1, 2, 1, 3, 3]
    last = running(trials, 1)[-1]
    assert (last.share, last.n) == (0.8, 5)
    assert (last.low, last.high) == wilson(0.8, 3)
    alone = numbered(*(answered(n, rank) for n, rank in enumerate((3, 1, 1, 1, 1))))
    assert running(alone, 1)[-1][1:3] == wilson(0.8, 5)


def test_accuracy_so_far_and_by_repeats() -> None:
    ranks = [(1, 9), (2, 4), (3, 1), (1, 1), (2, 2)]
    trials = numbered(
        *(answered(i, rank, n, group="a" if i < 3 else "b") for i, (n, rank) in enumerate(ranks))
    )
    assert [one.share for one in running(trials, 1)] == [0, 0, 1 / 3, 2 / 4, 2 / 5]
    assert [one.share for one in running(trials, 5)] == [0, 1 / 2, 2 / 3, 3 / 4, 4 / 5]
    found = by_repeats(trials, 1)
    assert {n: (one.share, one.n) for n, one in found.items()} == {
        1: (0.5, 2),
        2: (0.0, 2),
        3: (1.0, 1),
    }


def test_provisional_answers_stand_beside_the_final_ones_of_the_same_trials() -> None:
    first, second, third = numbered(answered(1, 1), answered(2, 7), answered(3, 1))
    first.early = [{"tmax_s": 0.3, "rank": 5}, {"tmax_s": 0.5, "rank": 1}]
    second.early = [{"tmax_s": 0.3, "rank": 90}]
    found = by_window_end([first, second, third], 5)
    assert {t: (one.share, one.n) for t, one in found.items()} == {
        0.3: (0.5, 2),
        0.5: (1.0, 1),
        1.0: (0.5, 2),
    }


def test_a_calibration_curve_has_bins_of_about_as_many_answers() -> None:
    trials = numbered(*(answered(n, 1 if n % 4 == 0 else 2, sure=n / 100) for n in range(35)))
    bins = calibration(trials)
    assert [one.right.n for one in bins] == [12, 12, 11]
    assert bins[0].confidence == pytest.approx(sum(range(12)) / 12 / 100)
    assert [one.right.share for one in bins] == pytest.approx([3 / 12, 3 / 12, 3 / 11])
    assert share([True, False], [1, 2]).share == 0.5


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 10))
def test_ticks_are_round_and_inside(low: float, span: float, n: int) -> None:
    high = low + span
    found = ticks(low, high, n)
    assert len(found) <= n + 1
    slack = 1e-6 * (abs(low) + span)
    assert all(low - slack <= one <= high + slack for one in found)
    steps = [b - a for a, b in pairwise(found)]
    if steps:
        mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-6)
        assert min(abs(mantissa - k) for k in (1, 2, 2.5, 5, 10)) < 1e-3


@pytest.mark.parametrize(
    ("span_s", "unit"), [(42, (1.0, "s")), (1800, (60.0, "min")), (20000, (3600.0, "h"))]
)
def test_the_unit_of_a_time_axis(span_s: float, unit: tuple[float, str]) -> None:
    assert time_axis(span_s) == unit


def test_marks_lie_where_their_values_are() -> None:
    frame = Frame((0, 10), (0, 1), "x", x_ticks=(0, 5, 10), y_ticks=(0, 1))
    left, right, bottom, top = frame.px(0), frame.px(10), frame.py(0), frame.py(1)
    assert frame.px(5) == pytest.approx((left + right) / 2)
    assert frame.py(0.25) == pytest.approx(bottom + (top - bottom) / 4)
    assert frame.px(99) == right  # and what lies outside is drawn at the edge
    drawn = line(frame, [(0, 0), (10, 1)], "c1")
    assert f"M{left:g} {bottom:g}L{right:g} {top:g}" in drawn
    assert "3 of" not in drawn
    svg = chart(frame, "a <b>", [drawn, bars(frame, [0, 5, 10], [0.5, 0], "c1")])
    assert 'aria-label="a &lt;b&gt;"' in svg
    assert svg.count('class="bar') == 1  # an empty one is none
    many = line(frame, [(x / 1000, 0.5) for x in range(10000)], "c1")
    assert len(re.findall("L", many)) < 400


def test_a_dot_says_its_share_interval_and_n() -> None:
    frame = Frame((0, 10), (0, 1), "x")
    found = dots(frame, [(5, share([True, False], [1, 2]))], "c1")
    assert "<title>50.0% (9.5% to 90.5%), n = 2</title>" in found


@pytest.mark.parametrize(("most", "top"), [(0.01, 0.05), (0.05, 0.05), (0.3, 0.4), (1.0, 1.0)])
def test_small_shares_are_drawn_large(most: float, top: float) -> None:
    frame = shares_frame((0, 1), "x", (0, 1), most)
    assert frame.y == (0, top)
    assert frame.as_y(frame.y_ticks[0]) == "0%"
