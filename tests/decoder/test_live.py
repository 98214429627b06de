"""The live decoder against its batched twin, and what may change while it decodes."""

import math
from itertools import count, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder.anytime import shares_of
from decoder.brain.mbp import MBP
from decoder.bundle import BrainEncoderRecord, BundleManifest, HVFRecord, ImageEncoderRecord
from decoder.calibration import Calibration
from decoder.engines.graph import UnitLength
from decoder.evidence import Weights, evidence_of
from decoder.live import LiveDecoder, Slice
from hvf_core.problem import Problem
from index.gallery import Gallery
from index.ranking import Ranker
from index.search.flat import Flat
from offline_train.evaluate.answers import Answerer, window_ends
from tests.memory import kept_memory

N_CHANNELS, N_TIMES, DIM, N_IMAGES = 3, 50, 16, 30
CALIBRATION = Calibration(
    tmax_s=(0.1, 0.49),
    repeats=(1, 4),
    mean=((3.0, 2.0), (1.3, 0.7)),
    added=((1.0, 1.6), (1.0, 1.4)),
    n_items=40,
)
MANIFEST = BundleManifest(
    channels=("O1", "Oz", "O2"),
    rate_hz=100,
    tmin_s=0.0,
    tmax_s=0.49,
    preprocessing={},
    brain_encoder=BrainEncoderRecord(hidden=6),
    image_encoders=(ImageEncoderRecord(name="semantic", dim=5, checksum="5e"),),
    hvf=HVFRecord(hidden=6),
    embedding_dim=DIM,
    logit_scale=2.0,
    space="s",
    calibration=CALIBRATION,
)


def brain_of(dim: int = DIM) -> MBP:
    torch.manual_seed(0)
    return MBP(N_CHANNELS, N_TIMES, dim, hidden=8).eval()


BRAIN = brain_of()


def gallery_of(n: int = N_IMAGES, dim: int = DIM, seed: int = 0) -> Gallery:
    embeddings = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    ids = tuple(f"image {row}" for row in range(n))
    return Gallery(ids, ids, embeddings, "s", (), "test")


GALLERY = gallery_of()


def eeg_of(trial: int) -> np.ndarray:
    return np.random.default_rng(trial).standard_normal((N_CHANNELS, N_TIMES)).astype(np.float32)


def opened(evidence="mean", tmax_s=(), gallery=GALLERY, brain=BRAIN, **options) -> LiveDecoder:
    shares = shares_of(brain, MANIFEST.marks(tmax_s))
    unit = UnitLength(shares.rest)

    @torch.inference_mode()
    def engine(x: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(y[0].numpy() for y in unit(torch.from_numpy(x)[None]))

    return LiveDecoder(
        MANIFEST.model_copy(update={"embedding_dim": brain.dim}),
        shares,
        Ranker(Flat(gallery.embeddings), gallery),
        engine,
        evidence=evidence,
        **{"clock": count().__next__, "say": pytest.fail} | options,
    )


def whole(trial: int, group: str = "g", shown: str | None = None) -> Slice:
    return Slice(trial, group, shown, 0, True, eeg_of(trial))


class Planted:
    """A trial set as far as an `Answerer` looks at it."""

    def __init__(self, n: int) -> None:
        self.data, self.rows = np.stack([eeg_of(trial) for trial in range(n)]), np.arange(n)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["mean", "added"]),
    st.integers(1, 5),
    st.sets(st.sampled_from([0.05, 0.1, 0.22, 0.4]), max_size=3),
    st.sets(st.integers(1, N_TIMES - 1), max_size=4),
)
def test_live_answers_are_those_of_the_batched_twin(evidence, n_repeats, early_s, cuts) -> None:
    decoder, edges = opened(evidence, early_s, top_k=N_IMAGES), [0, *sorted(cuts), N_TIMES]
    for trial in range(n_repeats):
        answers = []
        for start, stop in pairwise(edges):
            array = eeg_of(trial)[:, start:stop]
            answers += decoder.take(Slice(trial, "g", "image 3", start, stop == N_TIMES, array))
    ends = window_ends(MANIFEST, [*early_s, MANIFEST.tmax_s])
    weights = Weights(evidence, MANIFEST.logit_scale, CALIBRATION)
    twin = Answerer(BRAIN, GALLERY.embeddings, weights, MANIFEST.tmax_s)
    found = list(twin.log_likelihoods(Planted(n_repeats), [np.arange(n_repeats)], ends))
    assert [answer.tmax_s for answer in answers] == pytest.approx([end.tmax_s for end in ends])
    assert [answer.provisional for answer in answers] == [True] * len(early_s) + [False]
    for answer, (end, _, (log_likelihoods,)) in zip(answers, found, strict=True):
        ranked = answer.ranked
        assert ranked.n_repeats == n_repeats
        logits = log_likelihoods.astype(np.float64) / weights.temperature(end.tmax_s, n_repeats)
        log_p = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        np.testing.assert_allclose(ranked.log_p, log_p[ranked.rows], atol=1e-4)
        assert sorted(ranked.rows.tolist()) == list(range(N_IMAGES))
        assert ranked.rows[ranked.rank_of_shown - 1] == 3
        assert np.linalg.norm(answer.embedding) == pytest.approx(1)


