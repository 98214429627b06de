"""Files as disks, networks and people damage them: what reads them gives a result or a sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import load_bundle
from decoder.hvf import load_hvf
from decoder.live import Slice
from decoder.painting.prior import check_bundle, load_prior
from hvf_core.artifact import file_sha256
from hvf_core.problem import Problem
from hvf_core.settings import merge
from hvf_core.toml import read_toml, to_toml
from index.gallery import load_gallery
from offline_train.evaluate import session as evaluated
from offline_train.evaluate.session import evaluate_session
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import Preprocessing
from stream.pipeline.books.closing import make_whole
from stream.pipeline.wire.config import (
    Endpoints,
    LiveSource,
    SessionConfig,
    SessionSettings,
    read_config,
)
from stream.sources.read import read_recording
from tests.calling import call
from tests.mutations import N, bounded_memory, outcomes
from tests.recording_files import MARKER_HEADER, eeg_header, eeg_stream, write_xdf
from tests.tiny_bundle import CHANNELS, tiny_models
from tests.tiny_painting import write_models

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


def damaged(
    folder: Path, manifest: str, file: str, read: Callable[[Path], object], n: int = N
) -> int:
    """Damages a file of a folder, whose manifest gives the checksum that the file has by then."""
    whole, told = (folder / file).read_bytes(), (folder / manifest).read_text()
    before = file_sha256(folder / file)

    def read_changed(data: bytes) -> None:
        (folder / file).write_bytes(data)
        if file != manifest:
            (folder / manifest).write_text(told.replace(before, file_sha256(folder / file)))
        read(folder)

    try:
        return outcomes(read_changed, whole, n)
    finally:
        (folder / file).write_bytes(whole)
        (folder / manifest).write_text(told)


def use_gallery(folder: Path) -> None:
    gallery = load_gallery(folder)
    assert gallery.embeddings.shape[0] == len(gallery.ids)
    gallery.row_of(gallery.ids[0])
    for path in filter(None, gallery.images or ()):
        assert path.resolve().parent == (folder / "images").resolve()


def use_bundle(folder: Path) -> None:
    bundle = load_bundle(folder)
    preprocessing = Preprocessing.of(bundle)
    preprocessing.prepare(preprocessing.settings.channels, max(preprocessing.settings.rate_hz, 100))
    shape = (1, len(bundle.manifest.channels), bundle.manifest.n_times)
    with torch.inference_mode():
        load_brain_encoder(bundle)(torch.zeros(shape))
    load_hvf(bundle)
    bundle.manifest.marks()


def use_prior(folder: Path) -> None:
    prior = load_prior(folder)
    check_bundle(prior, load_bundle(folder.parent / "bundle").manifest)
    prior.condition(torch.ones(1, prior.manifest.embedding_dim))
    assert prior.hvf is not None
    assert prior.adapter


@pytest.mark.parametrize(
    ("folder", "manifest", "file", "use"),
    [
        ("gallery", "gallery.json", "gallery.json", use_gallery),
        ("gallery", "gallery.json", "embeddings.f32", use_gallery),
        ("gallery", "gallery.json", "names.jsonl", use_gallery),
        ("gallery", "gallery.json", "names.index", use_gallery),
        ("bundle", "bundle.json", "bundle.json", use_bundle),
        ("bundle", "bundle.json", "brain.safetensors", use_bundle),
        ("prior", "prior.json", "prior.json", use_prior),
        ("prior", "prior.json", "ip_adapter.safetensors", use_prior),
    ],
)
def test_models(
    models: Path, folder: str, manifest: str, file: str, use: Callable[[Path], None]
) -> None:
    use(models / folder)
    n = N if file != "ip_adapter.safetensors" else 50  # it is large
    assert 0 < damaged(models / folder, manifest, file, use, n) < n


@pytest.mark.parametrize(
    ("folder", "manifest", "name"),
    [
        ("bundle", "bundle.json", "embedding_dim"),
        ("bundle", "bundle.json", "hidden"),
        ("bundle", "bundle.json", "dim"),
        ("bundle", "bundle.json", "tmax_s"),
        ("bundle", "bundle.json", "rate_hz"),
        ("prior", "prior.json", "embedding_dim"),
        ("prior", "prior.json", "projector_hidden"),
        ("prior", "prior.json", "hidden"),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_asked_for(
    models: Path, folder: str, manifest: str, name: str
) -> None:
    use = use_bundle if folder == "bundle" else use_prior
    file = models / folder / manifest
    whole = file.read_text()
    for size in (900, 10**6, 10**9, 10**18, 10**30):
        file.write_text(json.dumps(with_size(json.loads(whole), name, size)))
        with bounded_memory(64), pytest.raises(Problem) as caught:
            use(models / folder)
        assert "alloc" not in str(caught.value)
    file.write_text(whole)


def with_size(told: object, name: str, size: int) -> object:
    if isinstance(told, dict):
        return {
            key: size if key == name else with_size(value, name, size)
            for key, value in told.items()
        }
    return [with_size(value, name, size) for value in told] if isinstance(told, list) else told


def test_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        'top_k = 3\nbundle = "model"\n[source]\neeg = "EEG"\nmarkers = "m"\n'
        "[decoding]\ntmax_s = [0.3, 0.5]\n[painting]\nprior = 'p'\nseed = 7\n"
    )
    read = merge(SessionSettings, read_toml(SessionSettings, file))

    def read_changed(data: bytes) -> None:
        file.write_bytes(data)
        merge(SessionSettings, read_toml(SessionSettings, file))

    given = "\n".join(one for one in to_toml(read).splitlines() if one[:1] not in ("#", ""))
    assert 0 < outcomes(read_changed, given.encode()) < N


def test_recordings(tmp_path: Path) -> None:
    path = write_xdf(tmp_path / "a.xdf", [eeg_stream(n_samples=50), markers("a", "b")])

    def read(data: bytes) -> None:
        path.write_bytes(data)
        recording = read_recording(path)
        assert recording.samples.shape[1] == len(recording.channels)

    assert 0 < outcomes(read, path.read_bytes()) < N


def markers(*texts: str) -> tuple:
    return MARKER_HEADER, 50.3 + 0.5 * np.arange(len(texts)), [[text] for text in texts]


ANSWER = {"n_repeats": 1, "tmax_s": 0.19, "rank": 1, "ids": ["a", "b"], "probabilities": [0.5, 0.4]}
ANSWER |= {"calibrated": False, "abstain": False, "stamps": {"window_end": 1.0}}


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """The folder of a session that decoded two trials."""
    models, folder = tiny_models(tmp_path), tmp_path / "session"
    folder.mkdir()
    config = SessionConfig(
        session="s",
        folder=folder,
        endpoints=Endpoints(**dict.fromkeys(Endpoints.model_fields, "ipc:///x")),
        source=LiveSource(eeg="EEG", markers="m"),
        bundle=models / "bundle",
        gallery=models / "gallery",
    )
    config.write()
    header = eeg_header(n_channels=4, rate_hz=100.0, labels=CHANNELS, units=["microvolts"] * 4)
    samples = np.random.default_rng(0).normal(size=(150, 4)).astype(np.float32)
    eeg = (header, 50 + np.arange(150) / 100, samples)
    write_xdf(folder / "recording.xdf", [eeg, markers("a", "b")])
    records = [{"event": "start", "session": "s", "node": "results-1"}]
    for trial, stimulus in ((1, "a"), (2, "b")):
        marker = {"event": "marker", "trial": trial, "stimulus": stimulus, "group": stimulus}
        records.append(marker | {"onset_s": 49.8 + 0.5 * trial})
        records.append({"event": "decoded", "trial": trial, "stimulus": stimulus} | ANSWER)
    lines = [json.dumps(record) + "\n" for record in [*records, {"event": "end", "reason": "stop"}]]
    (folder / "ledger.jsonl").write_text("".join(lines))
    return folder


class Pretended:
    """Answers at once, and always the same: making a true decoder takes a second."""

    def take(self, part: Slice) -> list[SimpleNamespace]:
        assert part.array.shape == (4, 20)
        return [SimpleNamespace(ranked=SimpleNamespace(rows=[0, 1], n_repeats=1))]

    def reset_group(self, group: str) -> None:
        pass


@pytest.mark.parametrize("file", ["config.json", "ledger.jsonl", "recording.xdf"])
def test_sessions(session: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluated, "open_decoder", lambda *_: Pretended())
    whole = (session / file).read_bytes()

    def read(data: bytes) -> None:
        (session / file).write_bytes(data)
        evaluate_session(session)

    replayed = evaluate_session(session)
    assert replayed.agrees
    assert (replayed.n_live, replayed.n_offline, replayed.damage) == (2, 2, "")
    assert outcomes(read, whole, N // 2) > 0


def test_answers_whose_lines_are_damaged_are_not_compared(
    session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluated, "open_decoder", lambda *_: Pretended())
    ledger = session / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"decoded", "trial": 2', '"decoded", "trial": '))
    replayed = evaluate_session(session)
    assert (replayed.n_live, replayed.n_offline, replayed.agrees) == (1, 1, True)
    assert replayed.damage.startswith("a line of ledger.jsonl is damaged and left out")


def test_what_is_in_a_second_recording_is_compared_and_what_a_reader_lost_is_not(
    session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a reader that was started again, in whose time another block began, and none was begun."""
    taken: list[tuple[int, str]] = []

    class Listening(Pretended):
        def take(self, part: Slice) -> list[SimpleNamespace]:
            taken.append((part.trial, part.group))
            return super().take(part)

    monkeypatch.setattr(evaluated, "open_decoder", lambda *_: Listening())
    config = read_config(session / "config.json")
    rule = MarkerRule(start="^go$", reset="^block$")
    config.model_copy(update={"marker_rule": rule}).write()
    header = eeg_header(n_channels=4, rate_hz=100.0, labels=CHANNELS[::-1])
    eeg = (header, 60 + np.arange(250) / 100, np.ones((250, 4), np.float32))
    texts = ((60.3, "b"), (60.8, "a"), (61.3, "go"), (61.8, "b"))
    rows = (MARKER_HEADER, np.array([at_s for at_s, _ in texts]), [[text] for _, text in texts])
    write_xdf(session / "recording-2.xdf", [eeg, rows])
    with (session / "ledger.jsonl").open("a") as ledger:
        for trial, (at_s, stimulus) in enumerate((texts[0], texts[1], texts[3]), 1002):
            about = {"trial": trial, "stimulus": stimulus}
            marker = about | {"group": stimulus, "block": 1, "onset_s": at_s}
            lost = {"event": "dropped", "trial": trial, "reason": "node_lost"}
            end = lost if trial == 1002 else {"event": "decoded"} | about | ANSWER
            for record in ({"event": "marker"} | marker, end):
                ledger.write(json.dumps(record) + "\n")
    replayed = evaluate_session(session.rename(session.with_name("moved")))
    assert (replayed.n_live, replayed.n_offline, replayed.agrees) == (4, 4, True)
    assert taken == [(1, "a#0"), (2, "b#0"), (1003, "a#1"), (1004, "b#1")]
    moved = session.with_name("moved")
    (moved / "recording.xdf").rename(moved / "recording-3.xdf")  # of before a recorder died
    (moved / "recording-2.xdf").write_bytes((moved / "recording-3.xdf").read_bytes())
    said = call("evaluate", "--session", moved, module="offline_train").one_sentence()
    assert "differ (trials 1003, 1004): its reader or recorder died while it ran" in said
    with (moved / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"event": "node_lost", "node": "reader-1"}\n')
    (moved / "recording-2.xdf").unlink()
    again = call("evaluate", "--session", moved, module="offline_train").one_sentence()
    assert again == said


def test_sessions_that_are_finished(session: Path) -> None:
    config, ledger = read_config(session / "config.json"), session / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)

    def finish(data: bytes) -> None:
        ledger.write_bytes(data)
        (session / "summary.json").unlink(missing_ok=True)
        made = make_whole(config, "of a crash")
        assert made.failure == ("; ".join(made.summary["ledger_faults"]) or None)
        assert made.summary["at_least"] == bool(made.failure)
        told = made.summary
        n_ends = told["decoded"] + told["cut"] + sum(told["dropped"].values())
        assert told["markers"] == n_ends

    assert outcomes(finish, b"".join(lines[:-2]), N // 2) > 0
