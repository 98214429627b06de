"""Among 20,000 images a live session of the demo's subject is answered as a brute force answers."""

import math
import subprocess
import sys
import uuid
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import load_bundle
from decoder.calibration import temperature_of
from demo.model import ready_model
from index.gallery import Gallery, load_gallery
from index.gallery.changes import Row, add_images, save_gallery
from stream.acquire.preprocess import Preprocessing
from stream.acquire.trials import Trial
from stream.pipeline.trials import trial_plan
from stream.pipeline.wire.config import read_config
from stream.sources.cut_recording import cut_trials
from stream.sources.read import read_recording
from tests.calling import ROOT, call
from tests.sessions import (
    PATIENCE_S,
    check_accounted,
    finish,
    is_ready,
    start,
    trials_of,
    wait_for_decoded,
)
from tests.test_steered_session import Caller
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
N_IMAGES, N_TRIALS = 20_000, 24


def large_gallery(folder: Path, few: Gallery) -> Gallery:
    """The demo's images among drawn ones of the same mean and covariance."""
    z = few.embeddings[few.rows].astype(float)
    rng, n = np.random.default_rng(0), N_IMAGES - len(few)
    drawn = z.mean(0) + rng.normal(size=(n, len(z))) @ (z - z.mean(0)) / math.sqrt(len(z))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    save_gallery(folder, replace(few, images=None))
    rows = [Row(f"drawn {row}", f"drawn {row}") for row in range(n)]
    return add_images(folder, [(rows, drawn.astype(np.float32))], "test")


def test_answers_among_many_images_are_those_of_a_brute_force(tmp_path: Path) -> None:
    model, folder = ready_model(), tmp_path / "session"
    gallery = large_gallery(tmp_path / "gallery", load_gallery(model.gallery))
    name = f"subject-{uuid.uuid4().hex[:8]}"
    shown = ("--name", name, "--trials", str(N_TRIALS), "--repeats", "4", "--soa", "0.4")
    streams = ("--eeg", name, "--markers", f"{name}-markers", "--wait", "100")
    models = ("--bundle", model.bundle, "--gallery", tmp_path / "gallery")
    process = start("live", *streams, *models, "--headless", "--out", folder)
    command = [sys.executable, "-m", "demo.live_subject", "--wait-for-go", *shown]
    subject = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    try:
        wait_until(lambda: is_ready(folder), PATIENCE_S)  # no image is seen before all hear of it
        subject.stdin.write(b"go\n")
        subject.stdin.flush()
        wait_for_decoded(folder, N_TRIALS)
        caller = Caller(folder)
        assert caller.ask("finish")[0] == "done"
        done = finish(process)
        caller.close()
    finally:
        subject.kill()
        subject.wait()
    assert done.code == 0, done.err
    told = check_accounted(folder)
    assert (told["decoded"], told["n_way"]) == (N_TRIALS, N_IMAGES)

    records = {record["trial"]: record for record in trials_of(folder, "decoded")}
    for trial, z, n_repeats in embeddings(folder, model.bundle):
        check(records.pop(trial), z, n_repeats, gallery, model.bundle)
    assert not records
    again = call("evaluate", "--session", folder, module="offline_train")
    assert again.code == 0, again.err


def embeddings(folder: Path, bundle: Path):
    """Of each trial in the recording, with the repeats before it: trial, embedding, repeats."""
    config, opened = read_config(folder / "config.json"), load_bundle(bundle)
    plan = replace(trial_plan(config), preprocessing=Preprocessing.of(opened))
    encoder, seen = load_brain_encoder(opened), defaultdict(list)
    for trial in cut_trials(read_recording(folder / "recording.xdf"), plan, None):
        assert isinstance(trial.trial, Trial), trial
        repeats = seen[trial.trial.event.group]
        repeats.append(trial.array)
        yield trial.trial.number, embedded(encoder, np.mean(repeats, axis=0)), len(repeats)


def embedded(encoder, eeg: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        z = encoder(torch.from_numpy(eeg)[None])[0].double().numpy()
    return z / np.linalg.norm(z)


def check(record: dict, z: np.ndarray, n_repeats: int, gallery: Gallery, bundle: Path) -> None:
    """In double precision, of all images."""
    manifest = load_bundle(bundle).manifest
    temperature = temperature_of(manifest.calibration, "mean", manifest.tmax_s, n_repeats)
    cosines = gallery.embeddings.astype(float) @ z
    logits = math.exp(manifest.logit_scale) / temperature * cosines
    p = np.exp(logits - logits.max())
    p /= p.sum()
    best = np.argsort(-cosines)[:5]
    assert record["n_repeats"] == n_repeats
    assert record["ids"] == [gallery.ids[row] for row in best]
    assert record["scores"] == pytest.approx(cosines[best], abs=1e-5)
    assert record["probabilities"] == pytest.approx(p[best], rel=1e-3)
    row = gallery.row_of(record["stimulus"])
    assert record["rank"] == 1 + (cosines > cosines[row]).sum()