def test_answers_are_stamped_when_embedded_and_when_searched() -> None:
    decoder = opened(tmax_s=(0.2,))
    first, last = decoder.take(whole(1))
    stamps = [first.embedded_s, first.searched_s, last.embedded_s, last.searched_s]
    assert stamps == [0, 1, 2, 3]
    assert (first.embedding != last.embedding).any()


@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_a_group_begins_anew_when_it_is_reset_and_other_groups_do_not(evidence: str) -> None:
    decoder = opened(evidence)
    for trial, group in enumerate("aabb"):
        decoder.take(whole(trial, group))
    decoder.reset_group("a")
    assert decoder.take(whole(5, "a"))[0].ranked.n_repeats == 1
    assert decoder.take(whole(6, "b"))[0].ranked.n_repeats == 3


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["mean", "added"]), st.lists(st.tuples(st.booleans(), st.integers(1, 49))))
def test_rehearsals_change_nothing(evidence, acts) -> None:
    """Whenever they come: bit for bit the same answers, and the same is left of repeats."""
    plain, rehearsed = opened(evidence, (0.2,)), opened(evidence, (0.2,))
    for trial, (is_rehearsed, cut) in enumerate([*acts, (True, 7)], 1):
        array, group = eeg_of(trial), f"g{trial % 2}"
        for first, stop in ((0, cut), (cut, N_TIMES)):
            if is_rehearsed:
                last = Slice(0, "\0", "image 3", first, True, np.ones_like(array[:, first:]))
                assert np.isfinite(rehearsed.rehearse(last).ranked.log_p).all()
            part = Slice(trial, group, "image 3", first, stop == N_TIMES, array[:, first:stop])
            expected, found = plain.take(part), rehearsed.take(part)
            for one, other in zip(expected, found, strict=True):
                assert one.embedding.tobytes() == other.embedding.tobytes()
                assert one.ranked.log_p.tobytes() == other.ranked.log_p.tobytes()
                assert one.ranked.rows.tolist() == other.ranked.rows.tolist()
                assert one.ranked.n_repeats == other.ranked.n_repeats
    for group in ("g0", "g1", "\0"):
        one, other = plain.repeats.of(group), rehearsed.repeats.of(group)
        assert (one[0].tobytes(), one[1]) == (other[0].tobytes(), other[1])


def test_a_rehearsal_that_fails_leaves_nothing_behind() -> None:
    decoder = opened()
    decoder.take(Slice(1, "g", None, 0, False, eeg_of(1)[:, :20]))
    with pytest.raises(Problem, match="trial 0 has a slice of shape"):
        decoder.rehearse(Slice(0, "g", None, 20, True, np.ones((2, 30), np.float32)))
    assert not decoder.take(Slice(0, "g", None, 20, True, eeg_of(1)[:, 20:]))
    assert decoder.take(Slice(1, "g", None, 20, True, eeg_of(1)[:, 20:]))


@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_warming_up_leaves_no_evidence_behind(evidence: str) -> None:
    cold, warm = opened(evidence), opened(evidence)
    warm.warm_up()
    for trial in range(3):
        expected, found = cold.take(whole(trial, ""))[0], warm.take(whole(trial, ""))[0]
        np.testing.assert_array_equal(found.ranked.log_p, expected.ranked.log_p)
        assert found.ranked.n_repeats == expected.ranked.n_repeats == trial + 1


