"""Encoders of braindecode and weights of others, on a double of its signature."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from decoder.brain.of_braindecode import OfBraindecode
from decoder.brain.registry import load_brain_encoder
from decoder.bundle import load_bundle
from hvf_core.problem import Problem
from offline_train.brain.pretrained import refuse_unfit
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import is_of, make_bundle, train
from tests.fake_hub import fake_hub
from tests.lookalikes.braindecode_double import install, published
from tests.offline_train.conftest import FORMAT

FEW = TrainSettings(
    encoder="labram", epochs=2, batch_size=16, dim=8, hidden=8, device="cpu", warmup_steps=0
)


@pytest.fixture(autouse=True)
def braindecode(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def with_weights(folder: Path, **more: object) -> TrainSettings:
    return FEW.model_copy(update={"encoder_weights": str(folder)} | more)


def test_weights_of_others_are_tuned_and_come_back_from_the_bundle(plant, tmp_path: Path) -> None:
    planted = plant(n_train=32, n_test=2)
    settings = with_weights(published(tmp_path / "weights", embed_dim=6), loaded_lr_share=0.0)
    given = (planted.train, planted.features)
    frozen = train(*given, settings).brain
    assert isinstance(frozen, OfBraindecode)
    theirs = load_file(tmp_path / "weights" / "model.safetensors")
    ours = frozen.network.state_dict()
    theirs["temporal_embedding"] = theirs["temporal_embedding"][:, :2]  # of 20 samples
    head = {name for name in ours if name.startswith("final_layer")}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours.keys() - head)
    drawn = train(*given, settings.model_copy(update={"epochs": 1, "lr": 0.0})).brain
    assert not torch.equal(ours["final_layer.bias"], drawn.state_dict()["network.final_layer.bias"])

    tuned = settings.model_copy(update={"loaded_lr_share": 0.2})
    models = train(*given, tuned)
    assert not torch.equal(models.brain.network.patch.weight, theirs["patch.weight"])
    make_bundle(tmp_path / "bundle", models, *given, tuned, "a test")
    bundle = load_bundle(tmp_path / "bundle")
    trials = torch.randn(3, 6, 20)
    assert torch.equal(load_brain_encoder(bundle)(trials), models.brain(trials))
    assert bundle.manifest.training["brain_weights"]["licence"] == "bsd-3-clause"
    assert is_of(bundle.manifest, *given, tuned)
    assert not is_of(bundle.manifest, *given, FEW)


def test_an_encoder_without_weights_is_made_and_named(tmp_path: Path) -> None:
    assert "begins without weights" in refuse_unfit(FEW, FORMAT)
    said = refuse_unfit(with_weights(published(tmp_path / "weights")), FORMAT)
    assert "licence: bsd-3-clause" in said


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: with_weights(f, encoder="mbp"), "'mbp' is none: give --encoder, one of labram"),
        (lambda f: with_weights(f / "none"), r"are no folder here: give one that has config\.json"),
        (lambda f: _lacks(f, "model.safetensors"), r"lack model\.safetensors: braindecode writes"),
        (lambda f: _config(f, sfreq=200.0), r"at 200 Hz, the trials have 100 Hz: .* --rate 200"),
        (lambda f: _config(f, embed_dim=5), r"no 'position_embedding' of \(1, 8, 5\) but one of"),
        (lambda f: _config(f, activation="os.system"), "'os.system', which is no layer of torch"),
        (lambda f: _config(f, depth=3), "does not take trials of 6 channels and 20 samples"),
        (lambda f: _damaged(f), "is damaged"),
    ],
)
def test_weights_that_do_not_fit_are_one_sentence(tmp_path: Path, spoil, said: str) -> None:
    with pytest.raises(Problem, match=said):
        refuse_unfit(spoil(published(tmp_path / "weights")), FORMAT)


def test_without_braindecode_one_sentence_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "braindecode.models", None)
    with pytest.raises(Problem, match=r"cannot be imported here .*: install it with a torchaudio"):
        refuse_unfit(FEW, FORMAT)


def _lacks(folder: Path, name: str) -> TrainSettings:
    (folder / name).unlink()
    return with_weights(folder)


def _config(folder: Path, **more: object) -> TrainSettings:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    return with_weights(folder)


def _damaged(folder: Path) -> TrainSettings:
    (folder / "model.safetensors").write_bytes(b"not tensors")
    return with_weights(folder)


def test_weights_on_the_hub_are_fetched_once_and_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub(monkeypatch, tmp_path / "cache") as hub:
        hub.put("lab/net", published(tmp_path / "weights"))
        settings = with_weights(Path("lab/net"))
        assert "licence: bsd-3-clause" in refuse_unfit(settings, FORMAT)
        asked = hub.n_asked
        assert "licence: bsd-3-clause" in refuse_unfit(settings, FORMAT)
        assert hub.n_asked == asked
        hub.refused["lab/terms"] = (403, "GatedRepo")
        with pytest.raises(Problem, match=r"'lab/terms' .*: name others, agree to their terms"):
            refuse_unfit(with_weights(Path("lab/terms")), FORMAT)
