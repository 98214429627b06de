"""Rankings against a softmax by hand, with averaged and with added evidence."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.bundle import BrainEncoderRecord, BundleManifest, HVFRecord, ImageEncoderRecord
from decoder.calibration import Calibration
from hvf_core.problem import Problem
from index.ranking import Ranker, Ranking

DIM = 16
LOGIT_SCALE = 2.7
TABLE = Calibration(
    tmax_s=(0.2, 0.4, 0.9),
    repeats=(1, 4),
    mean=((3.0, 2.0), (2.0, 1.4), (1.3, 0.7)),
    added=((1.0, 3.0), (1.1, 2.5), (1.2, 2.0)),
    n_items=40,
)


def manifest_with(calibration=TABLE) -> BundleManifest:
    return BundleManifest(
        channels=("O1",),
        rate_hz=100,
        tmin_s=0.0,
        tmax_s=0.9,
        preprocessing={},
        brain_encoder=BrainEncoderRecord(hidden=6),
        image_encoders=(ImageEncoderRecord(name="semantic", dim=5, checksum="5e"),),
        hvf=HVFRecord(hidden=6),
        embedding_dim=DIM,
        logit_scale=LOGIT_SCALE,
        space="s",
        calibration=calibration,
    )


def random_unit(n: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines_of(gallery: np.ndarray, z: np.ndarray) -> np.ndarray:
    z = z.astype(np.float64)
    return gallery.astype(np.float64) @ z / np.linalg.norm(z)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = [math.exp(score - max(scores)) for score in scores]
    return np.array([power / sum(powers) for power in powers])


def temperature(evidence: str, tmax_s: float, n_repeats: int) -> float:
    return TABLE.temperature(evidence, tmax_s, n_repeats)


def says(gallery: np.ndarray, z: np.ndarray, tmax_s: float) -> np.ndarray:
    """A trial's log-probabilities, by image."""
    factor = math.exp(LOGIT_SCALE) / temperature("mean", tmax_s, 1)
    return np.log(softmax(factor * cosines_of(gallery, z)))


def check_order(ranking, by_image: np.ndarray, probabilities: np.ndarray, atol: float) -> None:
    """`by_image` and `probabilities` in the order of the gallery."""
    n = len(by_image)
    assert ranking.rows.dtype == np.int64
    assert ranking.probabilities.dtype == np.float64
    assert sorted(ranking.rows.tolist()) == list(range(n))
    assert (np.diff(ranking.scores) <= 0).all()
    assert (np.diff(ranking.probabilities) <= 0).all()
    assert ranking.probabilities.sum() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(ranking.scores, by_image[ranking.rows], atol=atol)
    np.testing.assert_allclose(ranking.probabilities, probabilities[ranking.rows], atol=1e-5)
    for place, row in enumerate(ranking.rows.tolist(), 1):
        assert ranking.rank_of(row) == place


def answer(ranker: Ranker, evidence: str, z: np.ndarray, cosines=None, trial: int = 1) -> Ranking:
    """To a whole trial, its group's first but for those before."""
    if evidence == "mean":
        return ranker.rank(z, cosines, 0.9, 1)
    return ranker.rank_added(z, cosines, 0.9, "g", trial, True)


# --- averaged evidence ---------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 200),
    seed=st.integers(0, 999),
    length=st.floats(1e-3, 1e3),
    tmax_s=st.sampled_from([0.1, 0.2, 0.33, 0.9]),
    n_repeats=st.integers(1, 80),
    by_engine=st.booleans(),
)
def test_the_mean_is_a_softmax_with_its_temperature(
    n: int, seed: int, length: float, tmax_s: float, n_repeats: int, by_engine: bool
) -> None:
    gallery = random_unit(n, seed)
    z = random_unit(1, seed + 1)[0] * np.float32(length)
    cosines = cosines_of(gallery, z)
    given_ = cosines.astype(np.float32) if by_engine else None
    ranking = Ranker(gallery, manifest_with(), "mean").rank(z, given_, tmax_s, n_repeats)
    factor = math.exp(LOGIT_SCALE) / temperature("mean", tmax_s, n_repeats)
    check_order(ranking, cosines, softmax(factor * cosines), atol=1e-5)
    assert ranking.n_repeats == n_repeats


def test_an_uncalibrated_bundle_has_temperature_1_at_any_tmax_and_number_of_repeats() -> None:
    gallery, z = random_unit(30, 0), random_unit(1, 1)[0]
    ranker = Ranker(gallery, manifest_with(None), "mean")
    cosines = cosines_of(gallery, z)
    for tmax_s, n_repeats in ((0.2, 1), (0.9, 1), (0.9, 40)):
        ranking = ranker.rank(z, None, tmax_s, n_repeats)
        check_order(ranking, cosines, softmax(math.exp(LOGIT_SCALE) * cosines), atol=1e-5)


def test_the_next_ranking_changes_no_earlier_one() -> None:
    gallery = random_unit(30, 0)
    for evidence in ("mean", "added"):
        ranker = Ranker(gallery, manifest_with(), evidence)
        kept = []
        for trial in range(4):
            z = random_unit(1, 100 + trial)[0]
            ranking = answer(ranker, evidence, z, None, trial)
            arrays = (ranking.rows, ranking.scores, ranking.probabilities)
            kept.append((arrays, [array.copy() for array in arrays]))
        for arrays, copies in kept:
            for array, copy in zip(arrays, copies, strict=True):
                np.testing.assert_array_equal(array, copy)


