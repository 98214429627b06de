import hashlib
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import hvf_core.hub.load
from decoder.weights import weights_sha256
from demo import stimuli
from demo.settings import ASSETS
from demo.shipped import image_metrics, image_models
from hvf_core.problem import Problem
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders import published
from index.encoders.classifier import SemanticNet, SemanticNetConfig
from index.encoders.health import embedding_health, refuse_collapsed
from index.encoders.load import load_encoder, load_encoders, same_encoder
from index.encoders.parts import squared
from index.encoders.published import to_fetch
from index.encoders.spec import ENCODERS, LOADERS, PRESETS, EncoderSpec, Kind, read_specs

pytestmark = pytest.mark.slow

_, CLIP, _ = PRESETS["paper-retrieval"].encoders


@pytest.fixture
def classifier(tmp_path):
    config = SemanticNetConfig(size_px=16, widths=(4, 8), dim=12, heads={"shape": 3})
    torch.manual_seed(0)
    weights = SemanticNet(config).state_dict()
    save_file(weights, tmp_path / "net.safetensors", {"config": config.model_dump_json()})
    return EncoderSpec(
        name="tiny",
        kind="classifier",
        source=str(tmp_path / "net.safetensors"),
        dim=12,
        size_px=16,
    )


@pytest.fixture
def vae(tmp_path):
    declare_missing_ops()
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        norm_num_groups=4,
        scaling_factor=0.5,
    ).save_pretrained(tmp_path / "vae")
    return EncoderSpec(
        name="tiny-vae",
        kind="diffusers-vae",
        source=str(tmp_path / "vae"),
        dim=64,
        size_px=32,
    )


@pytest.fixture
def clip(tmp_path):
    """A model of one layer that open_clip builds, saves and loads like its own."""
    declare_missing_ops()
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    file = tmp_path / "open_clip_model.safetensors"
    torch.manual_seed(0)
    save_file(open_clip.create_model("tiny-clip").state_dict(), file)
    return EncoderSpec(
        name="tiny-clip",
        kind="open_clip",
        architecture="tiny-clip",
        source=str(file),
        dim=24,
        size_px=32,
    )


def _pictures(n, size_px=32):
    return np.random.default_rng(n).integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8)


def test_every_kind_has_its_loader():
    assert tuple(LOADERS) == get_args(Kind)


@pytest.mark.parametrize("kind", ["classifier", "vae", "clip"])
def test_embeddings_are_float32_repeatable_and_independent_of_the_batch(kind, request):
    spec = request.getfixturevalue(kind)
    encoder, pictures = load_encoder(spec), _pictures(7)
    embedded = encoder.encode(pictures)
    assert embedded.shape == (7, spec.dim)
    assert embedded.dtype == np.float32
    np.testing.assert_array_equal(encoder.encode(pictures), embedded)
    np.testing.assert_allclose(encoder.encode(pictures, batch=2), embedded, atol=1e-5)
    np.testing.assert_allclose(load_encoder(spec).encode(pictures[::-1])[::-1], embedded, atol=1e-5)
    assert encoder.encode([]).shape == (0, spec.dim)


@pytest.mark.parametrize("kind", ["classifier", "vae", "clip"])
def test_loading_one_says_nothing(kind, request, capfd, recwarn):
    spec = request.getfixturevalue(kind)
    capfd.readouterr()
    load_encoder(spec)
    assert capfd.readouterr() == ("", "")
    assert not recwarn


@pytest.mark.parametrize("kind", ["classifier", "vae", "clip"])
def test_a_fingerprint_is_the_same_wherever_the_same_encoder_runs(kind, request):
    spec = request.getfixturevalue(kind)
    encoder, again = load_encoder(spec), load_encoder(spec)
    assert encoder.fingerprint == again.fingerprint
    assert len(encoder.fingerprint) == min(64, spec.dim)
    rounded = [x * (1 + (-1) ** i * 2**-12) for i, x in enumerate(encoder.fingerprint)]
    assert same_encoder(encoder.fingerprint, rounded)
    assert not same_encoder(encoder.fingerprint, encoder.fingerprint[:-1])


