"""Image encoders as a person says them: presets, names, words, and lists in a file."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvf_core.hub.load import as_size
from hvf_core.problem import Problem
from index.encoders.published import on_hub, to_fetch
from index.encoders.said import FORMS
from index.encoders.spec import ENCODERS, PRESETS, EncoderSpec, read_specs

ROOT = Path(__file__).parents[2]

WORDS = [
    *ENCODERS,
    *PRESETS,
    *FORMS,
    "timm",
    "open_clip",
    "diffusers-vae",
    "classifier",
    "9",
    "cls",
]
WORDS += ["bf16", "384px", ":", ":", ":", "@", "/", "./x", ",", "a"]


def _spec(text):
    """The one encoder that a text says."""
    (spec,) = read_specs(text)
    return spec


def _said(text):
    """The same as fields, without what is left out."""
    return _spec(text).model_dump(exclude_defaults=True)


def test_the_fields_sets_are_presets():
    fused = {name: [(s.name, s.dim) for s in read_specs(name)] for name in PRESETS}
    others = [("ViT-B-32", 512), ("SDXL-VAE", 1024)]
    assert fused == {
        "paper-retrieval": [("RN50", 1024), *others],
        "paper-prior": [("ViT-H-14", 1024), *others],
        "paper-synclr": [("SynCLR", 768), *others],
        "neuralbench": [("DINOv2-giant", 1536)],
        "intermediate": [("DINOv2-base-8", 768), ("SDXL-VAE", 1024)],
    }


def test_what_has_a_name_says_where_it_is_published():
    for name, named in ENCODERS.items():
        assert named.spec.name == name
        assert named.spec.dim
        assert named.spec.size_px
        assert named.published.licence
        assert 10**8 < named.published.bytes < 10**10
        for file in named.published.files:
            assert file.partition("|")[0].endswith((".safetensors", ".json"))
        assert to_fetch(named.spec) == ((named.published,), name)


@pytest.mark.parametrize(
    ("text", "place", "files"),
    [
        ("timm:vit_base_patch14_dinov2.lvd142m:9", "timm/vit_base_patch14_dinov2.lvd142m", 1),
        ("diffusers-vae:madebyollin/sdxl-vae-fp16-fix", "madebyollin/sdxl-vae-fp16-fix", 2),
        ("diffusers-vae:owner/pipeline/vae", "owner/pipeline", 2),
    ],
)
def test_what_is_to_be_fetched_can_be_said_to_fetch(text, place, files):
    (source,), name = to_fetch(_spec(text))
    assert (source.place, len(source.files)) == (place, files)
    assert to_fetch(_spec(name)) == ((source,), name)


def test_what_is_here_is_not_fetched():
    for text in ("timm:vit@/w/vit.safetensors", "lab:gist", "ViT-B-32@/w/b32.safetensors"):
        assert to_fetch(_spec(text)) == ((), "")
        assert not on_hub(_spec(text))
    assert not on_hub(_spec("SynCLR"))  # it is at an address
    assert on_hub(_spec("DINOv2-giant:bf16"))
    assert to_fetch(_spec("DINOv2-giant:bf16"))[1] == "DINOv2-giant"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "open_clip:ViT-L-14:datacomp_xl_s13b_b90k:bf16",
            {
                "name": "ViT-L-14-datacomp_xl_s13b_b90k-bf16",
                "kind": "open_clip",
                "architecture": "ViT-L-14",
                "source": "datacomp_xl_s13b_b90k",
                "dtype": "bfloat16",
            },
        ),
        (
            "open_clip:ViT-B-16@/w/b16.safetensors",
            {
                "name": "ViT-B-16",
                "kind": "open_clip",
                "architecture": "ViT-B-16",
                "source": "/w/b16.safetensors",
            },
        ),
        (
            "timm:vit_base_patch14_dinov2.lvd142m:9:patches:224px",
            {
                "name": "vit_base_patch14_dinov2-lvd142m-9-patches-224px",
                "kind": "timm",
                "architecture": "vit_base_patch14_dinov2.lvd142m",
                "source": "timm/vit_base_patch14_dinov2.lvd142m",
                "layer": 9,
                "pool": "patches",
                "size_px": 224,
            },
        ),
        (
            "timm:vit_base_patch16_224:cls@/w/synclr.pth",
            {
                "name": "vit_base_patch16_224-cls",
                "kind": "timm",
                "architecture": "vit_base_patch16_224",
                "source": "/w/synclr.pth",
                "pool": "cls",
            },
        ),
        (
            "diffusers-vae:madebyollin/sdxl-vae-fp16-fix:256px",
            {
                "name": "sdxl-vae-fp16-fix-256px",
                "kind": "diffusers-vae",
                "source": "madebyollin/sdxl-vae-fp16-fix",
                "size_px": 256,
            },
        ),
        (
            "diffusers-vae:owner/pipeline/vae",
            {
                "name": "vae",
                "kind": "diffusers-vae",
                "source": "owner/pipeline",
                "subfolder": "vae",
            },
        ),
        (
            "diffusers-vae@/w/vae",
            {"name": "vae", "kind": "diffusers-vae", "source": "/w/vae"},
        ),
        (
            "classifier:/w/semantic.safetensors",
            {"name": "semantic", "kind": "classifier", "source": "/w/semantic.safetensors"},
        ),
        (
            "classifier@/w/semantic.safetensors",
            {"name": "semantic", "kind": "classifier", "source": "/w/semantic.safetensors"},
        ),
        (
            "mylab.encoders:gist:64px",
            {
                "name": "encoders-gist-64px",
                "kind": "function",
                "source": "mylab.encoders:gist",
                "size_px": 64,
            },
        ),
    ],
)
def test_words_say_an_encoder(text, expected):
    assert _said(text) == expected


def test_paths_are_taken_from_here_and_from_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _said("diffusers-vae:./vae")["source"] == str(tmp_path / "vae")
    assert _said("SynCLR@s.pth")["source"] == str(tmp_path / "s.pth")
    assert _said("SynCLR@~/s.pth")["source"] == str(tmp_path / "home" / "s.pth")


@pytest.mark.parametrize("name", ["RN50", "ViT-B-32", "ViT-H-14", "SDXL-VAE"])
def test_what_is_said_in_words_is_the_named_one_if_there_is_one(name):
    spec = ENCODERS[name].spec
    text = {
        "open_clip": f"open_clip:{spec.architecture}:{spec.source}",
        "diffusers-vae": f"diffusers-vae:{spec.source}/{spec.subfolder}",
    }[spec.kind]
    assert read_specs(text) == (spec,)
    assert read_specs(f"{text}:{spec.size_px}px") == (spec,)
    assert read_specs(f"{text}:{spec.size_px + 32}px")[0].name != name


def test_named_ones_can_be_said_otherwise_in_part():
    giant = ENCODERS["DINOv2-giant"].spec
    (other,) = read_specs("DINOv2-giant:bf16@/w/g.safetensors")
    assert (
        other.model_copy(
            update={
                "name": giant.name,
                "dtype": "float32",
                "source": giant.source,
                "dim": giant.dim,
            }
        )
        == giant
    )
    assert (other.name, other.dtype, other.source) == (
        "DINOv2-giant-bf16",
        "bfloat16",
        "/w/g.safetensors",
    )
    assert _said("SDXL-VAE:256px").get("dim") is None  # four times as many, which loading tells


def test_several_are_said_with_commas_between_them():
    named = [spec.name for spec in read_specs("paper-retrieval, SynCLR@/w/s.pth,lab:gist")]
    assert named == ["RN50", "ViT-B-32", "SDXL-VAE", "SynCLR", "lab-gist"]


def test_lists_of_before_are_read_as_before(tmp_path):
    listed = [
        {"name": "a", "kind": "classifier", "source": "./a.safetensors", "dim": 4, "size_px": 8},
        {"name": "v", "kind": "autoencoder_kl", "source": "o/n", "dim": 64, "size_px": 32},
        ENCODERS["DINOv2-giant"].spec.model_dump(exclude_defaults=True),
    ]
    (tmp_path / "encoders.json").write_text(json.dumps(listed))
    local, vae, giant = read_specs(tmp_path / "encoders.json")
    assert local.path == tmp_path / "a.safetensors"
    assert vae == EncoderSpec(name="v", kind="diffusers-vae", source="o/n", dim=64, size_px=32)
    assert giant == ENCODERS["DINOv2-giant"].spec


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("paper", "neither a file nor a preset.* paper-retrieval, .*RN50"),
        ("", "neither a file nor a preset"),
        ("RN50,RN50", "more than one image encoder 'RN50'"),
        ("open_clip:RN50", "cannot be understood: say open_clip:"),
        ("timm", "neither a file nor a preset"),
        ("diffusers-vae:sdxl", "cannot be understood"),
        ("open_clip:@w.safetensors", "cannot be understood"),
        ("lab:gist@w.safetensors", "cannot be understood"),
        ("timm:", "cannot be understood: say open_clip:"),
        ("timm:vit:last", "'last' is no layer"),
        ("timm:vit:0", "at layer"),
        ("timm:vit:0px", "at size_px"),
        ("RN50:9", "'layer' is for encoders of the kind timm"),
        ("SDXL-VAE:fp16", "compute in float32"),
        (":f", "cannot be understood: say open_clip:"),
    ],
)
def test_what_cannot_be_understood_is_one_sentence_with_the_way_out(text, expected):
    with pytest.raises(Problem, match=expected) as caught:
        read_specs(text)
    assert "\n" not in str(caught.value)
    assert ". " not in str(caught.value)
    assert ": " in str(caught.value)


@given(st.text() | st.lists(st.sampled_from(WORDS)).map("".join))
def test_any_text_is_encoders_with_plain_names_or_one_sentence(text):
    specs = ()
    with suppress(Problem):
        specs = read_specs(text)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", spec.name) for spec in specs)
    assert len({spec.name for spec in specs}) == len(specs)


def test_as_many_as_one_likes_can_be_said():
    many = ",".join(f"timm:vit_base_patch14_dinov2.lvd142m:{layer}" for layer in range(1, 41))
    assert [spec.layer for spec in read_specs(many)] == list(range(1, 41))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[{]", "is not valid"),
        ('[{"name": "a", "kind": "pickle", "source": "x", "dim": 4, "size_px": 8}]', "0.kind"),
        ('[{"name": "a", "kind": "classifier", "source": "x", "dim": 0, "size_px": 8}]', "0.dim"),
        ('[{"name": "a", "kind": "classifier", "source": "x", "pool": "cls"}]', "kind timm"),
        ('[{"name": "a", "kind": "timm", "source": "./x.pth"}]', "need an 'architecture'"),
    ],
)
def test_a_faulty_list_of_encoders_is_one_clear_sentence(tmp_path, content, expected):
    (tmp_path / "encoders.json").write_text(content)
    with pytest.raises(Problem, match=expected) as caught:
        read_specs(tmp_path / "encoders.json")
    assert "\n" not in str(caught.value)


def test_reading_them_imports_nothing_heavy():
    code = (
        "import sys; from index.encoders.spec import read_specs; "
        "read_specs('paper-retrieval,timm:vit:9'); "
        "print(sorted({'torch', 'timm', 'open_clip', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def _rows(text):
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells if row and row[0].startswith("`")}


def test_the_table_in_the_guide_is_what_there_is():
    guide = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    rows = _rows(guide.partition("## Others")[0])
    assert set(rows) == set(ENCODERS) | set(PRESETS)
    for name, named in ENCODERS.items():
        text, *facts = rows[name]
        spec, weights = named.spec, named.published
        size = as_size(weights.bytes)
        assert facts == [str(spec.dim), f"{spec.size_px} px", size, weights.licence, named.about]
        assert text == "see `presets.toml`" or read_specs(text.strip("`")) == (spec,)
    for name, preset in PRESETS.items():
        assert rows[name] == [", ".join(s.name for s in preset.encoders), preset.about]


def test_the_list_in_the_guide_is_synclr(tmp_path):
    guide = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    (tmp_path / "hvf.json").write_text(guide.partition("```json\n")[2].partition("```")[0])
    synclr, _ = read_specs(tmp_path / "hvf.json")
    (named,) = read_specs(f"SynCLR@{tmp_path}/synclr_vit_b_16.pth")
    assert synclr == named.model_copy(update={"dim": 0, "size_px": 0})
