"""Every data set's whole way, to a session that decodes it as `evaluate` does, trial by trial."""

import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace as replace_field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pytest

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle, load_bundle
from decoder.calibration import log_softmax
from decoder.evidence import Weights
from decoder.live import Slice
from hvf_core.problem import Problem
from index.gallery import Gallery, load_gallery, save_gallery
from offline_train.commands import options
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import Answerer, window_ends
from offline_train.evaluate.retrieval import evaluate
from stream.acquire.markers import BadSpan
from stream.acquire.preprocess import Preprocessing
from stream.acquire.trials import Drop
from stream.commands import replay
from stream.pipeline.decoding import open_decoder
from stream.pipeline.trials import trial_plan
from stream.pipeline.wire.config import FileSource, SessionConfig
from stream.recorder.joined import write_joined
from stream.sources.cut_recording import cut_trials
from stream.sources.read import read_recording
from stream.sources.recording import RecordedMarker, Recording
from tests.calling import Done, call
from tests.lookalikes import bids, things, things_eeg2
from tests.lookalikes.forms import FORMS
from tests.lookalikes.way import learnt, prepared
from tests.sessions import check_accounted

pytestmark = pytest.mark.slow


class Played(NamedTuple):
    """What a session was to play, and what it answered in virtual time."""

    config: SessionConfig
    recording: Recording
    answers: list[tuple[str, np.ndarray]]
    """In the order of the trials: the id shown, and log p of each image of the gallery."""
    said: Done

    @property
    def top1(self) -> float:
        """How often the last answer of each image, from all of its repeats, is right."""
        last = dict(self.answers)
        ids = load_gallery(self.config.gallery).ids
        return float(np.mean([ids[int(log_p.argmax())] == shown for shown, log_p in last.items()]))


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Played]:
    """Calls `replay`, and decodes what it would start a session with, here and at once."""

    def played(*arguments: object) -> Played:
        kept: list[Any] = []

        def run(config: SessionConfig, headless: bool, title: str, source: list[str]) -> None:
            assert isinstance(config.source, FileSource)
            recording = read_recording(config.source.path, config.source)
            kept.extend([config, recording, _answered(config, recording)])

        monkeypatch.setattr(replay, "run", run)
        out = tmp_path / f"session-{time.monotonic_ns()}"
        told = ("--engine", "torch", "--out", out)
        said = call("replay", *arguments, "--pickles", "--speed", "max", *told)
        assert said.code == 0, said.err
        assert not (out / "played.xdf").exists()
        return Played(*kept, said)

    return played


def _answered(config: SessionConfig, recording: Recording) -> list[tuple[str, np.ndarray]]:
    bundle, gallery = load_bundle(config.bundle), load_gallery(config.gallery)
    config = config.model_copy(update={"top_k": len(gallery)})
    decoder = open_decoder(config, bundle, gallery, time.monotonic, lambda text, facts: None)
    plan = replace_field(
        trial_plan(config),
        preprocessing=Preprocessing.of(bundle),
        is_known=gallery.__contains__,
    )
    answers = []
    for outcome in cut_trials(recording, plan):
        assert not isinstance(outcome, Drop), outcome
        shown = outcome.trial.event.stimulus
        slice_ = Slice(outcome.trial.number, shown, shown, 0, True, outcome.array)
        *_, answer = decoder.take(slice_)
        log_p = np.empty(len(gallery))
        log_p[answer.ranked.rows] = answer.ranked.log_p
        answers.append((shown, log_p))
    return answers


def offline(trials: Path, bundle: Path, gallery: Path) -> list[tuple[str, np.ndarray]]:
    """The same by what `evaluate` answers with, from trials that `prepare-test` has cut."""
    asked, opened = options.test_trials(trials), load_bundle(bundle)
    manifest = opened.manifest
    weights = Weights("mean", manifest.logit_scale, manifest.calibration)
    network = load_brain_encoder(opened)
    answerer = Answerer(network, load_gallery(gallery).counted, weights, manifest.tmax_s)
    repeats: dict[str, list[int]] = defaultdict(list)
    answers = []
    for position, stimulus in enumerate(asked.stimuli):
        repeats[stimulus].append(position)
        group = np.array(repeats[stimulus])
        [(_, _, found)] = answerer.log_likelihoods(asked, [group], window_ends(manifest))
        factor = 1 / weights.temperature(manifest.tmax_s, len(group))
        answers.append((stimulus, log_softmax(found[0], factor)))
    return answers


