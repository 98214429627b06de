"""Feature networks: the paper's layers, the demo's classifier, and what is refused.

Published weights are a download of gigabytes: what is loaded here has the same shapes.
"""

import json
import warnings
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms import v2

import hvf_core.hub.load
from hvf_core.problem import Problem
from index.encoders.classifier import SemanticNet, SemanticNetConfig
from offline_train.paintings import nets as feature_nets
from offline_train.paintings.nets import load_feature_net
from offline_train.paintings.spec import PAPER, FeatureNetSpec, read_feature_nets

pytestmark = pytest.mark.slow


def pictures(n: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 40, 40, 3), np.uint8)


def random_tensors(architecture: str) -> dict[str, Tensor]:
    """Weights of the right shapes, without the slow initialisation of the real ones."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Inception warns of that initialisation
        shapes = models.get_model(architecture, weights=None).state_dict()
    rng = torch.Generator().manual_seed(0)

    def tensor(name: str, shape: torch.Size) -> Tensor:
        if len(shape) > 1:  # of this size what is computed neither dies out nor explodes
            return torch.randn(shape, generator=rng) * (2 / shape[1:].numel()) ** 0.5
        return torch.zeros(shape) if name.endswith(("bias", "mean")) else torch.ones(shape)

    return {name: tensor(name, like.shape) for name, like in shapes.items()}


def paper_s(name: str) -> FeatureNetSpec:
    return next(spec for spec in PAPER if spec.name == name)


class Downloads:
    """What torch.hub has in its cache, by address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def __setitem__(self, address: str, tensors: dict[str, Tensor]) -> None:
        torch.save(tensors, self.folder / address.rpartition("/")[2])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Downloads:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return Downloads(tmp_path / "torch" / "hub" / "checkpoints")


def test_layers_sizes_and_scores_are_those_of_mindeye2_s_evaluation() -> None:
    found = [(s.name, s.architecture, s.layer, s.size_px, s.score) for s in PAPER]
    assert found == [
        ("AlexNet(2)", "alexnet", "features.4", 256, "two_way"),
        ("AlexNet(5)", "alexnet", "features.11", 256, "two_way"),
        ("Inception", "inception_v3", "avgpool", 342, "two_way"),
        ("CLIP", "ViT-L-14-quickgelu", None, 224, "two_way"),
        ("EffNet-B", "efficientnet_b1", "avgpool", 255, "distance"),
        ("SwAV", "resnet50", "avgpool", 224, "distance"),
    ]


@pytest.mark.filterwarnings("ignore:NOTE. The nodes")  # of training, which is not wanted
@pytest.mark.parametrize(
    ("name", "n_values"),
    [
        ("AlexNet(2)", 192 * 31 * 31),
        ("AlexNet(5)", 256 * 15 * 15),
        ("Inception", 2048),
        ("EffNet-B", 1280),
    ],
)
def test_a_layer_is_what_torchvision_s_own_loading_computes(
    name: str, n_values: int, hub: Downloads
) -> None:
    """Built and filled by torchvision, features cut out by its own extractor, as in MindEye2."""
    spec = paper_s(name)
    weights = models.get_weight(spec.source)
    hub[weights.url] = random_tensors(spec.architecture)
    stock = models.get_model(spec.architecture, weights=weights).eval().requires_grad_(False)
    extractor = create_feature_extractor(stock, [spec.layer])
    shown = torch.from_numpy(pictures()).permute(0, 3, 1, 2) / 255
    resize = v2.Resize((spec.size_px, spec.size_px), v2.InterpolationMode.BILINEAR, antialias=True)
    normalise = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    expected = extractor(normalise(resize(shown)))[spec.layer].flatten(1).numpy()
    found = load_feature_net(spec).features(pictures())
    assert found.shape == (2, n_values)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    assert not np.allclose(found[0], found[1])


