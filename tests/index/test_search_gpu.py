"""Search on a GPU answers as the CPU does: on a GPU where there is one, and always on a stand-in.

The stand-in multiplies on the CPU and rounds as a GPU does: in float16 or in another order.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch  # before FAISS, as each brings an OpenMP runtime
from hypothesis import given, settings
from hypothesis import strategies as st

# isort: split
import faiss

from hvf_core.problem import Problem
from index.gallery import Gallery, save_gallery
from index.search import gpu
from index.search.approximate import Approximate
from index.search.choose import Rows, built, choose
from index.search.flat import Flat
from index.search.gpu import GpuFlat, GpuIndex, open_gpu, refuse_no_gpu, rounding
from index.search.kinds import GPU, GPU_HALF, GPU_IVF, KINDS
from index.search.measure import simulated_queries
from index.search.open import open_search
from index.search.remainder import moments_of
from index.search.stored import save_search

FACTOR = 60.0

Open = Callable[[np.ndarray, np.ndarray | None], GpuFlat]


def unit(embeddings: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / lengths).astype(np.float32)


def drawn(n: int, dim: int, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


def stand_in(half: bool) -> Open:
    dtype = torch.float16 if half else torch.float32

    def open_one(embeddings: np.ndarray, among: np.ndarray | None = None) -> GpuFlat:
        chosen = torch.from_numpy(embeddings if among is None else embeddings[among]).to(dtype)
        order = torch.randperm(chosen.shape[1])

        def product(query: np.ndarray) -> torch.Tensor:
            return chosen.float()[:, order] @ torch.from_numpy(query).to(dtype).float()[order]

        return GpuFlat(embeddings, product, rounding(embeddings.shape[1], half), among)

    return open_one


def on_gpu(half: bool) -> Open:
    def open_one(embeddings: np.ndarray, among: np.ndarray | None = None) -> GpuFlat:
        try:
            refuse_no_gpu()
        except Problem as problem:
            pytest.skip(str(problem))
        return open_gpu(embeddings, among, half)

    return open_one


OPENED = {
    "stand-in": (stand_in(False), False),
    "stand-in-half": (stand_in(True), True),
    "gpu": (on_gpu(False), False),
    "gpu-half": (on_gpu(True), True),
}
each = pytest.mark.parametrize(("opened", "half"), OPENED.values(), ids=OPENED)


@each
@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 300),
    copies=st.integers(1, 4),
    k=st.integers(1, 12),
    length=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_best_are_those_of_the_cpu_to_the_bit(
    opened: Open, half: bool, n: int, copies: int, k: int, length: float, seed: int
) -> None:
    """Of equal images, too: they come `copies` times."""
    gallery = np.tile(drawn(n, 24, seed), (copies, 1))
    query = drawn(1, 24, seed + 1)[0] * np.float32(length)
    ours, exact = opened(gallery).scores(query), Flat(gallery).scores(query)
    (rows, cosines), (their_rows, their_cosines) = ours.top_k(k), exact.top_k(k)
    np.testing.assert_array_equal(rows, their_rows)
    np.testing.assert_array_equal(cosines, their_cosines)
    assert [ours.place_of(row) for row in rows.tolist()] == list(range(1, len(rows) + 1))
    np.testing.assert_array_equal(ours.of(rows), their_cosines)
    assert ours.of(int(rows[0])) == their_cosines[0]


@each
def test_the_total_is_that_of_all_images_and_no_image_exceeds_it(opened: Open, half: bool) -> None:
    gallery = drawn(5000, 64, 0)
    search = opened(gallery)
    for query in drawn(20, 64, 1):
        scores = search.scores(query)
        scores.top_k(1)
        total = scores.log_sum_exp(FACTOR)
        logits = FACTOR * (gallery.astype(float) @ query.astype(float))
        expected = logits.max() + np.log(np.exp(logits - logits.max()).sum())
        assert total == pytest.approx(expected, abs=5e-3 if half else 1e-4)
    for query in gallery[:100]:  # each is found for sure
        scores = search.scores(query)
        assert 1e4 * float(scores.top_k(1)[1][0]) <= scores.log_sum_exp(1e4) + 1e-9


@each
def test_only_the_rows_that_are_asked_for_count(opened: Open, half: bool) -> None:
    gallery, query = drawn(200, 16, 2), drawn(1, 16, 3)[0]
    among = np.flatnonzero(np.random.default_rng(4).random(200) < 0.3)
    ours, exact = opened(gallery, among).scores(query), Flat(gallery[among]).scores(query)
    rows, cosines = ours.top_k(10)
    their_rows, their_cosines = exact.top_k(10)
    np.testing.assert_array_equal(rows, among[their_rows])
    np.testing.assert_array_equal(cosines, their_cosines)
    assert ours.log_sum_exp(FACTOR) == pytest.approx(exact.log_sum_exp(FACTOR), abs=0.05)
    assert [ours.place_of(int(row)) for row in rows] == list(range(1, 11))
    left_out = np.setdiff1d(np.arange(200), among)
    assert [ours.place_of(int(row)) for row in left_out] == [0] * len(left_out)
    assert (ours.of(left_out) == -np.inf).all()
    np.testing.assert_array_equal(ours.of(rows), their_cosines)


@each
def test_an_image_far_down_has_a_place_that_is_right_but_for_rounding(
    opened: Open, half: bool
) -> None:
    gallery, query = drawn(1000, 16, 5), drawn(1, 16, 6)[0]
    ours, exact = opened(gallery).scores(query), Flat(gallery).scores(query)
    places = np.array([[one.place_of(row) for row in range(1000)] for one in (ours, exact)])
    assert np.abs(places[0] - places[1]).max() <= (5 if half else 0)


@each
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_what_cannot_be_searched_is_refused(opened: Open, half: bool, value: float) -> None:
    search = opened(drawn(3, 8, 7))
    with pytest.raises(Problem, match="not finite, or only zeros"):
        search.scores(np.full(8, value, np.float32))
    with pytest.raises(ValueError, match="width 8"):
        search.scores(np.ones(9, np.float32))


@each
def test_threads_that_search_at_once_get_their_own_answers(opened: Open, half: bool) -> None:
    gallery = drawn(3000, 32, 8)
    search, flat = opened(gallery), Flat(gallery)
    wrong: list[int] = []

    def ask(rows: range) -> None:
        for row in rows:
            query = gallery[row]
            found = search.scores(query).top_k(3)[0]
            if found.tolist() != flat.scores(query).top_k(3)[0].tolist():
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(range(first, 200, 4),)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_rounding_to_half_precision_alone_would_change_the_best() -> None:
    """So that the tests above do show that it is looked at again."""
    gallery = unit(drawn(1, 24, 9) + 1e-4 * drawn(400, 24, 10))
    search = stand_in(half=True)(gallery, None)
    scores = search.scores(gallery[0])
    rounded = torch.sort(scores._cosines, stable=True, descending=True).indices[:5].numpy()
    rows, _ = scores.top_k(5)
    assert rows.tolist() != rounded.tolist()


class TestWithout:
    @pytest.mark.parametrize("kind", [GPU, GPU_HALF])
    def test_the_cpu_takes_its_place_and_that_is_said(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(gpu.faiss, "StandardGpuResources", raising=False)
        embeddings, names, said = drawn(40, 8, 0), tuple(map(str, range(40))), list[str]()
        gallery = Gallery(names, names, embeddings, "space", (), "a test")
        search = open_search(gallery, kind, said.append, np.arange(1, 40))
        assert isinstance(search, Flat)
        assert search.scores(embeddings[0]).top_k(1)[0] != 0
        (sentence,) = said
        assert sentence.startswith("the CPU searches in place of the GPU: FAISS is built for CPUs")

    def test_a_build_for_the_cpu_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(gpu.faiss, "StandardGpuResources", raising=False)
        with pytest.raises(Problem, match=r"FAISS is built for CPUs here.*pip install"):
            open_gpu(drawn(3, 8, 0))

    def test_a_machine_without_a_gpu_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu.faiss, "StandardGpuResources", object, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        monkeypatch.setattr(gpu.faiss, "get_num_gpus", lambda: 0)
        with pytest.raises(Problem, match=r"torch sees 0 GPUs here and FAISS 0.*doctor"):
            open_gpu(drawn(3, 8, 0))

    def test_a_gpu_that_is_too_small_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "refuse_no_gpu", lambda: None)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**20, 2**34))
        big = np.lib.stride_tricks.as_strided(drawn(1, 1024, 0), (2**20, 1024), (0, 4))
        with pytest.raises(Problem, match=r"needs 4\.2 GiB.*0\.0 GiB are free: give.*-half"):
            open_gpu(big)
        with pytest.raises(Problem, match=r"needs 2\.2 GiB.*are free: end what else"):
            open_gpu(big, half=True)


class TestIndex:
    """An index that is moved: here to nowhere, as FAISS's build for CPUs has no other place."""

    def approximate(self, n: int = 3000) -> Approximate:
        embeddings = drawn(n, 16, 11)
        index = built(embeddings, KINDS["ivf-sq8"])
        return Approximate(embeddings, index, 0.25, 200, moments_of(embeddings))

    def test_it_finds_what_it_finds_on_the_cpu(self) -> None:
        on_cpu, moved = self.approximate(), self.approximate()
        moved.move(lambda index: GpuIndex(index, faiss.clone_index))
        for query in drawn(20, 16, 12):
            theirs, ours = on_cpu.scores(query), moved.scores(query)
            np.testing.assert_array_equal(ours.top_k(5), theirs.top_k(5))
            assert ours.log_sum_exp(FACTOR) == theirs.log_sum_exp(FACTOR)

    def test_no_more_are_asked_for_than_faiss_names_there(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu, "_MOST", 50)
        moved = self.approximate()
        moved.move(lambda index: GpuIndex(index, faiss.clone_index))
        assert moved.scores(drawn(1, 16, 13)[0]).top_k(5)[0].shape == (5,)

    def test_what_it_cannot_search_there_stays_on_the_cpu(self) -> None:
        def refuses(index: faiss.Index) -> faiss.Index:
            return SimpleNamespace(search=raises, ntotal=index.ntotal)

        def raises(*_: object, **__: object) -> None:
            raise RuntimeError("Error in GpuIndex.cu:65: no selectors\nmore")

        search = self.approximate()
        with pytest.raises(Problem, match=r"not be searched there .*no selectors"):
            search.move(lambda index: GpuIndex(index, refuses))
        assert search.scores(drawn(1, 16, 13)[0]).top_k(5)[0].shape == (5,)

    @pytest.mark.parametrize("has_index", [True, False])
    def test_without_a_gpu_the_index_is_searched_on_the_cpu(
        self, tmp_path: Path, has_index: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(gpu.faiss, "StandardGpuResources", raising=False)
        names, said = tuple(map(str, range(1200))), list[str]()
        made = Gallery(names, names, drawn(1200, 16, 14), "space", (), "a test")
        gallery = save_gallery(tmp_path / "gallery", made)
        if not has_index:
            with pytest.raises(Problem, match="--kind ivf-sq8"):
                open_search(gallery, GPU_IVF, said.append)
            return
        moments = moments_of(gallery.embeddings)
        rows = Rows(gallery.embeddings, gallery.rows, moments)
        asked = simulated_queries(gallery.embeddings, gallery.rows, 15.0, 60)
        save_search(gallery, choose(rows, asked, ["ivf-sq8"], str), moments, "a test")
        search = open_search(gallery, GPU_IVF, said.append)
        assert isinstance(search, Approximate)
        assert said == [f"the CPU searches in place of the GPU: {no_gpu()}"]


def no_gpu() -> str:
    with pytest.raises(Problem) as told:
        refuse_no_gpu()
    return str(told.value)