def test_a_fingerprint_tells_what_checksums_do_not(clip, vae, tmp_path, monkeypatch):
    """Same weights, and other activations, heads, preprocessing or scaling."""
    import open_clip

    def check_other(encoder, changed, what, told=False):
        other = load_encoder(changed)
        assert (other.checksum != encoder.checksum) == told
        assert not same_encoder(encoder.fingerprint, other.fingerprint), what

    encoder = load_encoder(clip)
    config = json.loads((tmp_path / "tiny-clip.json").read_text())
    for name, change in {
        "tiny-gelu": {"quick_gelu": True},
        "tiny-heads": {"vision_cfg": config["vision_cfg"] | {"head_width": 16}},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(config | change))
        open_clip.add_model_config(tmp_path / f"{name}.json")
        told = "quick_gelu" in change
        check_other(encoder, clip.model_copy(update={"architecture": name}), name, told)
    create = open_clip.create_model_and_transforms
    for how in (
        {"mean": [0.5] * 3, "std": [0.5] * 3},
        {"interpolation": "bilinear"},
        {"resize_mode": "squash"},
    ):
        prepare = open_clip.image_transform(32, is_train=False, **how)
        with monkeypatch.context() as patch:
            patch.setattr(
                open_clip,
                "create_model_and_transforms",
                lambda *args, prepare=prepare, **more: (*create(*args, **more)[:2], prepare),
            )
            check_other(encoder, clip, how)
    encoder, config = load_encoder(vae), Path(vae.source) / "config.json"
    config.write_text(config.read_text().replace('"scaling_factor": 0.5', '"scaling_factor": 0.6'))
    check_other(encoder, vae, "scaling")


def test_checksums_of_before_are_still_those(classifier, vae, clip):
    """They were of the weights alone: bundles and features that have them keep their encoders."""
    for spec in (classifier, vae, clip):
        encoder = load_encoder(spec)
        assert encoder.checksum == weights_sha256(encoder._parts.network)


def test_a_tag_that_wants_other_preprocessing_has_another_checksum(clip, monkeypatch):
    """As that of the same weights in a file, which says nothing of it."""
    from open_clip import pretrained

    before = load_encoder(clip)
    tag = {"file": clip.source, "hf_hub": "a/b/", "interpolation": "bilinear"}
    tags = {"squashed": tag | {"resize_mode": "squash"}}
    monkeypatch.setitem(pretrained._PRETRAINED, clip.architecture, tags)
    tagged = load_encoder(clip.model_copy(update={"source": "squashed"}))
    assert tagged.checksum != before.checksum
    assert not same_encoder(tagged.fingerprint, before.fingerprint)


def test_what_a_spec_leaves_out_is_known_once_it_is_loaded(clip, vae, classifier):
    for spec in (clip, vae.model_copy(update={"subfolder": "vae"}), classifier):
        short = EncoderSpec(**spec.model_dump(exclude={"dim"}))
        assert load_encoder(short).spec.dim == spec.dim
    shorter = EncoderSpec(**clip.model_dump(exclude={"dim", "size_px"}))
    loaded, before = load_encoder(shorter), load_encoder(clip)
    assert loaded.spec == clip
    assert (loaded.checksum, loaded.fingerprint) == (before.checksum, before.fingerprint)


def test_clip_can_see_more_pixels_than_it_was_trained_on(clip):
    larger = load_encoder(clip.model_copy(update={"size_px": 64}))
    assert larger.encode(_pictures(2, 64)).shape == (2, 24)
    assert larger.checksum != load_encoder(clip).checksum


def test_images_of_different_sizes_are_encoded_together(classifier):
    encoder = load_encoder(classifier)
    mixed = [_pictures(1, 16)[0], _pictures(1, 50)[0][:, :31], _pictures(1, 9)[0]]
    together = encoder.encode(mixed)
    for image, vector in zip(mixed, together, strict=True):
        np.testing.assert_allclose(encoder.encode([image])[0], vector, atol=1e-5)


def test_the_vae_embedding_is_the_scaled_mean_of_the_posterior(vae):
    from diffusers import AutoencoderKL

    pictures = _pictures(2)
    model = AutoencoderKL.from_pretrained(vae.source).eval()
    with torch.no_grad():
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
        mean = model.encode(images).latent_dist.mean * 0.5
    expected = mean.reshape(2, -1).numpy()  # channels, rows, columns
    np.testing.assert_allclose(load_encoder(vae).encode(pictures), expected, atol=1e-5)