def test_swav_is_a_resnet_without_its_heads(hub: Downloads) -> None:
    tensors = random_tensors("resnet50")
    network = models.get_model("resnet50", weights=None)
    network.load_state_dict(tensors)
    network.fc = torch.nn.Identity()
    body = {name: t for name, t in tensors.items() if not name.startswith("fc.")}
    heads = {"projection_head.0.weight": torch.ones(2, 2), "prototypes.weight": torch.ones(2, 2)}
    hub["swav_800ep_pretrain.pth.tar"] = {f"module.{n}": t for n, t in (body | heads).items()}
    found = load_feature_net(paper_s("SwAV")).features(pictures())
    images = feature_nets._normalised(*feature_nets._IMAGENET)(
        feature_nets.resized(pictures(), 224)
    )
    with torch.inference_mode():
        expected = network.eval()(images).numpy()
    assert found.shape == (2, 2048)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


def test_weights_of_a_file_are_those_of_a_download(tmp_path: Path, hub: Downloads) -> None:
    spec = paper_s("AlexNet(5)")
    hub[models.get_weight(spec.source).url] = tensors = random_tensors("alexnet")
    file = tmp_path / "net.safetensors"
    save_file(tensors, file)
    local = spec.model_copy(update={"source": str(file)})
    found = load_feature_net(local).features(pictures())
    assert np.array_equal(found, load_feature_net(spec).features(pictures()))
    save_file({name: t for name, t in tensors.items() if name != "features.3.bias"}, file)
    with pytest.raises(Problem, match=r"not those of alexnet: features\.3\.bias"):
        load_feature_net(local)


def test_what_is_caught_stays_when_the_next_layer_computes_in_place(
    hub: Downloads,
) -> None:
    spec = paper_s("AlexNet(2)").model_copy(update={"layer": "features.0"})
    hub[models.get_weight(spec.source).url] = random_tensors("alexnet")
    assert load_feature_net(spec).features(pictures()).min() < 0


def test_the_paper_s_clip_has_768_values_and_openai_s_gelu() -> None:
    spec = paper_s("CLIP")
    assert open_clip.get_pretrained_cfg(spec.architecture, spec.source)["quick_gelu"]
    config = open_clip.get_model_config(spec.architecture)
    assert config["quick_gelu"]  # open_clip does not take it from the weights
    assert config["embed_dim"] == 768
    assert config["vision_cfg"]["image_size"] == spec.size_px


def test_a_clip_of_a_file_gives_its_image_embedding(tmp_path: Path) -> None:
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "tiny-judge.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-judge.json")
    file = tmp_path / "clip.safetensors"
    model = open_clip.create_model("tiny-judge").eval()
    save_file(model.state_dict(), file)
    spec = FeatureNetSpec(
        name="clip", kind="open_clip", architecture="tiny-judge", source=str(file), size_px=32
    )
    shown = feature_nets.resized(pictures(), 32)
    images = v2.Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)(shown)
    with torch.inference_mode():
        expected = model.encode_image(images).numpy()
    assert np.allclose(load_feature_net(spec).features(pictures()), expected, atol=1e-5)
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    pickled = spec.model_copy(update={"source": str(tmp_path / "clip.pt")})
    with pytest.raises(Problem, match=r"only \.safetensors files are read"):
        load_feature_net(pickled)


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


@pytest.mark.parametrize("name", ["AlexNet(2)", "CLIP", "SwAV"])
def test_weights_that_are_not_there_are_one_sentence(tmp_path: Path, name: str) -> None:
    gone = paper_s(name).model_copy(update={"source": str(tmp_path / "gone.safetensors")})
    with pytest.raises(Problem, match="cannot be loaded"):
        load_feature_net(gone)


@pytest.mark.parametrize("name", [spec.name for spec in PAPER])
def test_without_a_network_one_sentence_says_what_to_fetch(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hvf_core.hub.load, "silence_of", lambda address: "there is no route to it")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(Problem, match=r"no copy of .* fetch scores --to DIR` \(2\.2 GB\)") as told:
        load_feature_net(paper_s(name))
    assert f"'{name}'" in str(told.value)


def test_where_they_are_fetched_is_where_torchvision_has_them() -> None:
    places = [spec.published.place for spec in PAPER if spec.kind == "torchvision"]
    sources = [spec.source for spec in PAPER if spec.kind == "torchvision"]
    assert places == [s if "://" in s else models.get_weight(s).url for s in sources]
    assert all(spec.published.bytes and spec.published.licence for spec in PAPER)


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
