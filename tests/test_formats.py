"""docs/formats.md is what is on disk: its fields are those of the manifests, its recipe answers."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch.nn import functional

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import BundleManifest, load_bundle
from decoder.calibration import Calibration, log_softmax, temperature_of
from index.gallery import Gallery, load_gallery, save_gallery
from index.gallery.manifest import Block, GalleryManifest
from offline_train.data.trial_set import TrialFormat, TrialSetManifest
from tests.calling import ROOT
from tests.tiny_bundle import TOY, tiny_bundle

TEXT = (ROOT / "docs/formats.md").read_text("utf-8")


def fields_told(manifest: str) -> set[str]:
    """Of the table whose head names a manifest, what its first column has."""
    table = TEXT.partition(f"| field of `{manifest}` | what |\n")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[1:]]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("model", [BundleManifest, GalleryManifest, TrialSetManifest])
def test_every_field_of_a_manifest_is_told_and_no_other(model: type[BaseModel]) -> None:
    written = {name for name, field in model.model_fields.items() if not field.exclude}
    name = {BundleManifest: "bundle", GalleryManifest: "gallery", TrialSetManifest: "trial_set"}
    assert fields_told(f"{name[model]}.json") == written


@pytest.mark.parametrize(("row", "model"), [("blocks", Block), ("format", TrialFormat)])
def test_every_field_of_a_part_is_told(row: str, model: type[BaseModel]) -> None:
    (told,) = re.findall(rf"^\| `{row}` \| (.*) \|$", TEXT, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", told)) == set(model.model_fields)


def test_the_recipe_answers_as_the_program_does(tmp_path: Path) -> None:
    fitted = Calibration(
        tmax_s=(0.1, 0.19),
        repeats=(1, 4),
        mean=((3, 2), (2.5, 1.5)),
        added=((1, 2), (1, 2)),
        n_items=9,
    )
    bundle = tiny_bundle(tmp_path / "bundle", calibration=fitted)
    rng, space = np.random.default_rng(1), bundle.manifest.space
    ids = (*"abcdefg", "two\u2028lines")  # which is no end of a line of names
    made = Gallery(ids, ids, np.eye(8, dtype=np.float32), space, TOY, "test")
    save_gallery(tmp_path / "gallery", made)
    trial = rng.standard_normal((4, 20)).astype(np.float32)
    np.save(tmp_path / "trial.npy", trial)
    (recipe,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    command = [sys.executable, "-c", recipe, tmp_path / "bundle", tmp_path / "gallery"]
    told = subprocess.check_output([*command, tmp_path / "trial.npy"], encoding="utf-8", timeout=60)
    bundle, gallery = load_bundle(tmp_path / "bundle"), load_gallery(tmp_path / "gallery")
    with torch.inference_mode():
        brain = load_brain_encoder(bundle)(torch.from_numpy(trial)[None])
    cosines = gallery.embeddings @ functional.normalize(brain)[0].numpy()
    temperature = temperature_of(fitted, "mean", bundle.manifest.tmax_s, 1)
    p = np.exp(log_softmax(cosines, np.exp(bundle.manifest.logit_scale) / temperature))
    lines = [line.rsplit(" ", 1) for line in told.split("\n")[:-1]]
    found = {id_: float(value) for id_, value in lines}
    assert list(found) == [gallery.ids[row] for row in np.argsort(-p)]
    assert [*found.values()] == pytest.approx(sorted(p, reverse=True), abs=1e-6)
