"""Image encoders of timm, against transformers and torchvision: layers, pooling, preparation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hvf_core.problem import Problem
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.load import load_encoder
from index.encoders.parts import squared
from index.encoders.spec import ENCODERS, EncoderSpec, read_specs

declare_missing_ops()
pytestmark = pytest.mark.slow


def _pictures(n, height=64, width=64):
    """Smooth ones, as photographs are."""
    small = np.random.default_rng(n).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return [np.array(Image.fromarray(one).resize((width, height), 3)) for one in small]


def _saved(architecture, file, **more):
    """Weights that nobody has trained; all of them are drawn, so that each one counts."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=0, **more).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1)
    save_file(network.state_dict(), file)
    return network


@pytest.fixture
def vit(tmp_path):
    _saved("test_vit", tmp_path / "vit.safetensors")
    return f"@{tmp_path / 'vit.safetensors'}"


def _one(text):
    (spec,) = read_specs(text)
    return spec


def _transformed(network, pictures):
    """By timm's own preparation."""
    from timm.data import create_transform, resolve_model_data_config

    prepare = create_transform(**resolve_model_data_config(network))
    return torch.stack([prepare(Image.fromarray(picture)) for picture in pictures])


@pytest.mark.parametrize(
    "architecture", ["test_vit", "test_convnext", "test_resnet", "vit_small_patch16_dinov3"]
)
def test_without_further_words_it_is_what_timm_gives(architecture, tmp_path):
    network, pictures = _saved(architecture, tmp_path / "net.safetensors"), _pictures(3, 200, 170)
    encoder = load_encoder(_one(f"timm:{architecture}@{tmp_path / 'net.safetensors'}"))
    with torch.no_grad():
        expected = network(_transformed(network, pictures)).numpy()
    np.testing.assert_allclose(encoder.encode(pictures), expected, rtol=1e-4, atol=1e-5)
    seen_px = network.pretrained_cfg["input_size"][-1]
    assert (encoder.spec.dim, encoder.spec.size_px) == (expected.shape[1], seen_px)


