"""Search against a plain computation of all cosines."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from index.gallery import Gallery, open_gallery, save_gallery
from index.gallery.manifest import EMBEDDINGS
from index.search.dense import Dense
from index.search.flat import Flat


def unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def random_unit(n: int, dim: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    dim=st.integers(2, 40),
    k=st.integers(1, 12),
    length=st.floats(1e-3, 1e3),
    factor=st.floats(0, 200),
    seed=st.integers(0, 2**32 - 1),
)
def test_search_finds_the_highest_cosines(
    n: int, dim: int, k: int, length: float, factor: float, seed: int
) -> None:
    gallery, query = random_unit(n, dim, seed), random_unit(1, dim, seed + 1)[0]
    scores = Flat(gallery).scores(query * np.float32(length))
    cosines = gallery.astype(np.float64) @ query.astype(np.float64)
    rows, best = scores.top_k(k)
    assert rows.shape == best.shape == (min(k, n),)
    assert len(set(rows.tolist())) == len(rows)
    np.testing.assert_allclose(best, np.sort(cosines)[::-1][: min(k, n)], atol=1e-5)
    np.testing.assert_allclose(cosines[rows], best, atol=1e-5)
    np.testing.assert_allclose(scores.of(np.arange(n)), cosines, atol=1e-5)
    total = np.log(np.exp(factor * cosines).sum())
    assert scores.log_sum_exp(factor) == pytest.approx(total, abs=2e-5 * factor + 1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(1, 50))
def test_of_equal_cosines_the_higher_row_comes_first(values: list[int], k: int) -> None:
    scores = Dense(np.array(values, np.float32))
    order = sorted(range(len(values)), key=lambda row: (-values[row], -row))
    rows, best = scores.top_k(k)
    assert rows.tolist() == order[:k]
    assert best.tolist() == [values[row] for row in order[:k]]
    assert [scores.place_of(row) for row in order] == list(range(1, len(values) + 1))
    assert type(scores.place_of(0)) is int  # as a message takes it


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 6), st.integers(0, 99))
def test_the_order_is_that_of_a_faiss_index_to_the_bit(n: int, copies: int, seed: int) -> None:
    """Equal images, of which there are several here, among them."""
    gallery, query = np.tile(random_unit(n, 24, seed), (copies, 1)), random_unit(1, 24, seed + 1)
    faiss_index = faiss.IndexFlatIP(24)
    faiss_index.add(gallery)
    query /= np.sqrt(np.dot(query[0], query[0]))
    expected, order = faiss_index.search(query, len(gallery))
    rows, cosines = Flat(gallery).scores(query[0]).top_k(len(gallery))
    np.testing.assert_array_equal(cosines, expected[0])
    np.testing.assert_array_equal(rows, order[0])


def test_the_sum_of_exponentials_is_finite_at_any_factor() -> None:
    scores = Dense(np.array([0.5, -1.0, 0.5], np.float32))
    assert scores.log_sum_exp(1e6) == pytest.approx(0.5e6 + np.log(2))
    assert scores.log_sum_exp(0) == pytest.approx(np.log(3))


def test_an_answer_and_a_query_outlive_the_next_search() -> None:
    search = Flat(random_unit(50, 8, 0))
    first, second = 2 * random_unit(2, 8, 1)
    kept = first.copy()
    scores = search.scores(first)
    rows, best = scores.top_k(3)
    before = rows.copy(), best.copy(), scores.log_sum_exp(5)
    search.scores(second)
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(best, before[1])
    assert scores.log_sum_exp(5) == before[2]
    assert (first == kept).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    query = random_unit(1, 4, 1)[0]
    query[2] = value
    with pytest.raises(Problem, match="not finite"):
        Flat(random_unit(5, 4, 0)).scores(query)
    with pytest.raises(Problem, match="not finite"):
        Dense(query)


def test_an_embedding_of_zeros_is_refused() -> None:
    with pytest.raises(Problem, match="only zeros"):
        Flat(random_unit(5, 4, 0)).scores(np.zeros(4, np.float32))


@pytest.mark.parametrize("shape", [(8,), (1, 4), (5, 4)])
def test_another_width_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="width 4"):
        Flat(random_unit(5, 4, 0)).scores(np.ones(shape, np.float32))


def test_a_gallery_on_disk_is_searched_where_it_lies(tmp_path: Path) -> None:
    """Processes share its pages: what is written to the file is found, as nothing was copied."""
    embeddings = np.eye(256, dtype=np.float32)
    ids = tuple(map(str, range(256)))
    save_gallery(tmp_path / "g", Gallery(ids, ids, embeddings, "s", (), "test"))
    search = Flat(open_gallery(tmp_path / "g").embeddings)
    assert search.scores(embeddings[7]).top_k(1)[0] == 7
    with (tmp_path / "g" / EMBEDDINGS).open("r+b") as file:
        file.write(embeddings[[9, 8, 7]].tobytes())
    assert set(search.scores(embeddings[7]).top_k(2)[0]) == {2, 7}


# --- rows that count -----------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 60), st.integers(1, 3), st.integers(1, 12), st.integers(0, 999))
def test_among_rows_is_a_gallery_of_those_rows_alone(
    data: st.DataObject, n: int, copies: int, k: int, seed: int
) -> None:
    """To the bit, with equal images among them; the others have no place and no weight."""
    gallery, query = np.tile(random_unit(n, 24, seed), (copies, 1)), random_unit(1, 24, seed + 1)[0]
    every = st.integers(0, n * copies - 1)
    rows = np.array(sorted(data.draw(st.sets(every, min_size=1))), np.int64)
    some, alone = Flat(gallery, rows).scores(query), Flat(gallery[rows]).scores(query)
    found, cosines = some.top_k(k)
    expected, expected_cosines = alone.top_k(k)
    np.testing.assert_array_equal(found, rows[expected])
    np.testing.assert_array_equal(cosines, expected_cosines)
    assert some.log_sum_exp(11.0) == alone.log_sum_exp(11.0)
    for row in range(n * copies):
        place = rows.tolist().index(row) if row in rows else None
        assert some.place_of(row) == (0 if place is None else alone.place_of(place))
        assert some.of(row) == (-np.inf if place is None else alone.of(place))
