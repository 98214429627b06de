"""Rankings against the whole gallery sorted, with a softmax by hand and evidence added by hand."""

import math

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.answer import Ranked
from decoder.bundle import BrainEncoderRecord, BundleManifest, HVFRecord, ImageEncoderRecord
from decoder.calibration import Calibration, log_softmax
from decoder.evidence import evidence_of
from hvf_core.problem import Problem
from index.gallery import Gallery
from index.ranking import Ranker
from index.search.flat import Flat

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


class Decoder:
    """Answers a trial's embedding, as a live decoder does when its EEG is in."""

    def __init__(self, gallery: np.ndarray, evidence: str, calibration=TABLE) -> None:
        ids = tuple(f"image {row}" for row in range(len(gallery)))
        self.ranker = Ranker(Flat(gallery), Gallery(ids, ids, gallery, "s", (), "test"))
        self.evidence = evidence_of(manifest_with(calibration), evidence, (1, DIM), pytest.fail)

    def rank(self, z, cosines=None, tmax_s=0.9, group="g", trial=1, k=5, shown=None) -> Ranked:
        query = self.evidence.query(trial, group, z, tmax_s)
        return self.ranker.rank(query, k, shown, cosines)

    def finish(self, z, group="g", trial=1) -> None:
        self.evidence.finish(trial, group, z[None], z)


def check(ranked: Ranked, log_likelihoods: np.ndarray, temperature: float, k: int) -> None:
    """Against all images sorted; log-likelihoods in the order of the gallery, of float64."""
    n, atol = len(log_likelihoods), 3e-6 * np.abs(log_likelihoods).max()
    assert ranked.rows.dtype == np.int64
    assert len(ranked.rows) == len(ranked.scores) == len(ranked.log_p) == min(k, n)
    order = np.argsort(-log_likelihoods)
    if (-np.diff(log_likelihoods[order]) > 2 * atol).all():  # else rounding may decide
        np.testing.assert_array_equal(ranked.rows, order[:k])
    log_p = np.log(softmax(log_likelihoods / temperature))
    np.testing.assert_allclose(ranked.log_p, log_p[ranked.rows], atol=3 * atol / temperature)
    assert ranked.exact


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    k=st.integers(1, 12),
    copies=st.integers(1, 3),
    seed=st.integers(0, 999),
    tmax_s=st.sampled_from([0.1, 0.2, 0.33, 0.9]),
    n_repeats=st.integers(1, 80),
    by_engine=st.booleans(),
)
def test_an_answer_is_the_head_of_the_whole_gallery_sorted_by_faiss(
    n, k, copies, seed, tmax_s, n_repeats, by_engine
) -> None:
    """To the bit: lists, scores and ranks are those of an index that returns all images."""
    gallery, z = np.tile(random_unit(n, seed), (copies, 1)), random_unit(1, seed + 1)
    whole = faiss.IndexFlatIP(DIM)
    whole.add(gallery)
    found, rows = whole.search(z / np.sqrt(np.dot(z[0], z[0])), len(gallery))
    scores, rows = found[0], rows[0]
    cosines = None
    if by_engine:
        cosines = np.empty(len(gallery), np.float32)
        cosines[rows] = scores
    factor = math.exp(LOGIT_SCALE) / temperature("mean", tmax_s, n_repeats)
    log_p = log_softmax(scores, factor)
    decoder = Decoder(gallery, "mean")
    for trial in range(2, n_repeats + 1):
        decoder.finish(z[0], trial=trial)
    for place in {0, len(gallery) // 2, len(gallery) - 1}:
        shown = f"image {rows[place]}"
        ranked = decoder.rank(z[0], cosines, tmax_s, k=k, shown=shown)
        np.testing.assert_array_equal(ranked.rows, rows[:k])
        np.testing.assert_array_equal(ranked.scores, scores[:k])
        np.testing.assert_allclose(ranked.log_p, log_p[:k], atol=1e-12)
        np.testing.assert_allclose(
            ranked.log_p, factor * ranked.scores - ranked.log_total, atol=1e-12
        )
        assert ranked.rank_of_shown == place + 1
        assert ranked.n_repeats == n_repeats


def test_an_image_that_was_shown_and_is_not_in_the_gallery_has_no_rank() -> None:
    for shown in (None, "elsewhere"):
        ranked = Decoder(random_unit(9, 0), "mean").rank(random_unit(1, 1)[0], shown=shown)
        assert ranked.rank_of_shown == 0


def test_what_does_not_count_is_in_no_answer_whoever_gives_the_cosines() -> None:
    gallery, z = random_unit(9, 0), random_unit(1, 1)[0]
    ids = tuple(f"image {row}" for row in range(9))
    rows = np.array([1, 4, 5, 8])
    ranker = Ranker(Flat(gallery, rows), Gallery(ids, ids, gallery, "s", (), "test"))
    query = evidence_of(manifest_with(), "mean", (1, DIM), pytest.fail).query(1, "g", z, 0.9)
    for cosines in (None, cosines_of(gallery, z).astype(np.float32)):
        ranked = ranker.rank(query, 9, "image 5", cosines)
        assert sorted(ranked.rows) == rows.tolist()
        assert np.exp(ranked.log_p).sum() == pytest.approx(1)
        assert ranked.rank_of_shown == ranked.rows.tolist().index(5) + 1
        assert ranker.rank(query, 9, "image 0", cosines).rank_of_shown == 0


def test_an_uncalibrated_bundle_has_temperature_1_at_any_tmax_and_number_of_repeats() -> None:
    gallery, z = random_unit(30, 0), random_unit(1, 1)[0]
    decoder = Decoder(gallery, "mean", None)
    for tmax_s, n_repeats in ((0.2, 1), (0.9, 1), (0.9, 40)):
        for repeat in range(2, n_repeats + 1):
            decoder.finish(z, trial=repeat)
        ranked = decoder.rank(z, None, tmax_s)
        assert ranked.n_repeats == n_repeats
        check(ranked, math.exp(LOGIT_SCALE) * cosines_of(gallery, z), 1.0, 5)


@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_the_next_ranking_changes_no_earlier_one(evidence: str) -> None:
    decoder, kept = Decoder(random_unit(30, 0), evidence), []
    for trial in range(4):
        z = random_unit(1, 100 + trial)[0]
        ranked = decoder.rank(z, trial=trial)
        decoder.finish(z, trial=trial)
        arrays = (ranked.rows, ranked.scores, ranked.log_p)
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
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=60, deadline=None)
@given(answers, st.integers(2, 40), st.integers(1, 7))
def test_added_evidence_is_the_sum_over_repeats_by_hand(answers, n: int, k: int) -> None:
    """Provisional answers are no repeats, trials that come again count once, groups are apart."""
    gallery = random_unit(n, 0)
    decoder = Decoder(gallery, "added")
    said: dict[int, np.ndarray] = {}  # what finished trials said, the first time
    for i, (trial, tmax_s, final) in enumerate(answers):
        tmax_s = 0.9 if final else tmax_s
        z, group, shown = random_unit(1, 1000 + i)[0], f"group {trial % 2}", i % n
        ranked = decoder.rank(z, None, tmax_s, group, trial, k, f"image {shown}")
        own = said.get(trial, says(gallery, z, tmax_s))
        others = [one for t, one in said.items() if t != trial and t % 2 == trial % 2]
        total, n_repeats = own + sum(others), 1 + len(others)
        assert ranked.n_repeats == n_repeats
        check(ranked, total, temperature("added", tmax_s, n_repeats), k)
        # Scores are the sums but for what all images share: as probabilities they add up to 1.
        np.testing.assert_allclose(
            ranked.scores, np.log(softmax(total))[ranked.rows], atol=1e-5 * np.abs(total).max()
        )
        assert abs(ranked.rank_of_shown - 1 - np.sum(total > total[shown])) <= np.sum(
            np.abs(total - total[shown]) < 1e-5 * np.abs(total).max()
        )
        if final:
            decoder.finish(z, group, trial)
            said.setdefault(trial, own)