@pytest.mark.parametrize("name", FORMS)
def test_the_whole_way_of_a_data_set(
    name: str, play: Callable[..., Played], tmp_path: Path
) -> None:
    """Prepared, learnt from, asked about and, if it can be, played as from an amplifier.

    Models of shuffled labels are at chance by `evaluate`, whose answers are those of the session.
    """
    form = FORMS[name]
    data = form.make(tmp_path / "data")
    learn, ask = (data / part for part in form.parts or ("", ""))
    trials = prepared(tmp_path / "trials", learn, *form.how)
    learns = trials.training()
    assert {*learns.items} == {*form.learnt}
    bundle, gallery = tmp_path / "bundle", tmp_path / "gallery"
    save_gallery(gallery, learnt(learns, form.asked, bundle)[1])
    held = tmp_path / "held"
    if form.stream is not None:
        given = ("--bundle", bundle, "--pickles", "--out", held)
        done = call("prepare-test", ask, *given, module="offline_train")
        assert done.code == 0, done.err
    asked = options.test_trials(tmp_path / "trials" if form.parts is None else held)
    assert {*asked.items} == {*form.asked}
    assert top1(load_bundle(bundle), load_gallery(gallery), asked) > 0.35 + 2 * form.chance
    others = (learnt(learns, form.asked, tmp_path / f"other-{n}", shuffle=n) for n in range(1, 4))
    assert np.mean([top1(*other, asked) for other in others]) < 0.2 + form.chance

    if form.stream is None:
        assert "others have whitened" in refused(ask)
        return
    live = play(ask, "--bundle", bundle, "--gallery", gallery)
    expected = offline(held, bundle, gallery)
    assert len(live.answers) == form.stream.n_trials
    for (shown, log_p), (stimulus, wanted) in zip(live.answers, expected, strict=True):
        assert shown == stimulus
        np.testing.assert_allclose(log_p, wanted, rtol=0, atol=1e-4)
    told = live.recording
    assert (told.rate_hz, {*told.units}) == (form.stream.rate_hz, {form.stream.unit})
    assert form.stream.channel in told.channels
    assert set(trials.format.channels) <= set(told.channels)
    assert told.signal(told.channels).kind == trials.format.kind
    assert live.top1 > 0.35 + 2 * form.chance


def top1(bundle: Bundle, gallery: Gallery, asked: TrialSet) -> float:
    return evaluate(bundle, asked, gallery, [1]).points[0].top1.value


def refused(data: Path) -> str:
    with TemporaryDirectory() as folder:
        done = call("replay", data, "--pickles", "--speed", "max", "--out", Path(folder) / "s")
    assert done.code == 1
    return done.one_sentence()


@pytest.mark.parametrize("speed", ["max", "20"])
def test_a_session_plays_a_data_set(speed: str, tmp_path: Path) -> None:
    """In virtual time, and as streams of LSL: Alljoined1, which tells no test images apart."""
    data, out = bids.nm000133(tmp_path / "data"), tmp_path / "session"
    told = ("--tmin", 0, "--tmax", 0.2, "--headless", "--out", out)
    saved = tmp_path / "trials.npz"
    done = call("replay", data, "--speed", speed, *told, "--save-trials", saved)
    assert done.code == 0, done.err
    assert "01/01: 40 markers" in done.out
    assert "01/02: 40 markers" in done.out
    assert check_accounted(out)["cut"] == 80
    trials = np.load(saved, allow_pickle=False)
    rows = [row for path in bids_events(data) for row in path.read_text().splitlines()[1:-1]]
    assert trials["stimulus"].tolist() == [Path(row.split("\t")[3]).stem for row in rows]
    assert json.loads((out / "config.json").read_text())["subject"] == "01"
    assert not (out / "played.xdf").exists()


def bids_events(data: Path) -> list[Path]:
    return sorted(data.rglob("*_events.tsv"))