@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_a_trial_that_is_forgotten_or_does_not_fit_is_no_repeat(evidence: str) -> None:
    decoder = opened(evidence)
    decoder.take(whole(1))
    decoder.take(Slice(2, "g", None, 0, False, eeg_of(2)[:, :20]))
    decoder.forget(2)
    assert decoder.take(Slice(2, "g", None, 20, True, eeg_of(2)[:, 20:])) == []
    for trial, array in ((3, eeg_of(3)[:, :40]), (4, eeg_of(4) * np.nan), (5, eeg_of(5)[:2])):
        with pytest.raises(Problem, match=f"trial {trial}"):
            decoder.take(Slice(trial, "g", None, 0, True, array))
        assert decoder.take(Slice(trial, "g", None, 40, True, eeg_of(trial)[:, 40:])) == []
    assert decoder.take(whole(6))[0].ranked.n_repeats == 2


def test_how_many_images_and_how_sure_may_change_between_two_trials() -> None:
    decoder = opened()
    answer = decoder.take(whole(1))[0]
    assert len(answer.ranked.rows) == 5
    assert not answer.abstain
    sure = math.exp(answer.ranked.log_p[0])
    decoder.top_k = 7
    for least, abstain in ((0.99 * sure, False), (1.01 * sure, True)):
        decoder.min_confidence = least
        again = decoder.take(whole(1))[0]
        np.testing.assert_array_equal(again.ranked.rows[:5], answer.ranked.rows)
        assert len(again.ranked.rows) == 7
        assert again.abstain == abstain


@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_in_another_gallery_repeats_count_as_if_it_had_always_been_there(evidence: str) -> None:
    other = gallery_of(90, seed=5)
    decoder, expected = opened(evidence), opened(evidence, gallery=other)
    for trial in range(3):
        if trial == 2:
            decoder.ranker = Ranker(Flat(other.embeddings), other)
        found, wanted = decoder.take(whole(trial)), expected.take(whole(trial))
    np.testing.assert_array_equal(found[0].ranked.rows, wanted[0].ranked.rows)
    np.testing.assert_array_equal(found[0].ranked.log_p, wanted[0].ranked.log_p)
    np.testing.assert_array_equal(found[0].ranked.scores, wanted[0].ranked.scores)


def test_added_evidence_of_an_uncalibrated_bundle_is_refused() -> None:
    shares = shares_of(BRAIN, [N_TIMES])
    bare = MANIFEST.model_copy(update={"calibration": None})
    with pytest.raises(Problem, match="no calibration"):
        LiveDecoder(bare, shares, None, None, evidence="added", clock=count, say=pytest.fail)


@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_groups_beyond_the_memory_given_begin_anew_and_it_is_said(evidence: str) -> None:
    said: list[str] = []
    gallery = gallery_of(16_540)  # its size costs nothing
    decoder = opened(evidence, gallery=gallery, max_bytes=10 * 8 * DIM, say=said.append)
    for trial in range(13):
        assert decoder.take(whole(trial, f"group {trial}"))[0].ranked.n_repeats == 1
    (sentence,) = said
    assert "the repeats of 10 stimuli fill the memory" in sentence
    assert "as of 'group 0'" in sentence
    assert decoder.take(whole(20, "group 12"))[0].ranked.n_repeats == 2
    assert decoder.take(whole(21, "group 2"))[0].ranked.n_repeats == 1


@pytest.mark.slow
@pytest.mark.parametrize("evidence", ["mean", "added"])
def test_thousands_of_groups_take_bounded_memory(evidence: str) -> None:
    bound, shape, dim = 2**20, (3, 256), 256
    manifest = MANIFEST.model_copy(update={"embedding_dim": dim})
    shown, z = np.ones(shape, np.float32), np.full(dim, 1 / 16, np.float32)
    used = []
    with kept_memory() as kept:
        of_groups = evidence_of(manifest, evidence, shape, lambda sentence: None, bound)
        for trial in range(3000):
            of_groups.known(trial, f"group {trial}", shown, 3)
            of_groups.finish(trial, f"group {trial}", shown, z)
            if trial % 1000 == 999:
                used.append(kept())
    assert max(used) < 1.4 * bound  # some 600 bytes of a group are no sum