def test_open_clip_gives_the_unnormalised_projection_of_its_own_preprocessing(clip):
    import open_clip
    from PIL import Image

    pictures = _pictures(2, 100)
    encoder = load_encoder(clip)
    model, _, preprocess = open_clip.create_model_and_transforms(
        clip.architecture, pretrained=clip.source
    )
    with torch.no_grad():
        images = torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures])
        expected = model.eval().encode_image(images, normalize=False).numpy()
    np.testing.assert_allclose(encoder.encode(pictures), expected, atol=1e-5)


def test_the_checksum_follows_the_weights_and_not_the_file(classifier, tmp_path):
    before = load_encoder(classifier).checksum
    assert len(before) == 64
    weights = load_file(classifier.source)
    config = SemanticNetConfig(size_px=16, widths=(4, 8), dim=12, heads={"shape": 3})
    copy = classifier.model_copy(update={"source": str(tmp_path / "copy.safetensors")})
    save_file(weights, copy.source, {"config": config.model_dump_json(), "note": "a copy"})
    assert load_encoder(copy).checksum == before
    weights["neck.0.bias"][0] += 1e-3
    save_file(weights, copy.source, {"config": config.model_dump_json()})
    assert load_encoder(copy).checksum != before


def test_squared_keeps_the_middle_and_does_nothing_to_a_fitting_image():
    image = _pictures(1, 24)[0]
    np.testing.assert_array_equal(
        (squared(image, 24) * 255).permute(1, 2, 0).round().byte().numpy(), image
    )
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    assert squared(wide, 10).mean() == 1
    assert squared(wide, 10).shape == (3, 10, 10)


def _assert_one_sentence(problem):
    assert "\n" not in str(problem)
    assert ". " not in str(problem)


def _missing(spec):
    return spec.model_copy(update={"source": "/nowhere/net.safetensors"})


def _truncated(spec):
    file = Path(spec.source)
    file.write_bytes(file.read_bytes()[:1000])
    return spec


def _without_config(spec):
    save_file(load_file(spec.source), spec.source)
    return spec


def _other_shape(spec):
    config = SemanticNetConfig(size_px=16, widths=(4, 6), dim=12, heads={"shape": 3})
    save_file(load_file(spec.source), spec.source, {"config": config.model_dump_json()})
    return spec


def _other_dim(spec):
    return spec.model_copy(update={"dim": 13})


def _not_finite(spec):
    config = SemanticNetConfig(size_px=16, widths=(4, 8), dim=12, heads={"shape": 3})
    weights = load_file(spec.source)
    weights["neck.0.bias"][0] = float("nan")
    save_file(weights, spec.source, {"config": config.model_dump_json()})
    return spec


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (_missing, "are not at"),
        (_truncated, "cannot be loaded"),
        (_without_config, "cannot be loaded"),
        (_other_shape, "cannot be loaded"),
        (_other_dim, "gives 12 numbers per image, its spec says 13"),
        (_not_finite, "not finite"),
    ],
)
def test_weights_that_cannot_be_used_are_one_clear_sentence(classifier, spoil, expected):
    with pytest.raises(Problem, match=expected) as caught:
        load_encoder(spoil(classifier))
    _assert_one_sentence(caught.value)
    assert "tiny" in str(caught.value)


def test_a_damaged_vae_is_one_clear_sentence(vae):
    weights = Path(vae.source) / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(Problem, match="'tiny-vae' cannot be loaded"):
        load_encoder(vae)


