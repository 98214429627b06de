"""Evaluation: accuracies known beforehand, intervals, and what does not belong together."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from scipy.stats import binomtest

from decoder.bundle import Bundle
from decoder.calibration import Calibration
from decoder.evidence import known_mean
from hvf_core.problem import Problem
from index.gallery import Gallery
from offline_train.brain.gallery import build_gallery
from offline_train.brain.train import TrainedModels
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import embed
from offline_train.evaluate.metrics import (
    ece_interval,
    ece_of_noise,
    estimated_mean,
    estimated_rate,
    estimated_rates,
    expected_calibration_error,
    reliability_bins,
)
from offline_train.evaluate.result import THRESHOLDS, Evaluation, Results
from offline_train.evaluate.retrieval import evaluate
from offline_train.evaluate.tables import accuracy_table, among_table, selective_table


@pytest.mark.slow
def test_accuracies_are_those_of_a_plain_count(trained: tuple) -> None:
    planted, models, bundle, gallery = trained
    point = evaluate(bundle, planted.test, gallery, repeats=[4]).points[0]
    items = planted.test.items
    means = planted.test.mean(list(planted.test.repeats.values()))
    order = np.argsort(-(embed(models.brain, means) @ gallery.embeddings.T), axis=1)
    assert items == tuple(gallery.ids)
    rank = np.array([np.flatnonzero(row == i)[0] for i, row in enumerate(order)])
    assert point.top1.value == pytest.approx(np.mean(rank == 0))
    assert point.top5.value == pytest.approx(np.mean(rank < 5))
    assert point.draws == 1
    for accuracy in (point.top1, point.top5):
        assert accuracy.low <= accuracy.value <= accuracy.high


def test_an_evaluation_is_repeatable_json_and_a_table(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    first = evaluate(bundle, planted.test, gallery, repeats=[1, 2], draws=3, seed=5)
    assert first == evaluate(bundle, planted.test, gallery, repeats=[1, 2], draws=3, seed=5)
    assert Evaluation.model_validate(json.loads(first.model_dump_json())) == first
    assert (first.n_way, first.n_items) == (40, 40)
    assert (first.chance_top1, first.chance_top5) == (1 / 40, 5 / 40)
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(accuracy_table(first))
    assert max(map(len, capture.get().splitlines())) <= 100
    assert "40-way" in capture.get()
    assert "NOT calibrated" in capture.get()
    assert "--hold-out" in capture.get()
    assert f"{100 * first.points[1].top1.value:.1f}" in capture.get()


CALIBRATION = Calibration(
    tmax_s=(0.05, 0.12, 0.19),
    repeats=(1, 4),
    mean=((3.0, 2.0), (2.0, 1.5), (1.2, 0.7)),
    added=((1.0, 1.6), (1.0, 1.4), (1.0, 1.2)),
    n_items=40,
)


def calibrated(bundle: Bundle) -> Bundle:
    manifest = bundle.manifest.model_copy(update={"calibration": CALIBRATION})
    return replace(bundle, manifest=manifest)


def softmax(scores: np.ndarray) -> np.ndarray:
    odds = np.exp(np.asarray(scores, np.float64))
    return odds / odds.sum()


def one_by_one(
    models: TrainedModels,
    trials: TrialSet,
    gallery: Gallery,
    orders: Sequence[Sequence[int]],
    tmax_s: float,
    evidence: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank and probability of each right image, and confidence, one stimulus at a time."""
    scale, n_times = math.exp(models.logit_scale), round(tmax_s * 100) + 1
    found = []
    for row, order in enumerate(orders):
        seen = np.stack([trials.data[trials.rows[position]] for position in order])
        n = len(seen)

        def cosines(eeg: np.ndarray) -> np.ndarray:
            z = embed(models.brain, eeg[None])[0].astype(np.float64)
            return gallery.embeddings @ (z / np.linalg.norm(z))

        if evidence == "mean":
            temperature = CALIBRATION.temperature("mean", tmax_s, n)
            p = softmax(scale * cosines(known_mean(seen, n_times)) / temperature)
        else:
            product = np.zeros(len(gallery))
            for i in range(n):
                end = n_times if i == n - 1 else 20
                until = tmax_s if i == n - 1 else 0.19
                temperature = CALIBRATION.temperature("mean", until, 1)
                single = softmax(scale * cosines(known_mean(seen[i : i + 1], end)) / temperature)
                product += np.log(single)
            p = softmax(product / CALIBRATION.temperature("added", tmax_s, n))
        found.append((np.sum(p > p[row]), p[row], p.max()))
    rank, right, confidence = np.array(found).T
    return rank, right, confidence


