"""Bundles: what is saved comes back, and what is wrong is refused in one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from decoder.brain.mbp import MBP
from decoder.brain.registry import load_brain_encoder
from decoder.bundle import (
    BrainEncoderRecord,
    Bundle,
    BundleManifest,
    HVFRecord,
    ImageEncoderRecord,
    load_bundle,
    open_bundle,
    save_bundle,
    space_of,
)
from decoder.hvf import HVF, load_hvf
from decoder.weights import arrays_of
from hvf_core.artifact import file_sha256
from hvf_core.problem import Problem

ENCODERS = (
    ImageEncoderRecord(name="semantic", dim=5, checksum="5e"),
    ImageEncoderRecord(name="vae", dim=7, checksum="7a"),
)


def networks() -> tuple[MBP, HVF]:
    torch.manual_seed(0)
    dims = {encoder.name: encoder.dim for encoder in ENCODERS}
    return MBP(3, 11, dim=8, hidden=6).eval(), HVF(dims, dim=8, hidden=6).eval()


def manifest_for(hvf: HVF) -> BundleManifest:
    return BundleManifest(
        channels=("O1", "Oz", "O2"),
        rate_hz=100,
        tmin_s=-0.02,
        tmax_s=0.08,
        preprocessing={"baseline": {"tmin_s": -0.02, "tmax_s": 0.0}, "filters": []},
        brain_encoder=BrainEncoderRecord(hidden=6),
        image_encoders=ENCODERS,
        hvf=HVFRecord(hidden=6),
        embedding_dim=8,
        logit_scale=2.7,
        space=space_of(arrays_of(hvf), ENCODERS),
        training={"seed": 1},
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    brain, hvf = networks()
    whitener = np.arange(9, dtype=np.float64).reshape(3, 3).T  # a transposed view, on purpose
    parts = {
        "brain": arrays_of(brain),
        "hvf": arrays_of(hvf),
        "preprocessing": {"whitener": whitener},
    }
    return save_bundle(tmp_path / "bundle", manifest_for(hvf), parts)


def rewrite(bundle: Bundle, part: str, arrays: dict[str, np.ndarray]) -> None:
    """Replaces a part and its checksum, as a program would that makes wrong bundles."""
    save_file(arrays, bundle.directory / f"{part}.safetensors")
    edit(
        bundle,
        lambda found: found["files"].update(
            {f"{part}.safetensors": file_sha256(bundle.directory / f"{part}.safetensors")}
        ),
    )


def edit(bundle: Bundle, change) -> None:
    path = bundle.directory / "bundle.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_a_bundle_comes_back_as_it_was(bundle: Bundle) -> None:
    brain, hvf = networks()
    loaded = load_bundle(bundle.directory)
    assert loaded.manifest.n_times == 11
    assert loaded.manifest.model_copy(update={"files": {}}) == manifest_for(hvf)
    np.testing.assert_array_equal(
        loaded.arrays("preprocessing")["whitener"], np.arange(9.0).reshape(3, 3).T
    )
    trials, images = (
        torch.randn(2, 3, 11),
        {"semantic": torch.randn(2, 5), "vae": torch.randn(2, 7)},
    )
    assert torch.equal(load_brain_encoder(loaded)(trials), brain(trials))
    assert torch.equal(load_hvf(loaded)(images), hvf(images))
    assert not load_brain_encoder(loaded).training


def test_saving_again_replaces_and_leaves_nothing_beside(bundle: Bundle) -> None:
    parts = {part: bundle.arrays(part) for part in ("brain", "hvf", "preprocessing")}
    manifest = bundle.manifest.model_copy(update={"logit_scale": 3.0})
    assert save_bundle(bundle.directory, manifest, parts).manifest.logit_scale == 3.0
    assert [path.name for path in bundle.directory.parent.iterdir()] == ["bundle"]


def test_a_directory_of_something_else_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("years of work")
    parts = {part: bundle.arrays(part) for part in ("brain", "hvf", "preprocessing")}
    with pytest.raises(Problem, match="left alone"):
        save_bundle(other, bundle.manifest, parts)
    assert (other / "chapter1.txt").read_text() == "years of work"


def test_a_bundle_that_is_not_finite_is_not_written(bundle: Bundle, tmp_path: Path) -> None:
    parts = {part: bundle.arrays(part) for part in ("brain", "hvf", "preprocessing")}
    parts["brain"]["project.bias"] = np.full(8, np.nan, np.float32)
    with pytest.raises(Problem, match=r"project\.bias of brain .* diverged"):
        save_bundle(tmp_path / "new", bundle.manifest, parts)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("part", ["brain", "hvf", "preprocessing"])
def test_a_bundle_of_weights_that_are_not_finite_is_refused(bundle: Bundle, part: str) -> None:
    arrays = {name: array.copy() for name, array in bundle.arrays(part).items()}
    name = sorted(arrays)[0]
    arrays[name].flat[0] = np.inf
    save_file(arrays, bundle.file(part))
    sha256 = file_sha256(bundle.file(part))
    edit(bundle, lambda manifest: manifest["files"].update({f"{part}.safetensors": sha256}))
    with pytest.raises(Problem, match=f"{name} of .*{part}.safetensors has values that are not"):
        load_bundle(bundle.directory)


def flip_a_byte(bundle: Bundle) -> None:
    path = bundle.directory / "brain.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda b: (b.directory / "bundle.json").unlink(), "there is no"),
        (lambda b: (b.directory / "bundle.json").write_text("{"), "not JSON"),
        (lambda b: (b.directory / "bundle.json").write_text("[]"), "not valid"),
        (lambda b: (b.directory / "hvf.safetensors").unlink(), "is missing"),
        (flip_a_byte, "is damaged"),
        (lambda b: edit(b, lambda m: m.update(schema_version=2)), "update the program"),
        (lambda b: edit(b, lambda m: m.update(colour="red")), "not valid at colour"),
        (lambda b: edit(b, lambda m: m.pop("rate_hz")), "not valid at rate_hz"),
        (lambda b: edit(b, lambda m: m.update(tmax_s=-1)), "lies before"),
        (lambda b: edit(b, lambda m: m.update(channels=["O1", "Oz", "O1"])), "twice"),
        (lambda b: edit(b, lambda m: m["files"].pop("brain.safetensors")), "gives checksums of"),
        (lambda b: edit(b, lambda m: m["files"].update({"../x": "0"})), "gives checksums of"),
        (lambda b: edit(b, lambda m: m.update(space="0")), "embedding space"),
    ],
)
def test_a_damaged_bundle_is_refused(bundle: Bundle, damage, sentence: str) -> None:
    damage(bundle)
    with pytest.raises(Problem, match=sentence) as problem:
        load_bundle(bundle.directory)
    assert "\n" not in str(problem.value)


def test_opening_reads_the_manifest_only(bundle: Bundle) -> None:
    manifest = bundle.manifest
    flip_a_byte(bundle)
    (bundle.directory / "hvf.safetensors").unlink()
    assert open_bundle(bundle.directory).manifest == manifest


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"there is no .*bundle\.json"):
        load_bundle(tmp_path / "nowhere")


def test_a_bundle_with_a_missing_tensor_is_refused(bundle: Bundle) -> None:
    arrays = load_file(bundle.directory / "brain.safetensors")
    arrays["projekt.bias"] = arrays.pop("project.bias")
    rewrite(bundle, "brain", arrays)
    with pytest.raises(Problem, match=r"Missing .*project\.bias.* Unexpected .*projekt\.bias"):
        load_brain_encoder(load_bundle(bundle.directory))


def test_a_bundle_whose_window_does_not_fit_its_weights_is_refused(bundle: Bundle) -> None:
    edit(bundle, lambda manifest: manifest.update(tmax_s=0.09))
    with pytest.raises(Problem, match=r"project\.weight.*\[8, 33\].*\[8, 36\]"):
        load_brain_encoder(load_bundle(bundle.directory))


def test_the_space_depends_on_weights_and_on_encoders_but_not_on_their_order() -> None:
    arrays = arrays_of(networks()[1])
    space = space_of(arrays, ENCODERS)
    assert space == space_of(dict(reversed(arrays.items())), ENCODERS[::-1])
    other_encoder = ENCODERS[0].model_copy(update={"checksum": "other"})
    assert space != space_of(arrays, (other_encoder, ENCODERS[1]))
    arrays["head.norm.bias"] = arrays["head.norm.bias"] + 1
    assert space != space_of(arrays, ENCODERS)


def test_reading_a_bundle_needs_no_torch(bundle: Bundle) -> None:
    program = (
        "import sys, pathlib; from decoder.bundle import load_bundle; "
        "load_bundle(pathlib.Path(sys.argv[1])).arrays('preprocessing'); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, bundle.directory], check=True)


# --- ends of the window --------------------------------------------------------------------------


def window_of(rate_hz: float, tmin_s: float, tmax_s: float) -> BundleManifest:
    _, hvf = networks()
    update = {"rate_hz": rate_hz, "tmin_s": tmin_s, "tmax_s": tmax_s}
    return manifest_for(hvf).model_copy(update=update)


@pytest.mark.parametrize(
    ("rate_hz", "tmin_s", "tmax_s", "expected"),
    [
        (250, 0.0, 0.0, 1),
        (250, 0.0, 0.996, 250),
        (250, -0.2, 0.0, 51),
        (250, 0.1, 0.2, 26),
        (512, 0.0, 1.0, 513),
        (100, -0.02, 0.08, 11),
        (250, 0.1, 0.0, -24),
    ],
)
def test_both_ends_of_a_window_belong_to_it(rate_hz, tmin_s, tmax_s, expected) -> None:
    manifest = window_of(rate_hz, tmin_s, 2.0)
    assert manifest.n_times_at(tmax_s) == expected
    assert manifest.n_times == manifest.n_times_at(2.0)


@pytest.mark.parametrize(
    ("asked_s", "expected"),
    [
        ((), (250,)),
        ((0.996,), (250,)),
        ((1.0,), (250,)),  # a sample behind the end
        ((0.5, 0.248), (63, 126, 250)),
        ((0.5, 0.5, 0.501, 0.996), (126, 250)),
        ((0.0,), (1, 250)),
        ((0.992,), (249, 250)),
    ],
)
def test_marks_rise_and_end_with_the_whole_window(asked_s, expected) -> None:
    assert window_of(250, 0.0, 0.996).marks(asked_s) == expected


def test_marks_are_counted_from_the_windows_begin() -> None:
    assert window_of(250, -0.2, 0.996).marks((-0.2, 0.0, 0.3)) == (1, 51, 126, 300)


@pytest.mark.parametrize("outside_s", [1.004, 2.0, -0.004, -1.0])
def test_a_mark_outside_the_window_is_refused(outside_s: float) -> None:
    with pytest.raises(Problem, match=r"the bundle's window, which is 0 to 0\.996 s") as no:
        window_of(250, 0.0, 0.996).marks((0.5, outside_s))
    assert f"tmax {outside_s:g} s" in str(no.value)
    assert "\n" not in str(no.value)
