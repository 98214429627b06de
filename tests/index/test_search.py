"""Search against a plain computation of all cosines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from index.search.flat import Search


def unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def random_unit(n: int, dim: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    dim=st.integers(2, 40),
    n_queries=st.integers(1, 30),
    k=st.integers(1, 12),
    length=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32 - 1),
)
def test_search_finds_the_highest_cosines(
    n: int, dim: int, n_queries: int, k: int, length: float, seed: int
) -> None:
    gallery, queries = random_unit(n, dim, seed), random_unit(n_queries, dim, seed + 1)
    scores, rows = Search(gallery, k).search(queries * np.float32(length))
    cosines = queries.astype(np.float64) @ gallery.astype(np.float64).T
    assert scores.shape == rows.shape == (n_queries, min(k, n))
    expected = -np.sort(-cosines, axis=1)[:, : min(k, n)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, axis=1), scores, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in rows)


def test_one_trial_gives_the_same_alone_and_in_a_batch() -> None:
    search = Search(random_unit(200, 64, 0), k=5)
    queries = random_unit(20, 64, 1)
    scores, rows = search.search(queries)
    for query, its_scores, its_rows in zip(queries, scores, rows, strict=True):
        alone_scores, alone_rows = search.search(query)
        assert (alone_rows == its_rows).all()
        np.testing.assert_allclose(alone_scores[0], its_scores, atol=1e-6)


def test_an_answer_and_a_query_outlive_the_next_search() -> None:
    search = Search(random_unit(50, 8, 0), k=3)
    first, second = 2 * random_unit(2, 8, 1)
    kept = first.copy()
    scores, rows = search.search(first)
    before = scores.copy(), rows.copy()
    search.search(second)
    assert (scores == before[0]).all()
    assert (rows == before[1]).all()
    assert (first == kept).all()


@pytest.mark.parametrize(("k", "expected"), [(12, [7, 6, 5, 4]), (3, [6, 5, 4])])
def test_equal_images_come_in_a_fixed_order(k: int, expected: list[int]) -> None:
    embeddings = random_unit(3, 16, 0)
    _, rows = Search(np.repeat(embeddings, 4, axis=0), k).search(embeddings[1])
    assert rows[0, : len(expected)].tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 3])
def test_values_that_are_not_finite_are_refused(value: float, n: int) -> None:
    search = Search(random_unit(5, 4, 0), k=2)
    queries = random_unit(n, 4, 1)
    queries[-1, 2] = value
    with pytest.raises(Problem, match="not finite"):
        search.search(queries)


def test_an_embedding_of_zeros_is_refused() -> None:
    with pytest.raises(Problem, match="only zeros"):
        Search(random_unit(5, 4, 0), k=2).search(np.zeros(4, np.float32))


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="width 4"):
        Search(random_unit(5, 4, 0), k=2).search(np.ones(8, np.float32))