@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_answers_are_those_of_a_plain_loop(
    trained: tuple, evidence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted, models, bundle, gallery = trained
    monkeypatch.setattr(
        "offline_train.evaluate.answers.BATCH", 7
    )  # so that there are several blocks
    # With one repeat of a stimulus, or only equal ones, every draw is the same.
    orders = [[int(trials[0])] * 3 for trials in planted.test.repeats.values()]
    copies = planted.test.subset([position for order in orders for position in order])
    firsts = planted.test.subset([order[0] for order in orders])
    ends = [0.05, 0.1, 0.19]
    for trials, n in ((firsts, 1), (copies, 3)):
        evaluation = evaluate(
            calibrated(bundle), trials, gallery, [n], 2, tmax_s=ends, evidence=evidence
        )
        for point in evaluation.points:
            positions = [[i * n + k for k in range(n)] for i in range(40)]
            rank, right, confidence = one_by_one(
                models, trials, gallery, positions, point.tmax_s, evidence
            )
            assert point.top1.value == pytest.approx(np.mean(rank == 0))
            assert point.top5.value == pytest.approx(np.mean(rank < 5))
            assert point.nll == pytest.approx(-np.log(right).mean(), rel=1e-4)
            ece = expected_calibration_error(confidence, rank == 0)
            assert point.ece.value == pytest.approx(ece, abs=1e-4)
            for selective in point.selective:
                given = confidence >= selective.threshold
                assert selective.coverage == pytest.approx(given.mean())
                if given.any():
                    assert selective.accuracy == pytest.approx(np.mean(rank[given] == 0))
                else:
                    assert selective.accuracy is None


@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_the_last_of_different_repeats_is_the_one_that_goes_on(
    trained: tuple, evidence: str
) -> None:
    """All orders of two repeats are two: their mean over many draws is the loop over both."""
    planted, models, bundle, gallery = trained
    pairs = planted.test.subset(np.concatenate([t[:2] for t in planted.test.repeats.values()]))
    point = evaluate(
        calibrated(bundle), pairs, gallery, [2], 200, tmax_s=[0.1], evidence=evidence
    ).points[0]
    both = [
        one_by_one(models, pairs, gallery, orders, 0.1, evidence)
        for orders in (
            [(2 * i, 2 * i + 1) for i in range(40)],
            [(2 * i + 1, 2 * i) for i in range(40)],
        )
    ]
    nll = np.mean([-np.log(right) for _, right, _ in both])
    assert point.draws == 200
    assert point.nll == pytest.approx(nll, abs=0.02)
    assert point.top5.value == pytest.approx(np.mean([rank < 5 for rank, _, _ in both]), abs=0.02)


def test_points_go_over_ends_and_repeats_and_the_whole_window_is_the_default(
    trained: tuple,
) -> None:
    planted, _, bundle, gallery = trained
    found = evaluate(bundle, planted.test, gallery, [1, 4], 3, tmax_s=[0.19, 0.05, 0.19])
    assert [(p.tmax_s, p.repeats, p.draws) for p in found.points] == [
        (0.05, 1, 3),
        (0.05, 4, 3),
        (0.19, 1, 3),
        (0.19, 4, 1),
    ]
    assert found.pooled.n == 10 * 40
    assert found.final is not None
    assert found.final.n == 4 * 40
    default = evaluate(bundle, planted.test, gallery, [1, 4], 3)
    assert [point.tmax_s for point in default.points] == [0.19, 0.19]
    assert default.points[1].top1.value == found.points[3].top1.value
    provisional = evaluate(bundle, planted.test, gallery, [1], 3, tmax_s=[0.05])
    assert provisional.final is None
    assert Evaluation.model_validate_json(provisional.model_dump_json()) == provisional


def test_more_of_the_window_and_more_repeats_tell_more(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    found = evaluate(bundle, planted.test, gallery, [1, 4], tmax_s=[0.03, 0.19])

    def top5(tmax_s: float, n: int) -> float:
        return next(p for p in found.points if (p.tmax_s, p.repeats) == (tmax_s, n)).top5.value

    assert top5(0.03, 1) < top5(0.19, 1) < top5(0.19, 4)
    assert top5(0.03, 1) < top5(0.03, 4)


def test_bins_add_up_and_pooled_ece_follows_from_the_json(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    found = evaluate(bundle, planted.test, gallery, [1, 2], 3, tmax_s=[0.1, 0.19])
    for reliability in (found.pooled, found.final):
        bins = reliability.bins
        assert sum(b.n for b in bins) == reliability.n
        assert all(b.low < b.confidence <= b.high for b in bins)
        ece = sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / reliability.n
        assert ece == pytest.approx(reliability.ece.value)
    hits = sum(b.n * b.accuracy for b in found.pooled.bins) / found.pooled.n
    assert hits == pytest.approx(np.mean([point.top1.value for point in found.points]))


def test_the_table_fits_at_its_widest(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    found = evaluate(bundle, planted.test, gallery, [1], 2)
    certain = found.points[0].top1.model_copy(update={"value": 1.0, "low": 1.0, "high": 1.0})
    point = found.points[0].model_copy(update={"top1": certain, "top5": certain, "nll": 12.34})
    wide = found.model_copy(update={"points": (point,) * 8})
    for width, n in ((100, 16), (80, 0)):
        console = Console(width=width)
        with console.capture() as capture:
            console.print(accuracy_table(wide), selective_table(wide), among_table(wide))
        assert max(map(len, capture.get().splitlines())) <= width
        assert capture.get().count("100.0 (100.0-100.0)") == n  # else on two lines
        assert capture.get().count("(100.0-100.0)") == 16
        assert "…" not in capture.get()


def test_withheld_answers_shrink_coverage_only(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    for point in evaluate(bundle, planted.test, gallery, [1, 4]).points:
        assert [s.threshold for s in point.selective] == list(THRESHOLDS)
        coverage = [s.coverage for s in point.selective]
        assert coverage[0] == 1
        assert point.selective[0].accuracy == pytest.approx(point.top1.value)
        assert coverage == sorted(coverage, reverse=True)


@pytest.mark.slow
def test_pictures_are_drawn_from_json_alone(trained: tuple, tmp_path: Path) -> None:
    from offline_train.evaluate.pictures import write_pictures  # here: matplotlib takes a second

    planted, _, bundle, gallery = trained
    for number, ends in enumerate([None, [0.05, 0.19], [0.05]]):
        found = evaluate(bundle, planted.test, gallery, [1, 4], 2, tmax_s=ends)
        results = Results.model_validate_json(Results(evaluations=(found,)).model_dump_json())
        (paths,) = write_pictures(results, tmp_path / f"{number}").values()
        assert [path.name for path in paths] == ["accuracy.png", "reliability.png"]
        for path in paths:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("L"))
            assert pixels.shape[1] == 1500
            assert pixels.std() > 5


def test_simulated_trials_are_called_so(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    format = planted.test.format.model_copy(update={"provenance": {"subject": "simulated"}})
    found = evaluate(bundle, replace(planted.test, format=format), gallery, [1])
    assert found.simulated
    console = Console(width=100)
    with console.capture() as capture:
        console.print(accuracy_table(found))
        console.print(selective_table(found))
    assert capture.get().count("(simulated)") == 2
    assert not evaluate(bundle, planted.test, gallery, [1]).simulated


def test_top5_of_two_images_is_certain(trained: tuple) -> None:
    planted, _, bundle, _ = trained
    items = planted.test.items[:2]
    gallery = build_gallery(items, items, planted.features, bundle, "a test")
    evaluation = evaluate(bundle, planted.test.select(items), gallery, repeats=[1])
    assert evaluation.chance_top5 == evaluation.points[0].top5.value == 1


def test_what_does_not_belong_together_is_refused(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    with pytest.raises(Problem, match="embedding space"):
        evaluate(bundle, planted.test, replace(gallery, space="other"), repeats=[1])
    other = planted.test.format.model_copy(update={"rate_hz": 200.0})
    with pytest.raises(Problem, match="rate_hz 200"):
        evaluate(bundle, replace(planted.test, format=other), gallery, repeats=[1])
    items = planted.test.items[1:]
    smaller = build_gallery(items, items, planted.features, bundle, "a test")
    with pytest.raises(Problem, match="'item0200' is not among the gallery's 39 images"):
        evaluate(bundle, planted.test, smaller, repeats=[1])
    with pytest.raises(Problem, match="has 4 repeats, 5 are"):
        evaluate(bundle, planted.test, gallery, repeats=[5])

    with pytest.raises(Problem, match="no calibration"):
        evaluate(bundle, planted.test, gallery, repeats=[1], evidence="added")
    for tmax_s in (-0.02, 0.21):
        with pytest.raises(Problem, match=f"tmax {tmax_s:g} s is not in .* which is 0 to 0.19 s"):
            evaluate(bundle, planted.test, gallery, repeats=[1], tmax_s=[tmax_s])
    with pytest.raises(Problem, match="no tmax"):
        evaluate(bundle, planted.test, gallery, repeats=[1], tmax_s=[])
    with pytest.raises(Problem, match="no number of repeats"):
        evaluate(bundle, planted.test, gallery, repeats=[])
    with pytest.raises(Problem, match="0 repeats"):
        evaluate(bundle, planted.test, gallery, repeats=[0])


ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@given(ANSWERS, st.integers(1, 20))
def test_ece_is_that_of_a_slow_loop(answers: list[tuple[float, bool]], n_bins: int) -> None:
    total = 0.0
    for m in range(1, n_bins + 1):
        inside = [
            (p, hit)
            for p, hit in answers
            if (m - 1) < p * n_bins <= m or (m == 1 and p == 0)  # Guo's bins are open below
        ]
        if inside:
            accuracy = sum(hit for _, hit in inside) / len(inside)
            confidence = sum(p for p, _ in inside) / len(inside)
            total += len(inside) / len(answers) * abs(accuracy - confidence)
    p, hit = (np.array(column) for column in zip(*answers, strict=True))
    assert expected_calibration_error(p, hit, n_bins) == pytest.approx(total, abs=1e-12)
    assert sum(b.n for b in reliability_bins(p, hit, n_bins)) == len(answers)


def test_a_confidence_on_the_edge_of_two_bins_is_in_the_lower_one() -> None:
    edges = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert [b.n for b in reliability_bins(edges, edges > 0, 4)] == [2, 1, 1, 1]


def test_ece_has_known_values() -> None:
    right, wrong = np.ones(4, bool), np.zeros(4, bool)
    assert expected_calibration_error(np.ones(4), right) == 0
    assert expected_calibration_error(np.ones(4), wrong) == 1
    assert expected_calibration_error(np.full(4, 0.5), np.array([1, 0, 1, 0], bool)) == 0
    # Two bins: |1/2 - 0.9| and |1 - 0.3|, half of the answers in each.
    confidence, hit = np.array([0.9, 0.9, 0.3, 0.3]), np.array([1, 0, 1, 1], bool)
    assert expected_calibration_error(confidence, hit) == pytest.approx((0.4 + 0.7) / 2)
    # One bin for all hides the opposite errors of its halves in part.
    assert expected_calibration_error(confidence, hit, 1) == pytest.approx(0.75 - 0.6)


def test_noise_is_the_ece_of_calibrated_answers() -> None:
    rng = np.random.default_rng(0)
    confidence = np.broadcast_to(rng.uniform(0.1, 1, 100), (8, 100))
    independent, shared = ece_of_noise(confidence, np.random.default_rng(1))
    found = [
        expected_calibration_error(confidence, rng.random((8, 100)) < confidence)
        for _ in range(200)
    ]
    assert independent == pytest.approx(np.mean(found), rel=0.1)
    found = [
        expected_calibration_error(confidence, rng.random((1, 100)) < confidence)
        for _ in range(200)
    ]
    assert shared == pytest.approx(np.mean(found), rel=0.1)
    assert shared > 1.5 * independent
    single = ece_of_noise(confidence[:1], rng)
    assert single[0] == single[1]


def test_the_interval_of_ece_resamples_stimuli_with_all_their_answers() -> None:
    rng = np.random.default_rng(0)
    confidence = np.full((5, 80), 0.5)
    luck = rng.random(80) < 0.7  # all five answers for a stimulus share its luck
    hit = np.broadcast_to(luck, (5, 80))
    low, high = ece_interval(confidence, hit, np.random.default_rng(1))
    expected = estimated_mean(luck - 0.5, np.random.default_rng(2))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)
    single = ece_interval(confidence[:1], hit[:1], np.random.default_rng(1))
    assert single == pytest.approx((low, high))


def test_where_all_are_alike_a_rate_is_as_uncertain_as_its_number_of_stimuli() -> None:
    rng = np.random.default_rng(0)
    none, all_ = (estimated_rate(np.full(9, edge), rng) for edge in (0.0, 1.0))
    assert (none.value, none.low, all_.value, all_.high) == (0, 0, 1, 1)
    known = binomtest(0, 9).proportion_ci(method="wilson").high
    assert (none.high, 1 - all_.low) == pytest.approx((known, known))
    # Second in each: so many of them may as well have been first, or nowhere.
    second, differ = estimated_rates(np.stack([np.full(9, 0.5), rng.random(9)], axis=1), rng)
    assert (second.low, second.high) == pytest.approx((0.5 - known / 2, 0.5 + known / 2))
    assert differ.low < differ.value < differ.high
    same = estimated_rate(np.zeros(9), rng, least=-1)
    assert (same.low, same.high) == pytest.approx((-known, known))
    some = (rng.random(9) < 0.5).astype(float)
    assert estimated_rate(some, np.random.default_rng(1)) == estimated_mean(
        some, np.random.default_rng(1)
    )


def test_the_bootstrap_agrees_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).standard_normal(4000)
    half = 1.96 * values.std() / np.sqrt(4000)
    found = estimated_mean(values, np.random.default_rng(1))
    assert found.low == pytest.approx(values.mean() - half, abs=0.004)
    assert found.high == pytest.approx(values.mean() + half, abs=0.004)