@pytest.mark.parametrize(
    "text",
    [
        "ViT-B-32",
        "SDXL-VAE",
        "SynCLR",
        "DINOv2-giant",
        "timm:vit_small_patch14_dinov2.lvd142m",
        "open_clip:ViT-B-16:openai",
    ],
)
def test_weights_that_are_nowhere_are_one_sentence_that_says_what_to_fetch(
    text, monkeypatch, tmp_path, capfd
):
    """As soon as the hub has not answered, and without a word of the libraries."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(hvf_core.hub.load, "silence_of", lambda address: "nobody answers")
    (spec,) = read_specs(text)
    size = r" \([\d.]+ [GM]B\)" if text in ENCODERS else ""
    expected = rf"'{spec.name}' .* nobody answers: .* fetch {text} --to DIR`{size}, copy DIR here"
    with pytest.raises(Problem, match=expected) as caught:
        load_encoder(spec)
    _assert_one_sentence(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_preset_is_fetched_as_a_whole(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hvf_core.hub.load, "silence_of", lambda address: "nobody answers")
    with pytest.raises(Problem, match=r"'RN50' .* fetch paper-retrieval --to DIR` \(1\.3 GB\)"):
        load_encoders(read_specs("paper-retrieval"))
    with pytest.raises(Problem, match=r"'ViT-B-32' .* fetch ViT-B-32 --to DIR` \(605 MB\)"):
        load_encoders(read_specs("ViT-B-32,RN50"))


def _in_cache(cache, repository, file, name):
    """A file where the hub's client keeps those that it has fetched."""
    folder, commit = cache / f"models--{repository.replace('/', '--')}", "a" * 40
    copy = folder / "snapshots" / commit / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(Path(file).read_bytes())
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)


def test_what_was_fetched_is_found_without_a_network(clip, vae, monkeypatch, tmp_path):
    """And has the checksum and the numbers of the same weights in files."""
    import huggingface_hub.constants
    import timm
    from open_clip import pretrained

    cache, vit = tmp_path / "hub", tmp_path / "vit.safetensors"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hvf_core.hub.load, "silence_of", lambda address: "nobody answers")
    tags = {"mine": {"hf_hub": "lab/clip/", "mean": pretrained.OPENAI_DATASET_MEAN}}
    monkeypatch.setitem(pretrained._PRETRAINED, clip.architecture, tags)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), vit)
    _in_cache(cache, "lab/clip", clip.source, "open_clip_model.safetensors")
    _in_cache(cache, "timm/test_vit.r160_in1k", vit, "model.safetensors")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        _in_cache(cache, "lab/pipeline", Path(vae.source) / name, f"vae/{name}")
    for fetched, here in (
        (f"open_clip:{clip.architecture}:mine", f"open_clip:{clip.architecture}@{clip.source}"),
        ("timm:test_vit.r160_in1k", f"timm:test_vit@{vit}"),
        ("diffusers-vae:lab/pipeline/vae:32px", f"diffusers-vae:32px@{vae.source}"),
    ):
        hub, file = (load_encoder(read_specs(text)[0]) for text in (fetched, here))
        assert hub.checksum == file.checksum
        assert same_encoder(hub.fingerprint, file.fingerprint)


def test_open_clips_table_says_what_to_fetch():
    (b16,) = read_specs("open_clip:ViT-B-16:openai")
    (source,), name = to_fetch(b16)
    assert name == "open_clip:ViT-B-16:openai"
    assert source.place == "timm/vit_base_patch16_clip_224.openai"
    assert source.files == ("open_clip_model.safetensors|open_clip_pytorch_model.bin",)
    (unknown,) = read_specs("open_clip:ViT-B-16:openia")
    (nothing,) = read_specs("open_clip:ViT-B-17:openai")
    with pytest.raises(Problem, match="name another architecture"):
        load_encoder(nothing)
    with pytest.raises(Problem, match=r"has no weights 'openia' .* name openai, "):
        to_fetch(unknown)
    for name in ("RN50", "ViT-B-32", "ViT-H-14"):
        named = ENCODERS[name]
        found = published._of_open_clip(named.spec)
        assert (found.place, found.files) == (named.published.place, named.published.files)


def test_files_that_could_run_code_are_refused(tmp_path):
    file = tmp_path / "clip.pt"
    torch.save({}, file)
    with pytest.raises(Problem, match="safetensors files are read, as others can run code"):
        load_encoder(CLIP.model_copy(update={"source": str(file)}))


