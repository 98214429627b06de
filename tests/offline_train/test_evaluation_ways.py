"""Results as papers report them: k-way, over subjects, transductive, paired, and as records."""

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.linalg import fractional_matrix_power

from decoder.bundle import load_bundle
from hvf_core.problem import Problem
from index.gallery import save_gallery
from offline_train.brain.gallery import build_gallery
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import make_bundle, train
from offline_train.data.trial_set import TrialSet, load_trial_set, write_trial_set
from offline_train.evaluate import retrieval
from offline_train.evaluate.answers import embed
from offline_train.evaluate.compare import compare
from offline_train.evaluate.corrections import corrected
from offline_train.evaluate.metrics import among, estimated_mean, estimated_means
from offline_train.evaluate.record import ranks_of, record
from offline_train.evaluate.result import Results, over_subjects
from offline_train.evaluate.retrieval import evaluate, evaluate_ways, subjects_of
from offline_train.evaluate.settings import EvaluateSettings
from offline_train.evaluate.tables import among_table, compared, selective_table, tables
from tests.calling import call


@given(st.integers(2, 8), st.data())
def test_what_is_expected_among_k_images_is_the_mean_over_all_such_galleries(n_way, data) -> None:
    k = data.draw(st.integers(2, n_way))
    ranks = np.arange(n_way)
    found = among(np.stack([ranks, ranks[::-1]]), n_way, k)
    assert found.shape == (2, n_way, 3)
    np.testing.assert_array_equal(found[0], found[1, ::-1])
    for rank in ranks:
        others = [other for other in ranks if other != rank]
        ahead = [sum(other < rank for other in some) for some in combinations(others, k - 1)]
        expected = np.mean([(n < 1, n < 5, 1 / (1 + n)) for n in ahead], axis=0)
        np.testing.assert_allclose(found[0, rank], expected, atol=1e-9)


def test_points_have_mrr_and_smaller_galleries_with_intervals(trained: tuple) -> None:
    planted, models, bundle, gallery = trained
    found = evaluate(bundle, planted.test, gallery, [1, 4], 3, ways=(10, 2, 40, 200))
    for point in found.points:
        assert [one.k for one in point.among] == [2, 10]  # all 40 are no smaller gallery
        two, ten = point.among
        assert two.top1.value > ten.top1.value > point.top1.value
        assert two.top5.value == 1
        assert np.mean(point.hit_rates) == pytest.approx(point.top1.value)
        assert np.mean(point.top5_rates) == pytest.approx(point.top5.value)
        assert np.mean(point.reciprocal_ranks) == pytest.approx(point.mrr.value)
        for one in (point.mrr, two.top1, ten.top1, ten.mrr):
            assert one.low < one.value < one.high
    z = embed(models.brain, planted.test.mean(list(planted.test.repeats.values())))
    scores = z @ gallery.embeddings.T
    rank = (scores > np.diag(scores)[:, None]).sum(axis=1)
    assert found.points[1].mrr.value == pytest.approx(np.mean(1 / (1 + rank)))
    # Of two images the right one is first as often as one other lies behind it.
    assert found.points[1].among[0].top1.value == pytest.approx(np.mean(1 - rank / 39))


def test_columns_are_resampled_as_each_of_them_alone() -> None:
    values = np.random.default_rng(0).standard_normal((50, 3))
    together = estimated_means(values, np.random.default_rng(1))
    for column, found in zip(values.T, together, strict=True):
        alone = estimated_mean(column, np.random.default_rng(1))
        assert (found.value, found.low, found.high) == pytest.approx(
            (alone.value, alone.low, alone.high)
        )


@given(st.integers(0, 99))
def test_csls_and_whitening_are_those_of_slow_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = rng.standard_normal((12, 5)), rng.standard_normal((15, 5))
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    lengths = np.linalg.norm(queries, axis=1)
    unit = queries / lengths[:, None]
    centred = unit - unit.mean(axis=0)
    covariance = centred.T @ centred / 11
    shrunk = 0.8 * covariance + 0.2 * np.trace(covariance) / 5 * np.eye(5)
    white = centred @ fractional_matrix_power(shrunk, -0.5)
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    both = ("csls", "whitening")
    for corrections, z in ((("whitening",), white), (("csls",), unit), (both, white)):
        cosines = z @ gallery.T
        expected = cosines.copy()
        if "csls" in corrections:
            for i in range(12):
                for j in range(15):
                    of_query = np.sort(cosines[i])[-10:].mean()
                    of_image = np.sort(cosines[:, j])[-10:].mean()
                    expected[i, j] = 2 * cosines[i, j] - of_query - of_image
        found = corrected(queries, gallery, corrections)
        np.testing.assert_allclose(found, expected * lengths[:, None], rtol=1e-4, atol=1e-5)