def test_recordings_are_joined_on_one_clock_with_a_pause(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def one(n: int, **more: Any) -> Recording:
        samples = rng.standard_normal((n, 2)).astype(np.float32)
        told = {"channels": ("Cz", "Oz"), "units": ("microvolts",) * 2, "kinds": ("eeg",) * 2}
        told |= {"path": tmp_path, "name": "x", "rate_hz": 100.0, "samples": samples} | more
        return Recording(stamps_s=7 + np.arange(n) / 100, **told)

    shown = (RecordedMarker(7.1, "a"), RecordedMarker(7.3, "b"))
    bad = (BadSpan(7.2, 7.4, "blink"),)
    first = one(50, markers=shown, bad_spans=bad, marker_offsets=((0.0, 0.05),), simulated=True)
    second = one(30, markers=shown[:1])
    write_joined(tmp_path / "a.xdf", "joined", iter([first, second, second]), 0.8)
    read = read_recording(tmp_path / "a.xdf")
    np.testing.assert_array_equal(read.samples, np.concatenate([first.samples, second.samples]))
    expected = [*np.arange(50) / 100, *(0.6 + np.arange(30) / 100)]
    np.testing.assert_allclose(read.stamps_s, expected, atol=1e-9)
    said = [(round(marker.stamp_s, 6), marker.text) for marker in read.markers]
    assert said == [(0.15, "a"), (0.2, bad[0].text), (0.35, "b"), (0.7, "a")]
    assert (read.name, read.channels, read.units) == ("joined", ("Cz", "Oz"), first.units)
    assert read.simulated
    (said_of_it,) = [notice for notice in read.notices if "joint" in notice]
    assert said_of_it.startswith("a joint is among the gaps")
    write_joined(tmp_path / "c.xdf", "joined", iter([first, second, second]), np.inf)
    assert read_recording(tmp_path / "c.xdf").join_notices()[0].startswith("2 joints are among")
    assert read_recording(tmp_path / "a.xdf", stop_s=0.4).join_notices() == ()
    other = replace_field(second, channels=("Cz", "Pz"))
    with pytest.raises(Problem, match=r"other channels .*'Pz'.* and not .*'Oz'.*: .* play them"):
        write_joined(tmp_path / "b.xdf", "joined", iter([first, other]), np.inf)


def test_what_cannot_be_played_is_refused_in_one_sentence(tmp_path: Path) -> None:
    def refused(*arguments: object, code: int = 1) -> str:
        done = call("replay", *arguments, "--speed", "max", "--out", tmp_path / "session")
        assert done.code == code
        return done.one_sentence()

    assert "--pickles" in refused(things_eeg2.ubp(tmp_path / "ubp"))
    things.write_images(tmp_path / "Image_set", "elsewhere")  # nor are any images known
    assert "others have whitened" in refused(things_eeg2.gifford(tmp_path / "g"), "--pickles")
    data = bids.nm000232(tmp_path / "data")
    assert "'dev', but 1 of test, 2 of train" in refused(data, "--split", "dev")
    shutil.copytree(data / "sub-01", data / "sub-02")
    for path in (data / "sub-02").rglob("sub-01*"):
        path.rename(path.with_name(path.name.replace("sub-01", "sub-02")))
    assert "subjects 01 and 02" in refused(data)
    assert not (tmp_path / "session").exists()
    (tmp_path / "session").mkdir()
    alone = next(data.rglob("*task-test_eeg.bdf"))
    assert "--split, --images, --pickles are of" in refused(alone, "--split", "test", code=2)
    assert "is not there" in refused(tmp_path / "nowhere")
    assert "holds no recording.xdf" in refused(tmp_path / "session")


def test_images_that_the_gallery_lacks_are_told_before_the_start(
    play: Callable[..., Played], tmp_path: Path
) -> None:
    data, bundle, gallery = (tmp_path / name for name in ("data", "bundle", "gallery"))
    trials = prepared(tmp_path / "trials", bids.nm000232(data), *FORMS["nm000232"].how)
    whole = learnt(trials.training(), FORMS["nm000232"].asked, bundle)[1]
    few = replace_field(
        whole, ids=whole.ids[:3], labels=whole.labels[:3], embeddings=whole.embeddings[:3]
    )
    save_gallery(gallery, few)
    played = play(data, "--bundle", bundle, "--gallery", gallery)
    assert len(played.answers) == 6  # of 8
    assert f"of the 4 images shown 1 are not in the gallery '{gallery}'" in played.said.out
    save_gallery(tmp_path / "none", replace_field(few, ids=("x", "y", "z")))
    told = ("--bundle", bundle, "--gallery", tmp_path / "none", "--out", tmp_path / "s")
    done = call("replay", data, *told)
    assert done.code == 1
    assert "4 are not in the gallery" in done.one_sentence()
    assert not (tmp_path / "s").exists()
