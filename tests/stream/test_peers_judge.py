"""The judge of `bench peers`, by known answers; no peer, no stream."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.bench.peers.conditions import CONDITIONS, Plan, plan
from stream.bench.peers.job import Answer, answers, heard, message
from stream.bench.peers.judge import Truth, back_after_s, judge, sums
from stream.bench.peers.peers import OURS, PEERS, Peer
from stream.bench.peers.show import cells, where_peers_are_better
from stream.bench.peers.source import Played
from stream.bench.peers.table import put_together
from stream.bench.peers.turns import Turn

RATE_HZ, SOA_S = 100.0, 0.2
IDS = tuple(f"image-{i}" for i in range(30))
FIRST, LAST = -20, 99  # of a window


def truth(n: int) -> Truth:
    """Trial t shows image t and is answered by it; other ways move cosines by 0.01."""
    rng = np.random.default_rng(0)
    own = rng.uniform(-0.2, 0.2, (n, len(IDS)))
    own[np.arange(n), np.arange(n)] = 0.6
    other = own + rng.choice((-0.01, 0.01), own.shape)
    return Truth(IDS[:n], IDS, np.stack([own, other], axis=1), FIRST, LAST)


def played(of: Plan, away_markers: tuple[int, ...] = ()) -> Played:
    """Rows are pushed at row / rate, markers a millisecond after their onset and delay."""
    n_rows = of.onsets[-1] + 150
    pushed_s = np.arange(n_rows) / RATE_HZ
    pushed_s[[row for gap in of.lost for row in gap if row < n_rows]] = np.nan
    marked_s = np.array(of.onsets) / RATE_HZ + np.array(of.delays_s) + 1e-3
    marked_s[list(away_markers)] = np.nan
    return Played(of, pushed_s, marked_s)


def right(of: Truth, trial: int, received_s: float, moved: float = 0.0) -> Answer:
    own = of.cosines[trial, 0]
    best = np.argsort(-own)[:5]
    scores = tuple((own[best] + moved).tolist())
    return Answer(received_s, of.images[trial], tuple(IDS[i] for i in best), scores)


def end_s(of: Plan, trial: int) -> float:
    return (of.onsets[trial] + LAST) / RATE_HZ


def test_an_answer_is_right_within_what_resampling_explains() -> None:
    of, expected = plan(CONDITIONS["clean"], 2, 10, SOA_S, RATE_HZ, 0), truth(12)
    given = [right(expected, trial, end_s(of, trial) + 0.002, moved=0.009) for trial in range(12)]
    verdicts = judge(played(of), given, expected)
    assert [one.trial for one in verdicts] == list(range(2, 12))
    assert all(one.fate == "right" and one.same_top for one in verdicts)
    assert [one.latency_s for one in verdicts] == pytest.approx([0.002] * 10)


@pytest.mark.parametrize("moved", [0.05, -0.05])
def test_cosines_that_nothing_explains_are_wrong(moved: float) -> None:
    of, expected = plan(CONDITIONS["clean"], 0, 10, SOA_S, RATE_HZ, 0), truth(10)
    (verdict, *others) = judge(played(of), [right(expected, 0, 3.0, moved)], expected)
    assert verdict.fate == "wrong"
    assert {one.fate for one in others} == {"lost"}


def test_the_answer_of_another_trial_is_wrong() -> None:
    of, expected = plan(CONDITIONS["clean"], 0, 10, SOA_S, RATE_HZ, 0), truth(10)
    mixed_up = right(expected, 4, 3.0)._replace(image=IDS[5])
    verdicts = judge(played(of), [mixed_up], expected)
    assert verdicts[5].fate == "wrong"
    assert not verdicts[5].same_top
    assert verdicts[4].fate == "lost"


def test_an_image_that_no_gallery_has_is_wrong() -> None:
    of, expected = plan(CONDITIONS["clean"], 0, 10, SOA_S, RATE_HZ, 0), truth(10)
    strange = right(expected, 0, 3.0)._replace(ids=("nobody", *IDS[:4]))
    assert judge(played(of), [strange], expected)[0].fate == "wrong"


def test_answers_to_what_was_lost_are_wrong_and_silence_is_right() -> None:
    of, expected = plan(CONDITIONS["gaps"], 0, 20, SOA_S, RATE_HZ, 0), truth(20)
    answered = judge(
        played(of), [right(expected, t, end_s(of, t) + 0.1) for t in range(20)], expected
    )
    silent = judge(played(of), [], expected)
    whole = [one.trial for one in answered if one.is_whole]
    assert 0 < len(whole) < 20
    for one, other in zip(answered, silent, strict=True):
        assert one.fate == ("right" if one.trial in whole else "wrong")
        assert other.fate == ("lost" if one.trial in whole else "left out")


def test_a_second_answer_is_counted() -> None:
    of, expected = plan(CONDITIONS["clean"], 0, 10, SOA_S, RATE_HZ, 0), truth(10)
    first, second = (right(expected, 3, end_s(of, 3) + late_s) for late_s in (0.01, 0.5))
    verdicts = judge(played(of), [second, first], expected)
    assert verdicts[3].n_answers == 2
    assert verdicts[3].latency_s == pytest.approx(0.01)
    assert sums(verdicts, 0.1).n_twice == 1


def test_the_latency_of_a_late_marker_is_from_its_push() -> None:
    of, expected = plan(CONDITIONS["late"], 0, 10, SOA_S, RATE_HZ, 0), truth(10)
    assert of.delays_s[2] == 1.5
    pushed_s = of.onsets[2] / RATE_HZ + 1.5 + 1e-3
    verdict = judge(played(of), [right(expected, 2, pushed_s + 0.004)], expected)[2]
    assert verdict.latency_s == pytest.approx(0.004)


def test_a_marker_that_no_stream_was_there_for_is_not_counted() -> None:
    of, expected = plan(CONDITIONS["clean"], 0, 10, SOA_S, RATE_HZ, 0), truth(10)
    verdicts = judge(played(of, away_markers=(3, 4)), [], expected)
    assert [one.trial for one in verdicts] == [0, 1, 2, 5, 6, 7, 8, 9]


def test_a_source_that_was_away_is_back_with_the_first_right_answer() -> None:
    of, expected = plan(CONDITIONS["reconnect"], 0, 30, SOA_S, RATE_HZ, 0), truth(30)
    later = [t for t in range(30) if of.onsets[t] + FIRST >= of.away.stop]
    given = [right(expected, t, end_s(of, t) + 0.1) for t in later[2:]]
    back_s = back_after_s(played(of), judge(played(of), given, expected), RATE_HZ)
    assert back_s == pytest.approx((of.onsets[later[2]] - of.away.stop) / RATE_HZ)
    assert math.isnan(back_after_s(played(of), judge(played(of), [], expected), RATE_HZ))


@given(
    st.sampled_from(sorted(CONDITIONS)), st.integers(0, 12), st.integers(5, 150),
    st.sampled_from((0.05, 0.2, 1.0)), st.sampled_from((250.0, 1000.0)), st.integers(0, 5),
)  # fmt: skip
def test_every_plan_is_what_it_says(
    name: str, n_warm_up: int, n: int, soa_s: float, rate_hz: float, seed: int
) -> None:
    of = plan(CONDITIONS[name], n_warm_up, n, soa_s, rate_hz, seed)
    assert len(of.onsets) == len(of.phases) == len(of.delays_s) == n_warm_up + n
    assert np.abs(np.diff(of.onsets) - soa_s * rate_hz).max() <= 1
    assert max(map(abs, of.phases)) < 0.5
    assert not any(of.delays_s[:n_warm_up])
    first_fault = min((gap.start for gap in of.lost), default=of.onsets[-1])
    assert first_fault >= (of.onsets[n_warm_up] if n_warm_up < len(of.onsets) else 0)
    assert all(gap.stop > gap.start for gap in of.lost)


def test_what_is_sent_is_what_is_read(tmp_path) -> None:
    said = tmp_path / "said"
    assert answers(said) == []
    whole = heard(message("é\t1", ["a", "b"], [0.5, np.float32(0.25)]), 12.5)
    said.write_text(whole + "13.0\t[", encoding="utf-8")
    assert answers(said) == [Answer(12.5, "é\t1", ("a", "b"), (0.5, 0.25))]


def some_sums(p50_ms: float, cpu: float, n_right: int = 10, n_wrong: int = 0):
    of = sums([], cpu)
    fates = {"right": n_right, "wrong": n_wrong, "lost": 10 - n_right, "left out": 0}
    return of.__class__(10, 10, fates, 0, n_right, (p50_ms, p50_ms, p50_ms, p50_ms), cpu, math.nan)


def test_the_table_says_where_a_peer_is_better_and_what_it_cannot() -> None:
    row = {
        OURS: some_sums(4.0, 0.4, n_wrong=1),
        "quick": some_sums(2.0, 0.39),
        "frugal": some_sums(9.0, 0.1, n_right=7, n_wrong=3),
        "mute": "strings are not supported",
    }
    quick, frugal = where_peers_are_better(row)
    assert quick.startswith("quick answers sooner (p50), 2 beside 4 ms")
    assert "CPU" not in quick  # 2.5 % less is noise
    assert "answers fewer trials wrongly, 0 beside 1" in quick
    assert frugal == "frugal takes less CPU, 10 beside 40 %"
    assert cells("mute", row["mute"])[:3] == ["mute", "cannot", ""]


def test_rounds_are_put_together_and_a_sentence_stays_one() -> None:
    of, expected = plan(CONDITIONS["clean"], 0, 10, SOA_S, RATE_HZ, 0), truth(10)
    verdicts = judge(played(of), [right(expected, 0, end_s(of, 0) + 0.1)], expected)
    both = put_together([Turn(verdicts, cpu=0.2), Turn(verdicts, cpu=0.4)])
    assert (both.n, both.fates["right"], both.cpu) == (20, 2, pytest.approx(0.3))
    assert put_together([Turn(cannot="no strings")]) == "no strings"
    assert put_together([Turn(cannot="died"), Turn(verdicts, cpu=0.2)]).n == 10


def test_a_peer_whose_packages_are_missing_says_which() -> None:
    assert Peer(("numpy", "no-such-package"), "", "lsl").missing() == ["no-such-package"]
    assert PEERS[OURS].missing() == []