def test_an_image_that_is_near_everything_is_no_longer_the_answer_to_everything() -> None:
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((40, 200))
    drift = rng.standard_normal(200)
    queries = gallery + 0.5 * rng.standard_normal(gallery.shape) + 1.5 * drift
    gallery[0] = drift  # a hub
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    plain = np.argmax(queries @ gallery.T, axis=1)
    assert np.mean(plain == 0) > 0.9
    for corrections in (("whitening",), ("csls",)):
        best = np.argmax(corrected(queries, gallery, corrections), axis=1)
        assert np.mean(best == np.arange(40)) > 0.8


def test_transductive_results_are_named_so_everywhere_and_draw_the_same_repeats(
    trained: tuple,
) -> None:
    planted, _, bundle, gallery = trained
    plain = evaluate(bundle, planted.test, gallery, [1, 4], 2)
    together = evaluate(bundle, planted.test, gallery, [1, 4], 2, corrections=("csls",))
    assert plain.protocol.startswith("inductive")
    assert together.protocol.startswith("TRANSDUCTIVE")
    assert not together.calibrated
    console = Console(width=100)
    with console.capture() as capture:
        for table in tables(Results(evaluations=(together,))):
            console.print(table)
    assert capture.get().count("TRANSDUCTIVE") == 3
    found = Results(evaluations=(plain, together))
    assert list(found.by_method) == ["averaged EEG, inductive", "averaged EEG, TRANSDUCTIVE (csls)"]
    # A single query knows of no other one, and its ranks stay.
    one = planted.test.select(planted.test.items[:1])
    alone, corrected = (
        evaluate(bundle, one, gallery, [4], corrections=some) for some in ((), ("csls",))
    )
    assert corrected.points[0].reciprocal_ranks == alone.points[0].reciprocal_ranks


def test_predictions_are_averaged_as_they_are(trained: tuple) -> None:
    planted, models, bundle, gallery = trained
    found = evaluate(bundle, planted.test, gallery, [1, 4], evidence="predictions")
    means = [
        embed(models.brain, planted.test.data[planted.test.rows[trials]]).mean(axis=0)
        for trials in planted.test.repeats.values()
    ]
    scores = np.array(means) @ gallery.embeddings.T
    rank = (scores > np.diag(scores)[:, None]).sum(axis=1)
    assert found.points[1].top1.value == pytest.approx(np.mean(rank == 0))
    assert found.points[1].mrr.value == pytest.approx(np.mean(1 / (1 + rank)))
    averaged = evaluate(bundle, planted.test, gallery, [1])  # of one repeat it is the same
    assert found.points[0].hit_rates == averaged.points[0].hit_rates
    assert not found.calibrated


def test_results_are_paired_by_image(trained: tuple, tmp_path: Path) -> None:
    planted, _, bundle, gallery = trained
    one = evaluate(bundle, planted.test, gallery, [1, 4], 3)
    path = tmp_path / "evaluation.json"

    def with_hits(better: int, worse: int) -> Results:
        hits = np.array([1.0] * (better + 5) + [0.0] * (35 - better))
        theirs = np.array([0.0] * better + [1.0] * (5 + worse) + [0.0] * (35 - better - worse))
        points = [one.points[0].model_copy(update={"hit_rates": tuple(x)}) for x in (hits, theirs)]
        shuffled = np.random.default_rng(0).permutation(40)
        other = one.model_copy(
            update={
                "points": (points[1].model_copy(update={"hit_rates": tuple(theirs[shuffled])}),),
                "stimuli": tuple(np.array(one.stimuli)[shuffled].tolist()),
            }
        )
        path.write_text(Results(evaluations=(other,)).model_dump_json())
        return Results(evaluations=(one.model_copy(update={"points": (points[0],)}),))

    (found,) = compare(with_hits(9, 2), path)
    top1 = found.differences[0]
    assert (top1.better, top1.worse, found.n_images) == (9, 2, 40)
    tail = sum(math.comb(11, n) for n in (0, 1, 2)) / 2**11
    assert top1.p == pytest.approx(2 * tail)  # McNemar's exact test
    assert top1.difference.value == pytest.approx(7 / 40)
    assert top1.difference.low < 7 / 40 < top1.difference.high
    assert "17.5 points above" in compared(found)
    assert "p = 0.065" in compared(found)
    path.write_text(Results(evaluations=(one,)).model_dump_json())
    (same,) = compare(Results(evaluations=(one,)), path)
    assert len(same.differences) == 2 * 3
    assert {(d.difference.value, d.p) for d in same.differences} == {(0, 1)}
    assert all(d.difference.low < 0 < d.difference.high for d in same.differences)
    assert ", by the same bundle) is" in compared(same)