def test_an_image_that_is_not_rgb_bytes_is_refused(classifier):
    with pytest.raises(Problem, match="expected uint8 of shape"):
        load_encoder(classifier).encode([np.zeros((16, 16), np.uint8)])


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 0.95))
def test_health_is_the_cosine_that_random_pairs_share(cosine):
    rng = np.random.default_rng(1)
    own = rng.standard_normal((500, 400)) / 20
    shared = np.zeros(400)
    shared[0] = 1
    embeddings = np.sqrt(cosine) * shared + np.sqrt(1 - cosine) * own
    assert embedding_health(np.float32(embeddings)) == pytest.approx(cosine, abs=0.03)


def test_collapsed_embeddings_are_refused():
    rng = np.random.default_rng(0)
    healthy = np.float32(rng.standard_normal((50, 64)))
    refuse_collapsed(healthy, "fine")
    with pytest.raises(Problem, match="'rn50' are collapsed: the median cosine"):
        refuse_collapsed(healthy + 20, "rn50")
    with pytest.raises(Problem, match="not finite"):
        refuse_collapsed(np.full((4, 4), np.nan, np.float32), "rn50")


@pytest.fixture(scope="module")
def shown():
    """The first pictures of every fourth test concept."""
    listed = stimuli.stimuli(stimuli.test_concepts()[::4], 1)
    return listed, np.stack([stimuli.render(stimulus) for stimulus in listed])


@pytest.fixture(scope="module")
def shipped():
    return [load_encoder(spec) for spec in read_specs(ASSETS / "encoders.json")]


def test_the_shipped_encoders_see_what_a_test_concept_is(shown, shipped):
    listed, pictures = shown
    semantic, vae = (encoder.encode(pictures) for encoder in shipped)
    assert (semantic.shape[1], vae.shape[1]) == (256, 1024)
    heads = ASSETS / "semantic.safetensors"
    accuracy = image_metrics.attribute_accuracy(heads, semantic, listed)
    assert min(accuracy.values()) > 0.6  # chance is 0.05 for shapes, 0.125 at most
    shuffled = np.random.default_rng(0).permutation(semantic)
    at_chance = image_metrics.attribute_accuracy(heads, shuffled, listed)
    assert max(at_chance.values()) < 0.4
    for embeddings, encoder in zip((semantic, vae), shipped, strict=True):
        refuse_collapsed(embeddings, encoder.spec.name)
        assert embedding_health(embeddings) < 0.4
    assert vae.std() == pytest.approx(1, abs=0.1)


def test_the_shipped_vae_paints_test_pictures_closer_than_their_blurred_selves(shown):
    pictures = shown[1][:8]
    coarse = pictures.reshape(8, 16, 8, 16, 8, 3).mean(axis=(2, 4))
    blurred = np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)
    blurred_psnr = 10 * np.log10(255**2 / np.square(blurred - pictures).mean(axis=(1, 2, 3)))
    painted_psnr = image_metrics.reconstruction_psnr_db(ASSETS / "vae", pictures)
    assert painted_psnr > blurred_psnr.mean() + 3


def test_the_recipe_names_the_shipped_weights():
    told = {}
    for recipe in ("recipe.json", "recipe-diffusion.json"):
        told |= json.loads((ASSETS / recipe).read_text())["sha256"]
    for manifest in ("prior/prior.json", "model/bundle.json"):
        files = json.loads((ASSETS / manifest).read_text())["files"]
        told |= {f"{Path(manifest).parent}/{name}": checksum for name, checksum in files.items()}
    files = {str(file.relative_to(ASSETS)): file for file in ASSETS.rglob("*.safetensors")}
    assert set(told) == set(files)
    for name, file in files.items():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == told[name]
    assert sum(file.stat().st_size for file in files.values()) <= 26_000_000


def test_the_recipe_makes_encoders_that_load(tmp_path):
    """A few steps of the real training: its files are complete, whatever their quality."""
    recipe = image_models.Recipe(
        concepts=8,
        exemplars=1,
        classifier_steps=11,
        classifier_batch=4,
        vae_crop_steps=8,
        vae_crop_batch=1,
        vae_whole_steps=3,
        vae_whole_batch=1,
    )
    image_models.train_image_models(tmp_path, recipe)
    pictures = _pictures(2, 128)
    for spec in read_specs(tmp_path / "encoders.json"):
        assert load_encoder(spec).encode(pictures).shape == (2, spec.dim)