def test_agreeing_repeats_make_an_answer_surer_than_one() -> None:
    gallery = random_unit(50, 0)
    decoder = Decoder(gallery, "added")
    z = gallery[7] + 0.3 * random_unit(1, 1)[0]
    ranked = []
    for trial in (1, 2, 3, 4):
        ranked.append(decoder.rank(z, trial=trial))
        decoder.finish(z, trial=trial)
    assert ranked[0].rows[0] == ranked[-1].rows[0] == 7
    assert ranked[-1].log_p[0] > ranked[0].log_p[0]


def test_added_evidence_of_a_bundle_without_calibration_is_refused() -> None:
    with pytest.raises(Problem, match="the bundle has no calibration and evidence 'added'"):
        Decoder(random_unit(5, 0), "added", None)


# --- what is no embedding ------------------------------------------------------------------------


@pytest.mark.parametrize("evidence", ["mean", "added"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_leave_nothing_behind(
    evidence: str, value: float
) -> None:
    decoder, z = Decoder(random_unit(5, 0), evidence), random_unit(1, 1)[0]
    bad = z.copy()
    bad[3] = value
    with pytest.raises(Problem, match="not finite") as caught:
        decoder.rank(bad)
    assert "\n" not in str(caught.value)
    assert decoder.rank(z, trial=2).n_repeats == 1


def test_cosines_of_an_engine_that_are_not_finite_are_refused() -> None:
    cosines = np.array([0.5, 0.1, np.nan, 0.0, -0.1], np.float32)
    with pytest.raises(Problem, match="not finite"):
        Decoder(random_unit(5, 0), "mean").rank(random_unit(1, 1)[0], cosines)


def test_an_embedding_of_zeros_is_refused() -> None:
    with pytest.raises(Problem, match="only zeros"):
        Decoder(random_unit(5, 0), "mean").rank(np.zeros(DIM, np.float32))
