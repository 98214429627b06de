"""Every kind of approximate search against the exact one, and what is kept of it beside a gallery.

The gallery is as fused embeddings are: a few directions hold nearly all of the variance.
"""

from functools import cache

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.answer import Query
from hvf_core.problem import Problem
from index.gallery import Gallery
from index.ranking import Ranker
from index.search import approximate
from index.search.approximate import Approximate
from index.search.base import Search
from index.search.choose import Chosen, Rows, built, choose
from index.search.dense import Dense
from index.search.flat import Flat
from index.search.kinds import KINDS, Kind
from index.search.measure import (
    TIMES,
    WEAKER,
    Figures,
    Queries,
    Truth,
    measured,
    simulated_queries,
    truth_of,
)
from index.search.remainder import SAMPLE, Remainder, moments_of

N, DIM, FACTOR = 3000, 48, 15.0
N_INDEXED = 2800
kinds = pytest.mark.parametrize("kind", KINDS)


def unit(embeddings: np.ndarray) -> np.ndarray:
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)


def drawn(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(rng.standard_normal((n, DIM)) * 0.85 ** np.arange(DIM) + 0.3)


GALLERY = drawn(N)
GALLERY[N // 2] = GALLERY[17]  # equal images
NOISY = unit(GALLERY[::60] + 0.2 * np.random.default_rng(1).standard_normal((50, DIM)))
QUERIES = Queries(NOISY, np.full(50, FACTOR), "simulated")


@cache
def index_of(kind: str) -> faiss.Index:
    return built(GALLERY[:N_INDEXED], KINDS[kind])


def search(kind: str, among: np.ndarray | None = None, n_candidates: int = 0) -> Approximate:
    n_candidates = n_candidates or (2000 if kind == "ivf-rabitq" else 200)
    moments = moments_of(GALLERY[:N_INDEXED])
    effort = KINDS[kind].efforts[-1]
    return Approximate(GALLERY, index_of(kind), effort, n_candidates, moments, among)


def check(found: Approximate, exact: Flat, vector: np.ndarray, k: int = 5) -> None:
    """What is found is right to the bit and in order, and the rest weighs what it does."""
    ours, theirs = found.scores(vector), exact.scores(vector)
    rows, cosines = ours.top_k(k)
    assert len(set(rows.tolist())) == len(rows)
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(cosines, theirs.of(rows))
    np.testing.assert_array_equal(ours.of(rows), cosines)
    order = np.lexsort((-rows, -cosines))
    np.testing.assert_array_equal(order, np.arange(len(rows)))
    assert ours.log_sum_exp(FACTOR) == pytest.approx(theirs.log_sum_exp(FACTOR), abs=0.1)
    for place, row in enumerate(rows.tolist()):
        assert ours.place_of(row) == place + 1


@kinds
def test_what_is_found_is_as_exact_search_has_it(kind: str) -> None:
    found = measured(search(kind), kind, QUERIES, truth_of(GALLERY, np.arange(N), QUERIES))
    assert found.good
    assert found.recall_1 == 1.0
    assert not search(kind).exact
    for vector in NOISY[:10]:
        check(search(kind), Flat(GALLERY), vector * 3)


@kinds
def test_rows_that_do_not_count_are_found_by_no_kind(kind: str) -> None:
    """A few holes, half of the gallery, a few images, one, and one that was added later."""
    rng = np.random.default_rng(2)
    drawn_rows = [np.sort(rng.choice(N, n, replace=False)) for n in (N - 9, N // 2, 12, 1)]
    for among in (*drawn_rows, np.array([3]), np.array([N - 1]), np.array([3, N - 1])):
        some, exact = search(kind, among), Flat(GALLERY, among)
        for vector in NOISY[:4]:
            check(some, exact, vector)
            assert set(some.scores(vector).top_k(N)[0]) <= set(among.tolist())
            outside = np.setdiff1d(np.arange(N), among)[:3]
            assert [some.scores(vector).place_of(row) for row in outside.tolist()] == [0, 0, 0]
            assert (some.scores(vector).of(outside) == -np.inf).all()


@kinds
def test_rows_that_were_added_after_the_index_was_made_are_all_looked_at(kind: str) -> None:
    for row in (N_INDEXED, N - 1):
        scores = search(kind, n_candidates=3).scores(GALLERY[row])
        assert scores.top_k(1)[0] == row
        assert scores.place_of(row) == 1


@kinds
@pytest.mark.parametrize("k", [250, N, 2 * N])
def test_more_images_than_the_index_was_asked_for_are_those_of_exact_search(
    kind: str, k: int
) -> None:
    rows, cosines = search(kind, n_candidates=20).scores(NOISY[0]).top_k(k)
    expected, expected_cosines = Flat(GALLERY).scores(NOISY[0]).top_k(k)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(cosines, expected_cosines)


@kinds
def test_of_equal_images_the_higher_row_comes_first(kind: str) -> None:
    scores = search(kind).scores(GALLERY[17])
    assert scores.top_k(2)[0].tolist() == [N // 2, 17]
    assert [scores.place_of(row) for row in (N // 2, 17)] == [1, 2]


@kinds
def test_an_image_that_was_passed_over_stands_behind_all_that_were_found(kind: str) -> None:
    """About where it is: what was shown and not found is no hit, and not unknown either."""
    vector, exact = NOISY[0], Flat(GALLERY).scores(NOISY[0])
    scores = search(kind, n_candidates=20).scores(vector)
    order = exact.top_k(N)[0]
    for place in (300, 1000, 2900):
        row = int(order[place])
        if row < N_INDEXED:
            assert scores.place_of(row) > 20
            assert scores.place_of(row) == pytest.approx(place, rel=0.3)


@kinds
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_what_is_no_embedding_is_refused_by_every_kind(kind: str, value: float) -> None:
    bad = np.full(DIM, value, np.float32)
    with pytest.raises(Problem, match="not finite, or only zeros"):
        search(kind).scores(bad)
    with pytest.raises(ValueError, match=f"width {DIM}"):
        search(kind).scores(np.ones(DIM + 1, np.float32))


def test_an_image_that_the_index_has_missed_is_none_of_the_best() -> None:
    """Though it is like the embedding to the bit: it is no answer, and is not counted as one."""
    index, missed = built(GALLERY, KINDS["ivf-sq8"]), 0
    poor = Approximate(GALLERY, index, 0.0, 60, moments_of(GALLERY))  # one list of many
    for vector, row in zip(NOISY, range(0, N, 60), strict=True):
        scores, place = poor.scores(vector), Flat(GALLERY).scores(vector).place_of(row)
        if place <= 5 and row not in scores.top_k(5)[0]:
            missed += 1
            assert scores.place_of(row) > 60
    assert missed


@kinds
def test_an_answer_has_the_probabilities_of_all_and_says_that_not_all_were_looked_at(
    kind: str,
) -> None:
    ids = tuple(map(str, range(N)))
    gallery = Gallery(ids, ids, GALLERY, "s", (), "test")
    for vector, shown in zip(NOISY[:10], range(0, N, 60), strict=False):
        query = Query(vector, FACTOR, 1.0, 1, True)
        ours = Ranker(search(kind), gallery).rank(query, 5, str(shown))
        theirs = Ranker(Flat(GALLERY), gallery).rank(query, 5, str(shown))
        assert (ours.exact, theirs.exact) == (False, True)
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        np.testing.assert_allclose(ours.log_p, theirs.log_p, atol=0.1)
        assert (ours.rank_of_shown <= 5) == (theirs.rank_of_shown <= 5)


def test_answers_outlive_the_next_search() -> None:
    one = search("ivf-pq64")
    first = one.scores(NOISY[0])
    kept = first.top_k(5)[0].tolist(), first.log_sum_exp(9.0), first.place_of(0)
    one.scores(NOISY[1])
    assert (first.top_k(5)[0].tolist(), first.log_sum_exp(9.0), first.place_of(0)) == kept


# --- what is passed over -------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(0, 20), st.floats(0, 60), st.integers(0, 999))
def test_a_remainder_that_the_sample_holds_whole_is_exact(
    n: int, n_found: int, factor: float, seed: int
) -> None:
    gallery, query = drawn(n, seed), drawn(1, seed + 1)[0]
    found = np.sort(np.random.default_rng(seed).choice(n, min(n, n_found), replace=False))
    cosines = gallery @ query
    rest = Remainder(gallery, np.arange(n), moments_of(gallery)).of(query, found, cosines[found])
    others = np.delete(cosines.astype(np.float64), found)
    if len(others) == 0:
        assert rest.log_sum_exp(factor) == (-np.inf, -np.inf)
        return
    assert rest.log_sum_exp(factor)[0] == pytest.approx(
        np.log(np.exp(factor * others).sum()), abs=1e-3
    )
    assert rest.above(0.3) == pytest.approx((others > 0.3).sum(), abs=1)


def test_of_a_larger_remainder_a_sample_says_the_total_to_a_few_hundredths() -> None:
    gallery = drawn(5 * SAMPLE, 5)
    remainder = Remainder(gallery, np.arange(len(gallery)), moments_of(gallery))
    errors = []
    for query in NOISY:
        exact = Flat(gallery).scores(query)
        found = np.sort(exact.top_k(200)[0])
        rest = remainder.of(query, found, exact.of(found))
        total = np.logaddexp(
            Flat(gallery, found).scores(query).log_sum_exp(FACTOR), rest.log_sum_exp(FACTOR)[0]
        )
        errors.append(total - exact.log_sum_exp(FACTOR))
    assert np.sqrt(np.mean(np.square(errors))) < 0.02


def test_moments_of_some_rows_are_those_of_a_gallery_of_them() -> None:
    rows = np.arange(0, N, 7)
    whole, some = moments_of(GALLERY), moments_of(GALLERY, rows)
    others = whole.without(moments_of(GALLERY, np.setdiff1d(np.arange(N), rows)))
    for one in (some, others):
        assert one.n == len(rows)
        np.testing.assert_allclose(one.first, GALLERY[rows].sum(axis=0), atol=1e-3)
        np.testing.assert_allclose(one.second, GALLERY[rows].T @ GALLERY[rows], atol=1e-2)


# --- choosing ------------------------------------------------------------------------------------


def test_truth_is_that_of_exact_search_for_each_query() -> None:
    rows = np.arange(0, N, 3)
    truth = truth_of(GALLERY, rows, QUERIES)
    for vector, best, total in zip(NOISY, truth.best, truth.log_totals, strict=True):
        scores = Flat(GALLERY, rows).scores(vector)
        np.testing.assert_allclose(best, scores.top_k(5)[1], atol=1e-6)
        expected = [scores.log_sum_exp(times * FACTOR) for times in TIMES]
        assert total == pytest.approx(expected, abs=1e-3)


def test_exact_search_is_measured_to_be_exact() -> None:
    found = measured(Flat(GALLERY), "exact", QUERIES, truth_of(GALLERY, np.arange(N), QUERIES))
    assert (found.recall_1, found.recall_5) == (1.0, 1.0)
    assert found.regret == pytest.approx(0, abs=1e-6)
    assert found.log_p_error < 1e-4
    assert found.p_error < 1e-4
    assert found.good


def rows_of_all() -> Rows:
    return Rows(GALLERY, np.arange(N), moments_of(GALLERY))


def test_a_kind_that_misses_images_is_never_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast: exact search is, and what was found otherwise is told."""
    poor = Kind(factory="IVF64,Flat", efforts=(0.01,))

    def slow(search: Search, kind: str, queries: Queries, truth: Truth) -> Figures:
        took = {"p50_ms": 1e3} if kind == "exact" else {}
        return measured(search, kind, queries, truth).model_copy(update=took)

    monkeypatch.setattr("index.search.choose.measured", slow)
    monkeypatch.setattr("index.search.choose.KINDS", {"poor": poor, "poorer": poor})
    chosen = choose(rows_of_all(), QUERIES, ["poor", "poorer"], lambda text: None)
    assert chosen.figures.kind == "exact"
    assert chosen.index is None
    assert [figures.kind for figures in chosen.tried] == ["exact", "poor", "poorer"]
    assert chosen.tried[1].recall_5 < 0.9
    assert not chosen.tried[1].good


def test_one_kind_that_was_asked_for_is_kept_with_its_best_settings() -> None:
    chosen = choose(rows_of_all(), QUERIES, ["ivf-sq8"], lambda text: None)
    assert chosen.figures.kind == "ivf-sq8"
    assert chosen.figures.good
    assert chosen.index is not None
    assert chosen.index.ntotal == N
    assert chosen.figures.n_queries == 25  # the other half has chosen


def test_simulated_queries_lie_among_the_images_and_off_them() -> None:
    queries = simulated_queries(GALLERY, np.arange(N), FACTOR, 200)
    np.testing.assert_allclose(np.linalg.norm(queries.vectors, axis=1), 1, atol=1e-5)
    best = truth_of(GALLERY, np.arange(N), queries).best[:, 0]
    assert 0.35 < np.median(best) < 0.95


@pytest.mark.slow
def test_a_setting_has_a_margin_where_it_is_chosen_and_is_only_refused_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """0.992 of the best five choose no kind; where the other half has fewer, none is taken."""

    def told(recalls: list[float]) -> Chosen:
        def fake(search: Search, kind: str, queries: Queries, truth: Truth) -> Figures:
            found = measured(search, kind, queries, truth)
            recall = 1.0 if kind == "exact" else recalls.pop(0) if recalls else 0.992
            took = 1e3 if kind == "exact" else 1.0
            known = {"recall_5": recall, "regret": 0.0, "log_p_error": 0.0, "p50_ms": took}
            return found.model_copy(update={"queries": "brain", **known})

        monkeypatch.setattr("index.search.choose.measured", fake)
        return choose(rows_of_all(), QUERIES, ["ivf-sq8", "ivf-pq64"], lambda text: None)

    assert told([]).figures.kind == "exact"
    taken = told([0.999] * 6)  # three numbers of candidates of each kind, and then the report
    assert (taken.figures.kind, taken.figures.recall_5) == ("ivf-sq8", 0.992)
    refused = told([0.999] * 6 + [0.985])
    assert refused.figures.kind == "exact"
    assert refused.index is None
    assert refused.tried[1].recall_5 == 0.985


def test_simulated_queries_have_to_be_answered_better_than_those_of_a_brain() -> None:
    found = measured(Flat(GALLERY), "exact", QUERIES, truth_of(GALLERY, np.arange(N), QUERIES))
    so_so = found.model_copy(update={"recall_5": 0.992})
    assert not so_so.good
    assert so_so.model_copy(update={"queries": "brain"}).good


def test_weaker_queries_follow_each_that_they_were_made_of() -> None:
    made = QUERIES.with_weaker(GALLERY, np.arange(N))
    assert made.vectors.shape == (150, DIM)
    np.testing.assert_array_equal(made.vectors[::3], NOISY)
    for i, cosine in enumerate((1.0, *WEAKER)):
        np.testing.assert_allclose((made.vectors[i::3] * NOISY).sum(axis=1), cosine, atol=1e-4)
    assert made.weaker == WEAKER


def test_where_a_few_images_tell_too_little_of_the_rest_all_are_looked_at() -> None:
    """At ten times the factor chance has more say: a total is right there too."""
    gallery = drawn(4 * SAMPLE, 5)
    few = Approximate(gallery, built(gallery, KINDS["ivf-sq8"]), 1.0, 60, moments_of(gallery))
    for factor in (FACTOR, 3 * FACTOR, 10 * FACTOR):
        errors = [
            few.scores(query).log_sum_exp(factor) - Flat(gallery).scores(query).log_sum_exp(factor)
            for query in NOISY
        ]
        assert np.sqrt(np.mean(np.square(errors))) < 0.03


def test_of_very_many_images_more_are_asked_before_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = drawn(4 * SAMPLE, 5)
    index, moments = built(gallery, KINDS["ivf-sq8"]), moments_of(gallery)
    n_exact, exactly = [], Approximate.exactly

    def counted(search: Approximate, query: np.ndarray) -> Dense:
        n_exact.append(query)
        return exactly(search, query)

    def looked_at(more: int) -> int:
        """How often all images were, with a second sample of so many."""
        monkeypatch.setattr(approximate, "MORE", more)
        some, before = Approximate(gallery, index, 1.0, 60, moments), len(n_exact)
        for query in NOISY:
            total = some.scores(query).log_sum_exp(FACTOR)
            assert total == pytest.approx(Flat(gallery).scores(query).log_sum_exp(FACTOR), abs=0.1)
        return len(n_exact) - before

    monkeypatch.setattr(Approximate, "exactly", counted)
    monkeypatch.setattr(approximate, "SAMPLE", 100)
    without = looked_at(10**9)
    assert without > len(NOISY) / 2
    assert looked_at(2 * 1024) < without / 2


# --- the edges of what may be asked --------------------------------------------------------------


@kinds
def test_as_many_images_as_there_are_and_places_among_them(kind: str) -> None:
    among = np.arange(0, N, 4)
    for some, n in ((search(kind, among, 4000), len(among)), (search(kind, None, 4000), N)):
        scores = some.scores(NOISY[0])
        assert len(scores.top_k(n)[0]) == n
        rows = np.arange(N) if some.among is None else among
        assert max(scores.place_of(row) for row in rows[::50].tolist()) <= n


@pytest.mark.parametrize("row", [N, -1, 10**9])
def test_a_row_outside_is_no_memory_that_is_read(row: int) -> None:
    scores = search("ivf-sq8").scores(NOISY[0])
    for ask in (scores.of, scores.place_of):
        with pytest.raises(IndexError):
            ask(row)


@pytest.mark.parametrize("length", [1e-60, 1e-22, 1e22, 1e60])
def test_an_embedding_may_be_of_any_length(length: float) -> None:
    expected = Flat(GALLERY).scores(NOISY[0]).top_k(5)[1]
    found = Flat(GALLERY).scores(NOISY[0].astype(np.float64) * length).top_k(5)[1]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if 1e-38 < length < 1e38:
        found = Flat(GALLERY).scores(NOISY[0] * np.float32(length)).top_k(5)[1]
        np.testing.assert_allclose(found, expected, atol=1e-6)