# --- added evidence ------------------------------------------------------------------------------


answers = st.lists(
    st.tuples(
        st.integers(1, 6),  # trial; its group is its parity
        st.sampled_from([0.2, 0.33, 0.9]),
        st.booleans(),  # final
        st.booleans(),  # cosines by the engine
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=60, deadline=None)
@given(answers, st.integers(2, 40))
def test_added_evidence_is_the_sum_over_repeats_by_hand(answers, n: int) -> None:
    """Provisional answers are no repeats, trials that come again count once, groups are apart."""
    gallery = random_unit(n, 0)
    ranker = Ranker(gallery, manifest_with(), "added")
    said: dict[int, np.ndarray] = {}  # what finished trials said, the first time
    for i, (trial, tmax_s, final, by_engine) in enumerate(answers):
        tmax_s = 0.9 if final else tmax_s
        z = random_unit(1, 1000 + i)[0]
        cosines = cosines_of(gallery, z).astype(np.float32) if by_engine else None
        group = f"group {trial % 2}"
        ranking = ranker.rank_added(z, cosines, tmax_s, group, trial, final)
        own = said.get(trial, says(gallery, z, tmax_s))
        others = [one for t, one in said.items() if t != trial and t % 2 == trial % 2]
        total, n_repeats = own + sum(others), 1 + len(others)
        factor = 1 / temperature("added", tmax_s, n_repeats)
        assert ranking.n_repeats == n_repeats
        check_order(ranking, total, softmax(factor * total), atol=1e-3)
        if final:
            said.setdefault(trial, own)


def test_agreeing_repeats_make_an_answer_surer_than_one() -> None:
    gallery = random_unit(50, 0)
    ranker = Ranker(gallery, manifest_with(), "added")
    z = gallery[7] + 0.3 * random_unit(1, 1)[0]
    first = ranker.rank_added(z, None, 0.9, "g", 1, True)
    for trial in (2, 3, 4):
        last = ranker.rank_added(z, None, 0.9, "g", trial, True)
    assert first.rows[0] == last.rows[0] == 7
    assert last.probabilities[0] > first.probabilities[0]


def test_added_evidence_of_a_bundle_without_calibration_is_refused() -> None:
    with pytest.raises(Problem, match="the bundle has no calibration and evidence 'added'"):
        Ranker(random_unit(5, 0), manifest_with(None), "added")


# --- engines and FAISS ---------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(0, 999), st.sampled_from(["mean", "added"]))
def test_the_engines_cosines_rank_as_faiss_does(n: int, seed: int, evidence: str) -> None:
    gallery, z = random_unit(n, seed), random_unit(1, seed + 1)[0]
    rankings = []
    for cosines in (None, cosines_of(gallery, z).astype(np.float32)):
        ranker = Ranker(gallery, manifest_with(), evidence)
        rankings.append(answer(ranker, evidence, z, cosines))
    faiss, engine = rankings
    np.testing.assert_allclose(engine.scores, faiss.scores, atol=1e-4)
    np.testing.assert_allclose(engine.probabilities, faiss.probabilities, atol=1e-5)
    apart = -np.diff(faiss.scores) > 1e-5  # nearer ones may change places by rounding
    if apart.all():
        np.testing.assert_array_equal(engine.rows, faiss.rows)


def test_equal_images_come_in_one_order_from_faiss_and_from_an_engine() -> None:
    gallery, z = np.repeat(random_unit(3, 0), 4, axis=0), random_unit(1, 1)[0]
    ranker = Ranker(gallery, manifest_with(), "mean")
    by_faiss = ranker.rank(z, None, 0.9, 1)
    cosines = np.empty(len(gallery), np.float32)
    cosines[by_faiss.rows] = by_faiss.scores
    np.testing.assert_array_equal(ranker.rank(z, cosines, 0.9, 1).rows, by_faiss.rows)


@pytest.mark.parametrize("evidence", ["mean", "added"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("by_engine", [False, True])
def test_values_that_are_not_finite_are_refused_and_leave_nothing_behind(
    evidence: str, value: float, by_engine: bool
) -> None:
    gallery, z = random_unit(5, 0), random_unit(1, 1)[0]
    ranker = Ranker(gallery, manifest_with(), evidence)
    bad_z, cosines = z.copy(), None
    bad_z[3] = value
    if by_engine:
        cosines = np.array([0.5, 0.1, value, 0.0, -0.1], np.float32)
    with pytest.raises(Problem, match="not finite") as caught:
        answer(ranker, evidence, bad_z, cosines)
    assert "\n" not in str(caught.value)
    ranking = ranker.rank_added(z, None, 0.9, "g", 2, True)
    assert ranking.n_repeats == 1


def test_an_embedding_of_zeros_is_refused() -> None:
    ranker = Ranker(random_unit(5, 0), manifest_with(), "mean")
    with pytest.raises(Problem, match="only zeros"):
        answer(ranker, "mean", np.zeros(DIM, np.float32))