def test_layers_and_pooling_are_of_the_blocks_own_tokens(vit, tmp_path):
    """By hooks on timm's network, whose blocks run one after the other."""
    network, pictures = _saved("test_vit", tmp_path / "vit.safetensors"), _pictures(2, 160, 160)
    tokens = []
    for block in network.blocks:
        block.register_forward_hook(lambda block, args, output: tokens.append(output))
    with torch.no_grad():
        last = network.forward_features(_transformed(network, pictures))
    assert len(tokens) == 6
    for words, expected in {
        "2": tokens[1][:, 0],
        "2:mean": tokens[1].mean(1),
        "6:patches": tokens[5][:, 1:].mean(1),
        "cls": last[:, 0],
        "mean": last.mean(1),
    }.items():
        encoder = load_encoder(_one(f"timm:test_vit:{words}{vit}"))
        np.testing.assert_allclose(encoder.encode(pictures), expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def dinov2(tmp_path):
    """Of transformers, and in a file as its authors publish it; its positions are for 518 px."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=384, num_attention_heads=6, image_size=518, layerscale_value=0.5
    )
    model = Dinov2Model(config).eval()
    save_file(_as_published(model.state_dict()), tmp_path / "dinov2.safetensors")
    ours = {"architecture": "vit_small_patch14_dinov2", "dim": 384}
    return model, ours | {"source": str(tmp_path / "dinov2.safetensors")}


def _processor(**more):
    """As the repositories of DINOv2's publisher configure it."""
    from transformers import BitImageProcessor

    norm = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    size = {"size": {"shortest_edge": 256}, "crop_size": 224, "resample": 3}
    return BitImageProcessor(**size, **norm, **more)


def test_neuralbench_is_the_mean_token_of_dinov2s_hidden_states(dinov2):
    """With the benchmark's own steps: 518 px, then the publisher's processor, by transformers."""
    from torchvision import transforms

    model, ours = dinov2
    first = transforms.Compose([transforms.Resize(518), transforms.ToTensor()])
    pictures = _pictures(2, 500, 500)
    images = [first(Image.fromarray(picture)) for picture in pictures]
    inputs = _processor(do_rescale=False)(images=images, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    layer = int(0.6667 * (len(states) - 1))
    assert layer == 8
    giant = ENCODERS["DINOv2-giant"].spec
    assert giant.layer == int(0.6667 * 40)
    found = load_encoder(giant.model_copy(update=ours | {"layer": layer})).encode(pictures)
    np.testing.assert_allclose(found, states[layer].mean(1), rtol=1e-3, atol=1e-4)


def test_dinov2_base_is_the_pooler_output_of_transformers(dinov2):
    model, ours = dinov2
    pictures = _pictures(2, 500, 500)
    images = [Image.fromarray(picture) for picture in pictures]
    with torch.no_grad():
        pooled = model(**_processor()(images=images, return_tensors="pt")).pooler_output.numpy()
    base = ENCODERS["DINOv2-base"].spec.model_copy(update=ours)
    # Its processor resizes bytes by torch, here Pillow does: a level of brightness apart.
    np.testing.assert_allclose(load_encoder(base).encode(pictures), pooled, atol=0.02)
    assert pooled.std() > 0.5


def _as_published(state):
    """The tensors of transformers' DINOv2 by the names that its authors, and timm, give them."""
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "encoder.layer.": "blocks.",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "layernorm.": "norm.",
    }
    found = {}
    for name, tensor in state.items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        found[name] = tensor
    for key in [name for name in found if "attention.q_proj" in name]:
        three = [found.pop(key.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        found[key.replace("attention.q_proj", "attn.qkv")] = torch.cat(three)
    return found


def test_synclr_is_the_class_token_with_the_papers_preparation(tmp_path):
    """From a file as its authors publish it: a .pth, with the names of a larger module."""
    from torchvision import transforms

    network = _saved("vit_tiny_patch16_224", tmp_path / "unused.safetensors")
    state = {f"module.visual.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"model": state}, tmp_path / "synclr_vit_b_16.pth")
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    prepare = transforms.Compose(
        [
            transforms.Resize(224),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    pictures = _pictures(2, 300, 431)
    images = torch.stack([prepare(Image.fromarray(picture)) for picture in pictures])
    with torch.no_grad():
        expected = network.forward_features(images)[:, 0]
    told = _one(f"SynCLR@{tmp_path / 'synclr_vit_b_16.pth'}")
    smaller = {"architecture": "vit_tiny_patch16_224", "dim": 192}
    encoder = load_encoder(told.model_copy(update=smaller))
    np.testing.assert_allclose(encoder.encode(pictures), expected, rtol=1e-3, atol=1e-4)


def test_the_vaes_preparation_is_the_papers_but_for_a_level_of_brightness():
    from torchvision import transforms

    theirs = transforms.Compose(
        [transforms.Resize(128), transforms.CenterCrop(128), transforms.ToTensor()]
    )
    for picture in _pictures(5, 500, 500):
        off = (squared(picture, 128) - theirs(Image.fromarray(picture))).abs() * 255
        assert off.max() < 1  # they round to bytes once more
        assert off.mean() < 0.3


def test_clips_preparation_is_that_of_transformers():
    """Which the paper uses for ViT-B-32 and ViT-H-14."""
    import open_clip
    from transformers import CLIPImageProcessor

    ours, theirs = open_clip.image_transform(224, is_train=False), CLIPImageProcessor()
    for picture in map(Image.fromarray, _pictures(3, 500, 500)):
        expected = theirs(images=[picture], return_tensors="pt")["pixel_values"][0]
        off = (ours(picture) - expected).abs()
        assert off.max() < 0.031  # two levels of brightness
        assert off.mean() < 0.001


def test_all_that_decides_the_numbers_is_in_the_checksum(vit):
    """The weights are the same throughout, and no two checksums are."""
    base = _one(f"timm:test_vit:5{vit}")
    checksums = [load_encoder(base).checksum]
    for change in (
        {"pool": "patches"},
        {"layer": 6},
        {"layer": None, "pool": "cls"},
        {"layer": None},
        {"dtype": "bfloat16"},
        {"size_px": 128},
        {"mean": (0.4, 0.5, 0.5)},
        {"std": (0.4, 0.5, 0.5)},
        {"resize": ((160, "bilinear"),)},
        {"resize": ((200, "bilinear"), (160, "bilinear"))},
        {"resize": ((160, "bicubic"),)},
        {"architecture": "test_vit.r160_in1k"},
    ):
        checksums.append(load_encoder(base.model_copy(update=change)).checksum)
    *different, tagged = checksums
    assert len(set(different)) == len(different)
    assert tagged == different[0]  # a tag of timm's names weights, which are the same here
    explicit = base.model_copy(update={"pool": "cls", "size_px": 160, "dim": 64, "name": "other"})
    assert load_encoder(explicit).checksum == different[0]


@pytest.mark.parametrize(("word", "tolerance"), [("bf16", 0.1), ("fp16", 0.02)])
def test_it_can_compute_in_half_precision(vit, word, tolerance):
    pictures = _pictures(3, 160, 160)
    full, half = (load_encoder(_one(f"timm:test_vit:{w}{vit}")) for w in ("cls", f"cls:{word}"))
    expected, found = full.encode(pictures), half.encode(pictures)
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < tolerance * np.abs(expected).max()
    assert full.checksum != half.checksum


def test_weights_in_half_precision_are_computed_with_in_full(tmp_path):
    network = _saved("test_vit", tmp_path / "vit.safetensors").half()
    save_file(network.state_dict(), tmp_path / "half.safetensors")
    save_file(network.float().state_dict(), tmp_path / "full.safetensors")
    texts = [f"timm:test_vit@{tmp_path / name}.safetensors" for name in ("half", "full")]
    half, full = (load_encoder(_one(text)) for text in texts)
    assert half.checksum == full.checksum
    assert half.fingerprint == full.fingerprint


def test_weights_of_another_architecture_are_refused(tmp_path):
    network = _saved("test_vit", tmp_path / "vit.safetensors")
    state = network.state_dict()
    deeper = state | {"blocks.6.norm1.weight": torch.ones(64)}
    headed = state | {"head.weight": torch.ones(10, 64), "head.bias": torch.ones(10)}
    save_file(deeper, tmp_path / "deeper.safetensors")
    save_file(headed, tmp_path / "headed.safetensors")
    shallower = {name: tensor for name, tensor in state.items() if "blocks.5" not in name}
    save_file(shallower, tmp_path / "shallower.safetensors")
    load_encoder(_one(f"timm:test_vit@{tmp_path / 'headed.safetensors'}"))  # of a classifier
    for file in ("deeper", "shallower"):
        with pytest.raises(Problem, match=r"not this architecture's: blocks\.[56]"):
            load_encoder(_one(f"timm:test_vit@{tmp_path / file}.safetensors"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("test_vit:7", "it has 6 blocks of tokens"),
        ("test_resnet:2", "it has 0 blocks"),
        ("test_nothing", "timm has no model 'test_nothing'"),
        ("test_vit.in22k", "Invalid pretrained tag"),
    ],
)
def test_what_a_network_does_not_have_is_one_sentence(words, expected, tmp_path):
    architecture = "test_resnet" if "resnet" in words else "test_vit"
    _saved(architecture, tmp_path / "net.safetensors")
    with pytest.raises(Problem, match=expected) as caught:
        load_encoder(_one(f"timm:{words}@{tmp_path / 'net.safetensors'}"))
    assert "\n" not in str(caught.value)


def test_a_model_that_timm_does_not_have_is_not_looked_for_on_the_hub():
    with pytest.raises(Problem, match=r"perhaps to .*vit_base_patch14_dinov2"):
        load_encoder(_one("timm:vit_base_patch14_dinov"))


def test_a_checkpoint_that_holds_more_than_tensors_is_not_run(tmp_path):
    torch.save({"model": {}, "code": Path}, tmp_path / "net.pth")
    with pytest.raises(Problem, match="cannot be loaded"):
        load_encoder(_one(f"timm:test_vit@{tmp_path / 'net.pth'}"))


def test_a_function_of_your_own_is_an_encoder(tmp_path, monkeypatch):
    (tmp_path / "lab_tiles.py").write_text(
        "from torch import nn\n"
        "from index.encoders.parts import Parts, squared\n"
        "def tiles(spec):\n"
        "    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())\n"
        "    return Parts(network, lambda image: squared(image, spec.size_px or 8), network)\n"
        "def same(spec):\n"
        "    return tiles(spec)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tiles, same = (load_encoder(_one(f"lab_tiles:{name}")) for name in ("tiles", "same"))
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 255
    assert tiles.encode([image]).reshape(3, 2, 2).tolist() == [[[0, 1], [0, 1]]] * 3
    assert (tiles.spec.name, tiles.spec.dim, tiles.spec.size_px) == ("lab_tiles-tiles", 12, 8)
    assert tiles.checksum != same.checksum  # they have no weights that would tell
    with pytest.raises(Problem, match=r"cannot be imported .*PYTHONPATH"):
        load_encoder(_one("lab_tiles:nothing"))
    with pytest.raises(Problem, match=r"cannot be imported .*PYTHONPATH"):
        load_encoder(_one("lab_nowhere:tiles"))


def test_a_spec_that_loading_has_completed_reads_back(vit, tmp_path):
    loaded = load_encoder(_one(f"timm:test_vit:3{vit}")).spec
    (tmp_path / "list.json").write_text(json.dumps([loaded.model_dump()]))
    assert read_specs(tmp_path / "list.json") == (loaded,)
    assert EncoderSpec.model_validate(loaded.model_dump()) == loaded
    assert load_file(loaded.source)
