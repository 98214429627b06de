"""Every brain encoder learns the demo's subject, and decodes a later session of it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, get_args

import mne
import numpy as np
import pytest
from scipy.stats import binomtest

from decoder.brain.names import OwnEncoderName
from decoder.bundle import load_bundle
from decoder.live import Slice
from demo.recordings import SIMULATED, simulate_recording
from demo.settings import VISUAL_CHANNELS
from demo.stimuli import Stimulus, render, stimuli, training_concepts
from demo.subject import SimulatedSubject, SubjectSettings
from index.gallery import load_gallery, save_gallery
from offline_train.brain.gallery import build_gallery
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import make_bundle, train
from offline_train.data.features import label_features
from offline_train.data.prepare import prepare
from offline_train.data.settings import PrepareSettings
from offline_train.data.study import Facts, Study, StudyPart
from offline_train.data.trial_set import TrialSet
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from stream.pipeline.decoding import open_decoder
from stream.pipeline.trials import trial_plan
from stream.pipeline.wire.config import DecodingSettings, Endpoints, FileSource, SessionConfig
from stream.sources.cut_recording import cut_trials
from stream.sources.read import read_recording
from stream.sources.recording import Recording
from tests.calling import call
from tests.sessions import check_accounted, trials_of

pytestmark = pytest.mark.slow
CLASSES = stimuli(training_concepts()[:8], 1)
REPEATS, LATER_REPEATS = 20, 5
N_LATER = LATER_REPEATS * len(CLASSES)
SOA_S = 0.65
AMPLITUDE = 4.0
# Every trial of the later session is a group of its own: its answers are those to single trials.
LATER_MARKERS = r"^(?P<id>\S+) (?P<group>\d+)$"
PREPROCESSING = PreprocessSettings(
    channels=VISUAL_CHANNELS,
    output_channels=VISUAL_CHANNELS,
    rate_hz=250,
    tmin_s=0,
    tmax_s=0.6,  # 151 samples, the fewest that DeepNet takes
    baseline_s=(-0.1, 0.0),
    whitening="mvnn",
)
SETTINGS = TrainSettings(
    epochs=4, batch_size=32, repeats_per_row=1, rows_per_item=None, lr=2e-3, dim=64, hidden=64
)


@dataclass(frozen=True)
class World:
    """Trials to learn from, and a later session, whose second half evokes nothing."""

    trials: TrialSet
    later: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    settings = SubjectSettings(seed=1, amplitude=AMPLITUDE)
    brain = SimulatedSubject(settings, recording_seed=0)
    evoked = {s.id: brain.evoked(render(s), s.attributes) for s in CLASSES}
    nothing = {name: np.zeros_like(response) for name, response in evoked.items()}
    first = StudyPart(_record(settings, 1, REPEATS, evoked), Facts(session="first"))
    trials = prepare(
        Study.of_parts(SIMULATED, [first]),
        PrepareSettings(preprocessing=PREPROCESSING),
        folder / "trials",
    )
    later = [
        _record(settings, 2, LATER_REPEATS, evoked),
        _record(settings, 3, LATER_REPEATS, nothing),
    ]
    return World(trials, _save(folder / "later_raw.fif", later))


@pytest.mark.parametrize("name", get_args(OwnEncoderName))
def test_an_encoder_decodes_a_later_session(name: str, world: World, tmp_path: Path) -> None:
    answers = decoded(trained(name, world, tmp_path), world.later)
    hits = [answer.ids[0] == answer.stimulus for answer in answers]
    assert len(hits) == 2 * N_LATER
    assert better_than_chance(hits[:N_LATER]) < 0.001
    assert better_than_chance(hits[N_LATER:]) > 0.001  # nothing was evoked there


def test_processes_answer_as_one_does(world: World, tmp_path: Path) -> None:
    """Of an encoder that is not linear in the trial, so that its slices are collected first."""
    bundle = trained("eegnet", world, tmp_path)
    folder = tmp_path / "session"
    done = call(
        *("replay", world.later, "--speed", "max", "--bundle", bundle, "--engine", "torch"),
        *("--stimuli", LATER_MARKERS, "--headless", "--out", folder),
    )
    assert done.code == 0, done.err
    assert check_accounted(folder)["decoded"] == 2 * N_LATER
    answers = trials_of(folder, "decoded")
    assert {answer["n_repeats"] for answer in answers} == {1}
    here = [(answer.stimulus, answer.ids) for answer in decoded(bundle, world.later)]
    assert [(answer["stimulus"], answer["ids"]) for answer in answers] == here


class Answered(NamedTuple):
    """A trial: what was shown, and the ids of the answer, the likeliest first."""

    stimulus: str
    ids: list[str]


def decoded(folder: Path, recording: Path) -> list[Answered]:
    """The answers that a session gives of a recording, by its code and without its processes."""
    bundle, gallery = load_bundle(folder), load_gallery(folder.with_name("gallery"))
    asked = SessionConfig(
        session="s",
        folder=folder.with_name("session"),
        endpoints=Endpoints.local(),
        source=FileSource(path=recording),
        bundle=folder,
        decoding=DecodingSettings(engine="torch"),
        marker_rule=MarkerRule(stimulus=LATER_MARKERS),
    )
    decoder = open_decoder(asked, bundle, gallery, time.monotonic, lambda *_: None)
    plan = replace(trial_plan(asked), preprocessing=Preprocessing.of(bundle))
    answers = []
    for cut in cut_trials(read_recording(recording), plan):
        event = cut.trial.event
        *_, answer = decoder.take(Slice(cut.trial.number, event.group, None, 0, True, cut.array))
        answers.append(Answered(event.stimulus, [gallery.ids[row] for row in answer.ranked.rows]))
    return answers


def trained(name: str, world: World, folder: Path) -> Path:
    """The bundle of an encoder, with the gallery of the classes beside it."""
    settings = SETTINGS.model_copy(update={"encoder": name})
    features = label_features(sorted(world.trials.items))
    models = train(world.trials, features, settings)
    bundle = make_bundle(folder / "bundle", models, world.trials, features, settings, "test")
    names = features.items
    gallery = build_gallery(names, names, features, bundle, created_by="test")
    save_gallery(folder / "gallery", gallery, None)
    return folder / "bundle"


def better_than_chance(hits: Sequence[bool]) -> float:
    test = binomtest(sum(hits), len(hits), 1 / len(CLASSES), alternative="greater")
    return test.pvalue


def _record(
    settings: SubjectSettings, seed: int, repeats: int, evoked: Mapping[str, np.ndarray]
) -> Recording:
    rng = np.random.default_rng(seed)
    order: list[Stimulus] = [CLASSES[i] for _ in range(repeats) for i in rng.permutation(8)]
    subject = SimulatedSubject(settings, recording_seed=seed)
    return simulate_recording(subject, order, evoked, SOA_S, f"session-{seed}")


def _save(path: Path, recordings: Sequence[Recording]) -> Path:
    """One after the other, as one recording with numbered markers."""
    eeg_uv = np.concatenate([recording.samples for recording in recordings])
    info = mne.create_info(list(recordings[0].channels), recordings[0].rate_hz, "eeg")
    raw = mne.io.RawArray(eeg_uv.T * 1e-6, info, verbose="ERROR")
    onsets_s, texts, start_s = [], [], 0.0
    for recording in recordings:
        onsets_s += [start_s + marker.stamp_s for marker in recording.markers]
        texts += [marker.text for marker in recording.markers]
        start_s += recording.duration_s
    numbered = [f"{text} {number}" for number, text in enumerate(texts)]
    raw.set_annotations(mne.Annotations(onsets_s, np.zeros(len(texts)), numbered))
    raw.save(path, verbose="ERROR")
    return path
