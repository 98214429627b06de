"""Feature networks: the paper's layers, the demo's classifier, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision import models

from decoder.problem import Problem
from index.semantic_net import SemanticNet, SemanticNetConfig
from offline_train import feature_nets
from offline_train.feature_nets import PAPER, FeatureNetSpec, load_feature_net, read_feature_nets


def pictures(n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 40, 40, 3), np.uint8)


def random_weights(architecture: str, file: Path) -> Path:
    """Weights of the right shapes, without the slow initialisation of the real ones."""
    with torch.device("meta"):
        shapes = models.get_model(architecture, weights=None).state_dict()
    rng = torch.Generator().manual_seed(0)
    tensors = {
        # Norms keep what they get; their variances are among what has one dimension.
        name: torch.randn(t.shape, generator=rng) * 0.02
        if t.ndim > 1
        else torch.ones_like(t, device="cpu")
        for name, t in shapes.items()
    }
    save_file(tensors, file)
    return file


@pytest.mark.parametrize(
    ("name", "shape"),
    [("AlexNet(5)", (256, 15, 15)), ("SwAV", (2048, 1, 1))],
)
def test_the_paper_s_layers_have_the_shapes_that_they_should(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    spec = next(spec for spec in PAPER if spec.name == name)
    file = random_weights(spec.architecture, tmp_path / "net.safetensors")
    net = load_feature_net(spec.model_copy(update={"source": str(file)}))
    found = net.features(pictures())
    assert found.shape == (2, int(np.prod(shape)))
    assert not np.allclose(found[0], found[1])


def test_a_layer_is_what_the_network_computes_up_to_it(tmp_path: Path) -> None:
    spec = next(spec for spec in PAPER if spec.name == "AlexNet(2)")
    file = random_weights("alexnet", tmp_path / "net.safetensors")
    net = load_feature_net(spec.model_copy(update={"source": str(file)}))
    network = models.alexnet(weights=None).eval()
    network.load_state_dict(load_file(file))
    images = feature_nets.resized(pictures(), 256)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in feature_nets._IMAGENET)
    with torch.inference_mode():
        expected = network.features[:5]((images - mean) / std).flatten(1)
    assert np.allclose(net.features(pictures()), expected.numpy(), atol=1e-5)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    config = SemanticNetConfig(size_px=32, widths=(4, 6, 8), dim=5, heads={"shape": 3})
    network = SemanticNet(config).eval()
    file = tmp_path / "classifier.safetensors"
    save_file(network.state_dict(), file, {"config": config.model_dump_json()})
    return file


def test_the_demo_s_classifier_gives_early_and_late_features(classifier: Path) -> None:
    late = FeatureNetSpec(name="late", kind="classifier", source=str(classifier), size_px=32)
    early = late.model_copy(update={"name": "early", "layer": "4"})
    assert load_feature_net(late).features(pictures(3)).shape == (3, 5)
    assert load_feature_net(early).features(pictures(3)).shape == (3, 6 * 8 * 8)


def test_a_layer_that_is_not_there_is_one_sentence(classifier: Path) -> None:
    spec = FeatureNetSpec(
        name="net", kind="classifier", source=str(classifier), size_px=32, layer="ninth"
    )
    with pytest.raises(Problem, match="has no layer 'ninth'"):
        load_feature_net(spec)


def test_weights_that_are_not_there_are_one_sentence(tmp_path: Path) -> None:
    for spec in (PAPER[0], PAPER[-1]):
        gone = spec.model_copy(update={"source": str(tmp_path / "gone.safetensors")})
        with pytest.raises(Problem, match="cannot be loaded"):
            load_feature_net(gone)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **more: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", "/nonexistent")
    with pytest.raises(Problem, match=r"AlexNet\(2\).*cannot be loaded"):
        load_feature_net(PAPER[0])


def test_a_list_is_read_and_a_wrong_one_refused(tmp_path: Path, classifier: Path) -> None:
    file = tmp_path / "nets.json"
    told = {"name": "late", "kind": "classifier", "source": "./classifier.safetensors"}
    file.write_text(json.dumps([told | {"size_px": 32}]))
    assert read_feature_nets(file)[0].source == str(classifier.resolve())
    file.write_text(json.dumps([told | {"kind": "other", "size_px": 32}]))
    with pytest.raises(Problem, match=r"not valid at 0\.kind"):
        read_feature_nets(file)
    with pytest.raises(Problem, match="cannot be read"):
        read_feature_nets(tmp_path / "gone.json")
