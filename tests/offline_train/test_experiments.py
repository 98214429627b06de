"""Experiments: files of a grid, what is run of them, what a kill leaves, and their numbers."""

import csv
import itertools
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from demo.settings import ASSETS
from hvf_core.problem import INTERRUPTED, Problem, WrongUsage
from offline_train.brain.settings import PRESETS
from offline_train.data.trial_set import write_trial_set
from offline_train.experiments import run as running
from offline_train.experiments.latents import with_latents
from offline_train.experiments.numbers import interval_of
from offline_train.experiments.plan import Planned
from offline_train.experiments.settings import SHIPPED, expand, read_experiment
from tests.calling import Done, call
from tests.lookalikes.brain import evoked
from tests.lookalikes.eye import EYE, write_seen
from tests.offline_train.conftest import FORMAT

TRAIN = [f"train{n:02d}" for n in range(24)]
MODULE = "offline_train"
TEST = [f"test{n}" for n in range(6)]
SUBJECTS = ["sub-01", "sub-02"]
PLAIN = f"""
title = "Planted"
trials = "TRIALS"
images = "IMAGES"
seeds = [1, 2]
reference = "good"

[run]
encoders = "{EYE}"
evaluate.repeats = [1, 4]
[run.train]
dim = 16
hidden = 16
lr = 3e-3
epochs = 12
batch_size = 24
warmup_steps = 0
device = "cpu"

[[rows]]
name = "good"

[[rows]]
name = "idle"
train.lr = 0.0

[[published]]
row = "good"
values = {{ top1 = 99.5, top5 = 100.0 }}
source = "them"

[[published]]
row = "another system"
values = {{ top1 = 12.5 }}
source = "them"

[sources]
them = "They, 2025"
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials of two subjects, who see what there is in images of training and test."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    with write_trial_set(folder / "trials", FORMAT) as writer:
        for subject, (split, names) in itertools.product(
            SUBJECTS, {"train": TRAIN, "test": TEST}.items()
        ):
            seen = np.stack([evoked(name, 6, 20) for name in names])
            for session in ("1", "2", "3", "4"):
                trials = seen + 0.5 * rng.standard_normal(seen.shape)
                known = {"subject": subject, "session": session, "split": split}
                writer.append(trials.astype(np.float32), names, **known)
    write_seen(folder / "images", {name: name for name in (*TRAIN, *TEST)})
    return folder


def written(world: Path, folder: Path, text: str = PLAIN) -> Path:
    file = folder / "planted.toml"
    text = text.replace("TRIALS", str(world / "trials")).replace("IMAGES", str(world / "images"))
    file.write_text(text, encoding="utf-8")
    return file


def experiments(file: object, folder: Path, *more: object) -> Done:
    how = ("--out", folder / "out", "--cache", folder / "features")
    return call("experiments", file, *how, *more, module=MODULE)


def runs(folder: Path) -> dict[str, int]:
    """Of each run that is done, when it was."""
    return {p.parent.name: p.stat().st_mtime_ns for p in (folder / "out").glob("runs/*/run.json")}


def test_a_grid_is_every_row_at_every_value_subject_and_seed(tmp_path: Path, world: Path) -> None:
    axes = "[product]\ntrain.encoder = ['mbp', 'ubp', 'nice']\nevaluate.seed = [0]\n"
    file = written(world, tmp_path, PLAIN + axes)
    found = list(expand(read_experiment(str(file)), SUBJECTS))
    wanted = list(itertools.product(("good", "idle"), ("mbp", "ubp", "nice"), SUBJECTS, (1, 2)))
    told = [(r.row, r.settings.train.encoder, r.subject, r.settings.train.seed) for r in found]
    assert told == wanted
    assert {r.settings.train.lr for r in found if r.row == "idle"} == {0.0}
    assert {r.settings.train.lr for r in found if r.row == "good"} == {3e-3}
    usual = dict(PRESETS["paper"])
    said = {"encoder", "dim", "hidden", "lr", "epochs", "batch_size", "warmup_steps"}
    said |= {"device", "seed"}
    for name in usual.keys() - said:
        assert {repr(getattr(r.settings.train, name)) for r in found} == {repr(usual[name])}
    assert found[0].name == "good, mbp, 0, sub-01, seed 1"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("train.lr = 0.0", "train.lrr = 0.0"), "there is no setting 'train.lrr' in .*row 'idle'"),
        (("train.lr = 0.0", "train.lr = -1"), "row 'idle': train.lr -1 must be greater"),
        (("train.lr = 0.0", "train.seed = 3"), "'train.seed' by the list `seeds`"),
        (('name = "idle"', 'name = "good"'), "each of the rows must have a name of its own"),
        (("[[rows]]", "[product]\ntrain.lr = 0.1\n[[rows]]"), "must be a list of values"),
        (("[[rows]]", "[product]\ntrain.lr = [0.1]\n[[rows]]"), "is in the row 'idle' and in prod"),
        (("[run]\n", "[run]\npreset = 'papers'\n"), "run: preset 'papers' is none; there are live"),
        (('source = "them"', 'source = "us"'), "the source 'us', of which .sources. has no"),
        (('source = "them"', 'at.lr = 1\nsource = "them"'), "is at 'lr', which is no axis"),
        (('reference = "good"', 'reference = "best"'), "reference 'best' is none of the rows good"),
        (("seeds = [1, 2]", "seeds = []"), r"seeds \[\] has 0 values, and needs 1 or more"),
        (("seeds = [1, 2]", "seeds = [1e30]"), r"seeds 1e.30 is too large"),
        (("top1 = 99.5", "topl = 99.5"), "published 1 values topl 'topl' must be 'top1', 'top5'"),
        (('source = "them"', ""), "published 1 source is missing"),
        (("seeds = [1, 2]", "seeds = [1, 1]"), "has one twice"),
        (('title = "Planted"', ""), "title is missing in '.*planted.toml': Of the table"),
        (("lr = 0.0", "hold_out = 5"), "say 'train.hold_out' not at all: nothing is calibrated"),
        (("lr = 0.0", "subjects = 'each'"), "say 'train.subjects' by `learn_from`"),
        (("[run]\n", "[run]\nevaluate.evidence = ['added']\n"), "'added' adds what is calibr"),
        (("[[rows]]", "[product]\ntrain.dim = [8, 8]\n[[rows]]"), "product has train.dim 8 twice"),
        (
            ("[[rows]]", "[product]\ntrain.weight_decay = [1, 1.0]\n[[rows]]"),
            "decay 1.0 twice: name",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence_before_anything_runs(
    tmp_path: Path, world: Path, change: tuple[str, str], told: str
) -> None:
    file = written(world, tmp_path, PLAIN.replace(*change, 1))
    with pytest.raises(WrongUsage, match=told):
        read_experiment(str(file))
    done = experiments(file, tmp_path)
    assert done.code == 2
    assert done.one_sentence()
    assert not (tmp_path / "out").exists()


def test_a_folder_of_others_is_left_as_it_is(tmp_path: Path, world: Path) -> None:
    there = sorted((world / "trials").iterdir())
    done = call("experiments", written(world, tmp_path), "--out", world / "trials", module=MODULE)
    assert "holds no table.json or runs or begun, so it is left alone" in done.one_sentence()
    assert sorted((world / "trials").iterdir()) == there


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (f'prior = "{ASSETS}/prior"', f"prior '{ASSETS}/prior' was trained with the image encode"),
        ("latents = 'pooled'", "the latents are to be pooled, and none of the encoders"),
        ("train.blur_prior = true", "the blur prior needs encoders that see blurred images"),
    ],
)
def test_what_does_not_fit_the_encoders_is_told_before_images_are_seen(
    tmp_path: Path, world: Path, row: str, told: str
) -> None:
    done = experiments(written(world, tmp_path, PLAIN.replace("train.lr = 0.0", row)), tmp_path)
    assert told in done.one_sentence()
    assert not [*tmp_path.glob("features/*")]


def test_paths_of_encoders_begin_where_the_command_is_given(tmp_path: Path, world: Path) -> None:
    text = PLAIN.replace(EYE, "classifier@./no.safetensors")
    done = experiments(written(world, tmp_path, text), tmp_path)
    assert "no.safetensors', which the experiment needs, cannot be" in done.one_sentence()


@pytest.mark.parametrize(
    ("asked", "told"),
    [("repeats = [1, 99]", "99 are to be averaged"), ("tmax_s = [9]", "tmax 9 s is not in the")],
)
def test_what_trials_do_not_have_is_told_before_anything_runs(
    tmp_path: Path, world: Path, asked: str, told: str
) -> None:
    (tmp_path / "out/begun/0").mkdir(parents=True)  # of what was ended before a run was done
    file = written(world, tmp_path, PLAIN.replace("repeats = [1, 4]", asked))
    done = experiments(file, tmp_path)
    assert done.code == 1
    assert told in done.one_sentence()
    assert len([*(tmp_path / "out/begun").iterdir()]) == 1


def test_a_cache_that_cannot_be_written_is_told_before_anything_runs(
    tmp_path: Path, world: Path
) -> None:
    file = written(world, tmp_path)
    done = experiments(file, tmp_path, "--cache", file / "features")
    assert f"{file / 'features'} cannot be written" in done.one_sentence()


def test_data_that_are_not_there_are_told_before_anything_heavy_is_loaded(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "offline_train.commands.experiments.steps", None)
    monkeypatch.delattr("offline_train.commands.experiments.steps", raising=False)
    text = PLAIN.replace("[run]\n", "made_by = '`this` makes both'\n[run]\n", 1)
    file = written(world, tmp_path, text.replace("IMAGES", "nowhere/images"))
    told = "there is no 'nowhere/images', the images of the experiment: `this` makes both; if they"
    assert experiments(file, tmp_path).one_sentence().startswith(told)
    assert "there is no 'away', the trials" in experiments(file, tmp_path, "--trials", "away").err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ended_it_says_how_far_it_came(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from offline_train.commands.experiments import steps

    def run_missing(planned: Sequence[Planned], *_: object) -> None:
        planned[0].folder.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(steps, "run_missing", run_missing)
    done = experiments(written(world, tmp_path), tmp_path)
    assert (done.code, done.one_sentence()) == (INTERRUPTED, "interrupted")
    assert done.out.endswith("1 of 8 runs are done; the same command goes on\n")


def test_a_file_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(WrongUsage, match=r"no experiment 'encoder': .* demo-encoders"):
        read_experiment("encoder")


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_whole(name: str) -> None:
    experiment = read_experiment(name)
    assert len({run.name for run in expand(experiment, ["sub-01"])}) >= len(experiment.rows)
    assert ("demo world" in experiment.title) == name.startswith("demo-")
    assert not (name.startswith("demo-") and experiment.published)


def test_published_figures_are_the_papers_and_have_their_source() -> None:
    found = {
        (name, one.row, one.at.get("learn_from", ""), one.at.get("subject", "")): (
            one.values,
            read_experiment(name).sources[one.source],
        )
        for name in SHIPPED
        for one in read_experiment(name).published
    }
    for key, values in {
        ("main-table", "HVF", "own", ""): {"top1": 75.7, "top5": 94.6},
        ("main-table", "UBP", "others", ""): {"top1": 12.4, "top5": 33.4},
        ("main-table-meg", "HVF", "others", ""): {"top1": 5.4, "top5": 15.2},
        ("encoders", "RN50 + B32", "own", ""): {"top1": 56.9, "top5": 86.1},
        ("encoders", "VAE", "others", ""): {"top1": 10.2, "top5": 23.9},
        ("priors", "H14 + B32 + VAE", "", ""): {"PixCorr": 0.195},
    }.items():
        assert found[key][0] == values
        assert "ICLR 2026" in found[key][1]
    rows = [row["name"] for row in read_experiment("encoders").rows]
    assert len(rows) == 7
    assert {key[1] for key in found if key[0] == "encoders"} == {*rows} - {"RN50 + VAE"}
    by_subject = [v["top1"] for k, (v, _) in found.items() if k[:2] == ("subjects", "B32 + VAE")]
    assert by_subject[-1] == pytest.approx(np.mean(by_subject[:-1]), abs=0.05)


@pytest.mark.slow
def test_what_is_missing_is_run_and_stands_in_the_table(tmp_path: Path, world: Path) -> None:
    ways = 'evidence = ["mean", "predictions"]\nevaluate.transductive = ["csls"]\nevaluate.'
    file = written(world, tmp_path, PLAIN.replace("evaluate.", f"evaluate.{ways}", 1))
    first = experiments(file, tmp_path, "--only", "idle, sub-01")
    assert (first.code, len(runs(tmp_path))) == (0, 2), first.err
    assert "2 runs, 2 to do, about 0:00:" in first.out
    before = runs(tmp_path)
    listed = experiments(file, tmp_path, "--list")
    assert [listed.out.count(state) for state in ("done", "to do")] == [2, 6]
    again = experiments(file, tmp_path)
    assert again.code == 0
    after = runs(tmp_path)
    assert len(after) == 8
    assert before.items() <= after.items()

    found = json.loads((tmp_path / "out/table.json").read_text())
    published = [line["method"] for line in found["lines"] if line["published"]]
    assert published == ["averaged EEG, inductive"] * 2
    lines = {(x["row"], x["repeats"]): x for x in found["lines"] if x["method"] == published[0]}
    good, idle, theirs = lines["good", 4], lines["idle", 4], lines["another system", None]
    assert (good["n_images"], good["n_subjects"], good["n_seeds"], good["n_runs"]) == (6, 2, 2, 4)
    assert good["measured"]["top1"]["value"] > 60 > 45 > idle["measured"]["top1"]["value"]
    assert good["published"] == {"top1": 99.5, "top5": 100.0}
    assert lines["good", 1]["published"] == {}
    assert theirs["n_runs"] == 0
    away = idle["differences"]["top1"]
    assert away["value"] == pytest.approx(
        idle["measured"]["top1"]["value"] - good["measured"]["top1"]["value"]
    )
    assert away["high"] < 0
    text = (tmp_path / "out/table.md").read_text()
    assert "99.5 / 100 [1]" in text
    assert "none published" in text
    assert "not run" in text
    assert "[1] They, 2025" in text
    assert "6 images x 2 subjects x 2 seeds" in text
    assert "SIMULATED" not in text
    with (tmp_path / "out/table.csv").open() as rows:
        usual = (row for row in csv.DictReader(rows) if row["method"] == published[0])
        cells = {(row["row"], row["repeats"]): row for row in usual}
    assert float(cells["good", "4"]["top1_low"]) == good["measured"]["top1"]["low"]
    assert cells["another system", ""]["source"] == "They, 2025"
    assert (tmp_path / "out/figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_run_that_fails_does_not_keep_others_from_being_run(tmp_path: Path, world: Path) -> None:
    file = written(world, tmp_path, PLAIN.replace("train.lr = 0.0", "train.lr = 1e30"))
    done = experiments(file, tmp_path)
    assert done.code == 1
    assert "4 of 8 runs failed, 'idle, sub-01, seed 1', " in done.one_sentence()
    assert "the training diverged" in done.one_sentence()
    assert len(runs(tmp_path)) == 4
    assert experiments(file, tmp_path, "--list").out.count("failed: the loss is") == 4
    before = runs(tmp_path)
    assert experiments(file, tmp_path).code == 1
    assert runs(tmp_path) == before


def end_in(epoch: int, file: Path, folder: Path) -> None:
    """Runs an experiment whose process is killed in the second run."""
    calls = iter(range(10**6))

    def run_missing(*given: object) -> None:
        planned, world, _, say = given
        per_run = planned[0].n_steps
        end = per_run + epoch
        running_missing(
            planned,
            world,
            lambda *_: next(calls) > end and os.kill(os.getpid(), signal.SIGKILL),
            say,
        )

    running_missing = running.run_missing
    running.run_missing = run_missing
    experiments(file, folder)


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_numbers(tmp_path: Path, world: Path) -> None:
    numbers: dict[str, dict[str, object]] = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        file = written(world, folder)
        if name == "killed":
            child = multiprocessing.get_context("spawn").Process(
                target=end_in, args=(6, file, folder)
            )
            child.start()
            child.join(100)
            assert child.exitcode == -signal.SIGKILL
            assert len(runs(folder)) == 1
            assert len([*folder.glob("out/begun/*/*.safetensors")]) == 1
        before = runs(folder)
        done = experiments(file, folder)
        assert done.code == 0, done.err
        assert before.items() <= runs(folder).items()
        assert [*folder.glob("out/begun/*")] == []
        numbers[name] = json.loads((folder / "out/table.json").read_text())["lines"]
    assert numbers["killed"] == numbers["whole"]


def test_latents_are_pooled_and_shuffled_as_said() -> None:
    from decoder.bundle import ImageEncoderRecord
    from index.encoders.spec import EncoderSpec
    from offline_train.data.features import Features

    rng = np.random.default_rng(0)
    given = {"clip": rng.normal(size=(3, 5)), "vae": rng.normal(size=(3, 4 * 9))}
    records = tuple(
        ImageEncoderRecord(name=name, dim=x.shape[1], checksum=name) for name, x in given.items()
    )
    specs = [
        EncoderSpec(name="clip", kind="classifier", source="./a"),
        EncoderSpec(name="vae", kind="diffusers-vae", source="./b"),
    ]
    features = Features(("a", "b", "c"), records, given)
    assert with_latents(features, specs, "flat") is features
    latents = given["vae"].reshape(3, 4, 9)
    pooled = with_latents(features, specs, "pooled")
    assert np.allclose(pooled.embeddings["vae-pooled"], latents.mean(axis=2))
    assert [(one.name, one.dim) for one in pooled.encoders] == [("clip", 5), ("vae-pooled", 4)]
    assert pooled.embeddings["clip"] is given["clip"]
    shuffled = with_latents(features, specs, "shuffled").embeddings["vae-shuffled"]
    moved = shuffled.reshape(3, 4, 9)
    orders = [
        [next(j for j in range(9) if np.array_equal(new[:, i], old[:, j])) for i in range(9)]
        for new, old in zip(moved, latents, strict=True)
    ]
    assert all(sorted(order) == [*range(9)] for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    alone = features.select(("b",))  # an image is shuffled as it is among others
    one = with_latents(alone, specs, "shuffled").embeddings["vae-shuffled"]
    assert np.array_equal(one[0], shuffled[1])
    with pytest.raises(Problem, match="pooled, and none of the encoders clip is a VAE"):
        with_latents(
            Features(("a",), records[:1], {"clip": given["clip"][:1]}), specs[:1], "pooled"
        )


def bernoulli(shape: Sequence[int], p: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) < p).astype(float)


def test_intervals_are_those_of_what_is_drawn_anew() -> None:
    same = interval_of(np.full((2, 3, 50), 0.25))  # which Wilson gives none of 50 7.1 % of others
    assert (same.value, same.low, same.high) == pytest.approx((25, 23.2, 30.4), abs=0.1)
    one_run = interval_of(bernoulli((1, 1, 400), 0.3))
    half = 100 * 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert (one_run.high - one_run.low) / 2 == pytest.approx(half, rel=0.15)
    # Seeds that differ, in the same images: the interval is about that of the seeds' mean.
    by_seed = np.array([0.2, 0.3, 0.4, 0.5, 0.6])[None, :, None] * np.ones((1, 5, 400))
    seeds = interval_of(by_seed)
    assert seeds.value == pytest.approx(40)
    assert (seeds.high - seeds.low) / 2 == pytest.approx(100 * 1.96 * 0.1414 / np.sqrt(5), rel=0.15)


def test_a_run_that_is_missing_is_left_out_of_the_mean() -> None:
    rates = np.full((2, 2, 10), 0.5)
    rates[1, 1] = np.nan
    rates[0, 0] = 0.8
    found = interval_of(rates)
    assert found.value == pytest.approx(60)
    assert 50 <= found.low <= found.high <= 80