@pytest.mark.parametrize("rates", [[0.5] * 39, [math.nan] * 40, [7.0] * 40])
def test_a_result_with_what_are_no_rates_is_refused(trained, tmp_path: Path, rates) -> None:
    planted, _, bundle, gallery = trained
    one = evaluate(bundle, planted.test, gallery, [1], 2)
    told = Results(evaluations=(one,)).model_dump(mode="json")
    told["evaluations"][0]["points"][0]["hit_rates"] = rates
    (tmp_path / "evaluation.json").write_text(json.dumps(told))
    with pytest.raises(Problem, match=r"evaluation\.json"):
        compare(Results(evaluations=(one,)), tmp_path / "evaluation.json")


def test_corrections_are_those_of_one_method_in_any_order(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    asked = evaluate(
        bundle, planted.test, gallery, [1], 2, corrections=["csls", "whitening", "csls"]
    )
    assert asked.method.endswith("TRANSDUCTIVE (whitening + csls)")


def test_what_cannot_be_paired_is_refused(trained: tuple, tmp_path: Path) -> None:
    planted, _, bundle, gallery = trained
    one = evaluate(bundle, planted.test, gallery, [1], 2)
    path = tmp_path / "evaluation.json"
    fewer = evaluate(bundle, planted.test.select(planted.test.items[1:]), gallery, [1], 2)
    others = build_gallery(
        planted.features.items, planted.features.items, planted.features, bundle, "a test"
    )
    wider = evaluate(bundle, planted.test, others, [1], 2)
    more = evaluate(bundle, planted.test, gallery, [2], 2)
    for other, told in (
        (fewer, "other stimuli"),
        (wider, "other galleries"),
        (one.model_copy(update={"subject": "sub-02"}), "other subjects"),
        (more, "no number of repeats and window end"),
    ):
        path.write_text(Results(evaluations=(other,)).model_dump_json())
        with pytest.raises(Problem, match=told):
            compare(Results(evaluations=(one,)), path)
    path.write_text("{}")
    with pytest.raises(Problem, match="is not valid at evaluations"):
        compare(Results(evaluations=(one,)), path)


def written(trials: TrialSet, folder: Path, subjects: list[str], split: str | None = None) -> Path:
    """The trials as sets of these subjects, half of each stimulus's trials for each of two."""
    data = np.asarray(trials.data[trials.rows])
    with write_trial_set(folder, trials.format, trials.preprocessing_arrays) as writer:
        for n, subject in enumerate(subjects):
            own = np.arange(len(trials)) // 40 % len(subjects) == n
            stimuli = [one for one, is_own in zip(trials.stimuli, own, strict=True) if is_own]
            writer.append(data[own], stimuli, subject=subject or None, split=split)
    return folder


def test_each_subject_of_a_set_is_decoded_alone(trained: tuple, tmp_path: Path) -> None:
    planted, _, bundle, gallery = trained
    both = load_trial_set(written(planted.test, tmp_path / "both", ["sub-01", "sub-02"]))
    subjects = subjects_of(both)
    assert list(subjects) == ["sub-01", "sub-02"]
    assert subjects_of(planted.test, "s") == {"s": planted.test}
    found = [evaluate(bundle, own, gallery, [2], subject=name) for name, own in subjects.items()]
    assert [one.items for one in found] == [f"40 held-out stimuli of {name}" for name in subjects]
    over = over_subjects("mean", found)
    values = [one.points[0].top1.value for one in found]
    assert over.points[0].top1.mean == pytest.approx(np.mean(values))
    assert over.points[0].top1.sd == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    with pytest.raises(Problem, match=r"subject .* is not decoded at the window ends"):
        over_subjects("mean", [found[0], evaluate(bundle, subjects["sub-02"], gallery, [1])])


@pytest.fixture
def on_disk(trained: tuple, tmp_path: Path) -> tuple[str, ...]:
    """What `evaluate` is given for two subjects, in two trial sets."""
    planted, _, bundle, gallery = trained
    save_gallery(tmp_path / "gallery", gallery, None)
    trials = written(planted.test, tmp_path / "sets", ["a", "b"])
    loaded = load_trial_set(trials)
    for name, own in subjects_of(loaded).items():
        written(own, tmp_path / name, [""])
    return (
        *("evaluate", "--bundle", str(bundle.directory), "--gallery", str(tmp_path / "gallery")),
        *("--trials", str(tmp_path / "a"), "--trials", str(tmp_path / "b")),
    )


@pytest.mark.slow
def test_a_command_writes_json_a_page_pictures_and_a_record(
    trained: tuple, on_disk: tuple[str, ...], tmp_path: Path
) -> None:
    planted, models, _, gallery = trained
    out = tmp_path / "out"
    how = ("--repeats", "1,2", "--tmax", 0.1, "--evidence", "predictions")
    both = ("--transductive", "whitening,csls", "--ways", "2,10", "--out", out)
    done = call(*on_disk, *how, *both, module="offline_train")
    assert done.code == 0, done.err
    found = Results.model_validate_json((out / "evaluation.json").read_text())
    assert [one.subject for one in found.evaluations] == ["a"] * 2 + ["b"] * 2
    assert len(found.over_subjects) == 2
    assert "mean ± SD over 2 subjects" in done.out
    assert found.made["command"].startswith("python ")
    assert {"python", "torch", "numpy"} <= found.made["versions"].keys()
    origin = found.evaluations[0].origin
    assert origin.checkpoint_rule == "last epoch"
    assert (origin.training_seed, origin.brain_encoder) == (2025, "mbp")
    assert all(len(value) == 64 for name, value in origin if name.endswith("sha256"))
    page = (out / "report.html").read_text()
    assert "script" not in page.partition("<style>")[0]
    assert "<script" not in page
    assert page.count("data:image/png;base64,") == 8
    says = ("TRANSDUCTIVE", "--hold-out", "last epoch", origin.trials_sha256, "hypergeometric")
    for told in says:
        assert told in page

    (record,) = json.loads((out / "neuralbench.json").read_text())
    scores = embed(models.brain, planted.test.data[planted.test.rows]) @ gallery.embeddings.T
    right = np.array([planted.test.items.index(name) for name in planted.test.stimuli])
    of_right = scores[np.arange(160), right][:, None]
    key = "test/full_retrieval/"
    assert record[f"{key}top5_acc"] == pytest.approx(np.mean((scores > of_right).sum(axis=1) < 5))
    auc = np.mean((scores < of_right).sum(axis=1) / 39)
    assert record[f"{key}inv_norm_rank_mean"] == pytest.approx(auc)
    assert record["loss"] == {"name": "ClipLoss"}
    assert record["hvf_live"]["subjects"] == ["a", "b"]
    assert any("DINOv2-giant" in one for one in record["hvf_live"]["not_as_neuralbench"])

    other = (*how[4:], "--repeats", 2, "--compare", out / "evaluation.json")
    again = call(*on_disk, *other, module="offline_train")
    assert again.code == 0, again.err
    assert "0.0 points above" in again.out
    assert "paired over 40 images of 2 subjects" in again.out


@pytest.mark.slow
def test_what_cannot_be_paired_is_refused_before_anything_is_decoded(
    trained: tuple, on_disk: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, bundle, gallery = trained
    how = EvaluateSettings(tmax_s=(0.1,), transductive=("csls", "whitening"))
    asked = [
        one
        for name, own in subjects_of(load_trial_set(tmp_path / "sets")).items()
        for one in evaluate_ways(bundle, own, gallery, how, name)
    ]
    path = tmp_path / "evaluation.json"
    path.write_text(Results(evaluations=tuple(asked)).model_dump_json())
    monkeypatch.setattr(retrieval, "load_brain_encoder", lambda bundle: pytest.fail("it decodes"))
    for options, told in (
        (("--repeats", 2), "no number of repeats and window end"),
        (("--evidence", "predictions"), "evaluate one of them in the other's way"),
    ):
        done = call(*on_disk, *options, "--compare", path, module="offline_train")
        assert told in done.one_sentence()
    monkeypatch.undo()
    ways = ("--tmax", 0.1, "--transductive", "whitening,csls", "--compare", path)
    done = call(*on_disk, *ways, module="offline_train")
    assert done.out.count("0.0 points above") >= 2, done.err


def test_a_records_aggregated_ranks_are_of_averaged_predictions(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    found = ranks_of(bundle, planted.test, gallery)
    evaluation = evaluate(bundle, planted.test, gallery, [4], evidence="predictions")
    point = evaluation.points[0]
    assert np.mean(found.of_images < 1) == pytest.approx(point.top1.value)
    assert np.mean(1 / (1 + found.of_images)) == pytest.approx(point.mrr.value)
    # As neuraltrain's `TopkAcc` counts: two that are equal at the first place have rank 0.5.
    tied = replace(found, of_trials=np.array([0, 0.5, 1, 4.5, 5]))
    (told,) = record([tied], [evaluation], {})
    assert told["test/full_retrieval/top1_acc"] == pytest.approx(2 / 5)
    assert told["test/full_retrieval/top5_acc"] == pytest.approx(4 / 5)


def test_wrong_numbers_are_refused_before_anything_large_is_read(
    on_disk: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "gallery" / "gallery.json").write_text("damaged")
    for options, code, told in (
        (("--repeats", 0), 2, "--repeats"),
        (("--repeats", ","), 2, "--repeats"),
        (("--ways", "1"), 2, "--ways"),
        (("--evidence", "none"), 2, "--evidence"),
        (("--repeats", "1,3"), 1, "has 2 repeats, 3 are"),
        (("--tmax", 0.5), 1, "tmax 0.5 s is not in"),
        (("--compare", tmp_path / "none.json"), 1, "none.json' cannot be read"),
        (("--bundle", tmp_path), 2, "--bundle is given 2 times"),
        (("--trials", tmp_path / "a"), 1, "trials of one subject come twice"),
        (("--out", tmp_path / "a"), 1, "holds no evaluation.json, so it is left alone"),
    ):
        extra = ("--trials", tmp_path / "a") if "--bundle" in options else ()
        done = call(*on_disk, *options, *extra, module="offline_train")
        assert done.code == code, done.err
        assert told in done.one_sentence()
    done = call("evaluate", "--session", tmp_path, module="offline_train")
    assert "is no session's folder, as it has no config.json" in done.one_sentence()


def test_eight_numbers_of_repeats_fit_a_terminal(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    found = evaluate(bundle, planted.test, gallery, [1], 2, ways=(2, 5, 10, 20, 30))
    many = (1, 2, 4, 5, 10, 20, 40, 80)
    points = tuple(found.points[0].model_copy(update={"repeats": n}) for n in many)
    found = found.model_copy(update={"points": points})
    console = Console(width=80)
    with console.capture() as capture:
        console.print(among_table(found), selective_table(found))
    lines = capture.get().splitlines()
    rows = [line.split()[0] for line in lines if line.strip() and line.split()[0].isdigit()]
    assert rows == [str(n) for n in many] * 2
    assert max(map(len, lines)) <= 80


SETTINGS = TrainSettings(
    epochs=3, batch_size=64, dim=32, hidden=32, warmup_steps=0, lr=2e-3, device="cpu"
)


def test_images_shuffled_among_all_concepts_leave_chance(trained: tuple, tmp_path: Path) -> None:
    """The model is told other images, of training and test alike: whatever leaks would show."""
    planted, _, bundle, gallery = trained
    right = evaluate(bundle, planted.test, gallery, [4]).points[0]
    assert right.top5.low > 2 * 5 / 40
    order = np.random.default_rng(1).permutation(len(planted.features.items))
    shuffled = {name: x[order] for name, x in planted.features.embeddings.items()}
    told = replace(planted.features, embeddings=shuffled)
    models = train(planted.train, told, SETTINGS)
    other = make_bundle(tmp_path / "other", models, planted.train, told, SETTINGS, "a test")
    items = planted.test.items
    asked = build_gallery(items, items, planted.features, other, "a test")
    chance = evaluate(other, planted.test, asked, [4])
    assert chance.points[0].top5.low < 5 / 40 < chance.points[0].top5.high + 0.05
    assert abs(chance.points[0].mrr.value - np.mean(1 / np.arange(1, 41))) < 0.1


def test_nothing_is_selected_on_test_trials(trained: tuple, tmp_path: Path) -> None:
    """Whatever the test trials are, the model is the same to the bit."""
    planted, *_ = trained
    learnt = planted.train.select(planted.train.items[:60])
    weights = []
    for name, scale in (("as they are", 1.0), ("louder and upside down", -7.0)):
        with write_trial_set(tmp_path / name, learnt.format) as writer:
            for part, split, factor in ((learnt, "train", 1.0), (planted.test, "test", scale)):
                data = np.asarray(part.data[part.rows]) * np.float32(factor)
                writer.append(data, part.stimuli, split=split)
        models = train(load_trial_set(tmp_path / name).training(), planted.features, SETTINGS)
        weights.append([x.numpy() for x in models.brain.state_dict().values()])
    for first, second in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_bundle_from_disk_is_evaluated_as_the_one_in_hand(trained: tuple) -> None:
    planted, _, bundle, gallery = trained
    again = evaluate(load_bundle(bundle.directory), planted.test, gallery, [1], 2)
    assert again == evaluate(bundle, planted.test, gallery, [1], 2)
