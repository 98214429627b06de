"""What the paper's authors have released, imported: look-alikes of its layout, made here."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner, Result

from decoder.painting.base import load_base
from decoder.painting.prior import check_fits, load_prior
from decoder.painting.spec import read_base_spec
from index.encoders.load import ImageEncoder, load_encoder
from index.encoders.spec import read_specs
from offline_train.commands.app import app
from offline_train.data.features import extract_features
from offline_train.data.images import pictures_of
from tests.tiny_sdxl import WIDTH, write_tiny_base

pytestmark = pytest.mark.slow
DIM, HIDDEN, N = 12, 20, 24
KEYS = {"CLIP-ViT-B-32-laion2B-s34B-b79K": 16, "vae": 64}
FUSION = "fusion_encoder/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small base, small encoders under the names of the released ones, and images."""
    folder = tmp_path_factory.mktemp("released")
    write_tiny_base(folder / "base")
    encoder = {"kind": "diffusers-vae", "source": str(folder / "base"), "subfolder": "vae"}
    sizes = {"ViT-B-32": (16, 16), "SDXL-VAE": (64, 32)}
    listed = [encoder | {"name": n, "dim": d, "size_px": px} for n, (d, px) in sizes.items()]
    (folder / "both.json").write_text(json.dumps(listed))
    (folder / "vae.json").write_text(json.dumps(listed[1:]))
    (folder / "images").mkdir()
    for n in range(N):
        pixels = np.random.default_rng(n).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((40, 40), Image.Resampling.NEAREST)
        picture.save(folder / f"images/thing_{n:02d}s.png")
    return folder


def released_prior(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Writes one as the authors' code saves it, and gives its tensors by part."""
    rng = torch.Generator().manual_seed(1)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng) / 4

    fusion = {f"vision_model.proj_maps.{key}.weight": drawn(DIM, d) for key, d in KEYS.items()}
    fusion |= {f"vision_model.proj_maps.{key}.bias": drawn(DIM) for key in KEYS}
    block = "vision_model.block.layers.0"
    fusion |= {
        f"{block}.ff.w1.weight": drawn(HIDDEN, DIM),
        f"{block}.ff.w2.weight": drawn(DIM, HIDDEN),
    }
    fusion |= {f"{block}.norm.weight": 1 + drawn(DIM), f"{block}.norm.bias": drawn(DIM)}
    fusion |= {"adapter.ff.w1.weight": drawn(30, DIM), "adapter.ff.w2.weight": drawn(DIM, 30)}
    proj = {"proj.weight": drawn(4 * WIDTH, DIM), "proj.bias": drawn(4 * WIDTH)}
    proj |= {"norm.weight": 1 + drawn(WIDTH), "norm.bias": drawn(WIDTH)}
    maps = {
        f"attn_processors.{i}.to_{kind}_ip.weight": drawn(64, WIDTH)
        for i in range(1, 16, 2)
        for kind in "kv"
    }
    parts = {"fusion_encoder": fusion, "proj": proj, "attn_adapter": maps}
    for part, tensors in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps({"_class_name": part}))
        save_file(tensors, folder / part / "diffusion_pytorch_model.safetensors")
    return parts


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def imported_prior(world: Path, folder: Path, out: Path) -> Result:
    options = ("--base", world / "base", "--encoders", world / "both.json")
    return run("import-prior", folder, "--out", out, *options)


def test_an_imported_prior_computes_what_the_released_one_does(world: Path, tmp_path: Path) -> None:
    parts = released_prior(tmp_path / "released")
    done = imported_prior(world, tmp_path / "released", tmp_path / "prior")
    assert done.exit_code == 0, done.output
    fusion, proj, maps = parts.values()
    seen = {
        key: torch.randn(500, d, generator=torch.Generator().manual_seed(2))
        for key, d in KEYS.items()
    }
    at = "vision_model.proj_maps"
    z = sum(x @ fusion[f"{at}.{k}.weight"].T + fusion[f"{at}.{k}.bias"] for k, x in seen.items())

    def mlp(x: Tensor, where: str) -> Tensor:
        inner = functional.gelu(x @ fusion[f"{where}.w1.weight"].T)
        return inner @ fusion[f"{where}.w2.weight"].T

    block = "vision_model.block.layers.0"
    norm = fusion[f"{block}.norm.weight"], fusion[f"{block}.norm.bias"]
    z_f = functional.layer_norm(z + mlp(z, f"{block}.ff"), (DIM,), *norm, eps=1e-6)
    z_c = z_f + mlp(z_f, "adapter.ff")
    prior = load_prior(tmp_path / "prior")
    ours = {"ViT-B-32": seen["CLIP-ViT-B-32-laion2B-s34B-b79K"], "SDXL-VAE": seen["vae"]}
    with torch.no_grad():
        torch.testing.assert_close(prior.hvf(ours), z_f, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(prior.projector(z_f), z_c, rtol=1e-5, atol=1e-5)
    for name, tensor in proj.items():
        assert torch.equal(prior.adapter["image_proj"][name], tensor)
    for name, tensor in maps.items():
        short = name.removeprefix("attn_processors.")
        assert torch.equal(prior.adapter["ip_adapter"][short], tensor)
    assert prior.manifest.z_norm == pytest.approx(float(z_f.norm(dim=1).mean()), rel=0.05)
    base = load_base(read_base_spec(world / "base"))
    check_fits(prior, base)
    base.unet._load_ip_adapter_weights([prior.adapter])
    assert len(prior.manifest.training["imported"]) == 3


def test_what_is_no_released_prior_is_refused(world: Path, tmp_path: Path) -> None:
    parts = released_prior(tmp_path / "a")
    fusion = parts["fusion_encoder"]

    def refused(tensors: dict[str, Tensor]) -> str:
        save_file(tensors, tmp_path / "a" / FUSION)
        done = imported_prior(world, tmp_path / "a", tmp_path / "prior")
        assert done.exit_code == 1
        assert not (tmp_path / "prior").exists()
        return str(done.exception)

    second = {
        n.replace("layers.0", "layers.1"): t.clone() for n, t in fusion.items() if "layers" in n
    }
    assert "is no Fusion Prior of one block and 4 tokens" in refused(fusion | second)
    other = {n.replace(".vae.", ".dinov3."): t for n, t in fusion.items()}
    assert "is of the image encoder 'dinov3', known are CLIP-ViT-H-14" in refused(other)
    less = {n: t for n, t in fusion.items() if ".vae." not in n}
    assert "fuses ViT-B-32, and ViT-B-32, SDXL-VAE are given" in refused(less)
    wide = fusion | {"vision_model.proj_maps.vae.weight": torch.zeros(DIM, 65)}
    assert "does not fit" in refused(wide)
    (tmp_path / "a" / FUSION).write_bytes(b"cut")
    done = imported_prior(world, tmp_path / "a", tmp_path / "prior")
    assert "or download it again" in str(done.exception)


@pytest.fixture(scope="module")
def encoder(world: Path) -> ImageEncoder:
    return load_encoder(read_specs(world / "vae.json")[0])


@pytest.fixture(scope="module")
def true(world: Path, encoder: ImageEncoder) -> np.ndarray:
    pictures = pictures_of(world / "images")
    return encoder.encode([pictures.read(item) for item in pictures.contents])


def write_embeddings(folder: Path, embeddings: np.ndarray, more: int = 0) -> list[Path]:
    """Two files of float16, as the authors' code writes them; `more` images are not here."""
    folder.mkdir()
    rest = np.random.default_rng(0).standard_normal((more, embeddings.shape[1]))
    rows = np.concatenate([embeddings, rest]).astype(np.float16)
    files = [folder / f"things_train_vae-part-{i:05d}-of-00001.parquet" for i in (0, 1)]
    for file, part in zip(files, np.array_split(np.arange(len(rows)), 2), strict=True):
        write_part(file, [f"thing_{n:02d}s" for n in part], rows[part])
    return files


def write_part(file: Path, ids: list[str], rows: np.ndarray) -> None:
    flat = pa.array(rows.reshape(-1), type=pa.float16())
    emb = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    parquet.write_table(pa.table({"image_id": ids, "emb": emb}), file, compression="zstd")


@pytest.fixture
def take(world: Path, tmp_path: Path) -> Callable[[list[Path]], Result]:
    told = ("--images", world / "images", "--encoders", world / "vae.json", "--cache")
    return lambda files: run("import-features", *files, *told, tmp_path / "cache")


def test_imported_embeddings_are_what_the_encoder_would_have_given(
    world: Path, tmp_path: Path, encoder: ImageEncoder, true: np.ndarray, take: Callable
) -> None:
    noise = np.random.default_rng(1).standard_normal(true.shape) * true.std() / 50
    done = take(write_embeddings(tmp_path / "e", true + noise, more=3))
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "features of 24 images in" in told
    assert "3 that are not here passed over" in told
    pictures = pictures_of(world / "images")
    found = extract_features(pictures.contents, pytest.fail, [encoder], tmp_path / "cache")
    want = (true + noise).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(found.embeddings["SDXL-VAE"], want)


def test_collapsed_embeddings_are_refused_with_the_number_that_shows_it(
    tmp_path: Path, true: np.ndarray, take: Callable
) -> None:
    done = take(write_embeddings(tmp_path / "e", 0.07 * true / true.std() + 1))
    assert done.exit_code == 1
    assert "are collapsed: the median cosine of random pairs of images is 0.99" in str(
        done.exception
    )
    assert not (tmp_path / "cache").exists()


def test_embeddings_of_others_or_cut_are_refused(
    tmp_path: Path, true: np.ndarray, take: Callable
) -> None:
    narrow = write_embeddings(tmp_path / "narrow", true[:, :63])
    assert "has embeddings of 63 numbers, 'SDXL-VAE' gives 64" in str(take(narrow).exception)
    files = write_embeddings(tmp_path / "good", true)
    files[1].write_bytes(files[1].read_bytes()[:-50])
    assert "cannot be read as `image_id` and `emb`" in str(take(files).exception)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("start", [0, 12, 20])
def test_rows_that_have_slipped_are_refused_wherever_they_begin(
    tmp_path: Path, true: np.ndarray, take: Callable, start: int
) -> None:
    true = np.concatenate([true[:start], np.roll(true[start:], 1, axis=0)])
    files = write_embeddings(tmp_path / "e", true)
    said = str(take(files).exception)
    assert f"in '{files[start >= 12]}' are not those that 'SDXL-VAE' gives here" in said
    assert not (tmp_path / "cache").exists()


def test_files_are_one_encoders_each_part_once_whatever_encoder_is_named(
    tmp_path: Path, true: np.ndarray, take: Callable
) -> None:
    files = write_embeddings(tmp_path / "e", true)

    def named(name: str) -> Path:
        return shutil.copy(files[0], tmp_path / f"{name}.parquet")

    assert "part 0 of 'things_train_vae' is missing" in str(take(files[1:]).exception)
    assert "is given twice" in str(take([*files, files[0]]).exception)
    other = named("things_train_RN50-part-00000-of-00000")
    assert "are of RN50, vae: give those of one" in str(take([*files, other]).exception)
    beyond = named("things_train_vae-part-00002-of-00001")
    assert "or no part of 0 to 1" in str(take([*files, beyond]).exception)
    assert "is not called as the released" in str(take([named("x")]).exception)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("nan", "'thing_20s', has numbers that are not finite"),
        ("zeros", "'thing_20s', is all zeros"),
        ("again", "'thing_03s', is of an image that came before"),
        ("uneven", "'thing_20s', has 65 numbers, the first has 64"),
        ("narrow", "has embeddings of 63 numbers, those before have 64"),
    ],
)
def test_a_row_that_is_at_fault_is_named_before_anything_is_taken(
    tmp_path: Path, true: np.ndarray, take: Callable, fault: str, says: str
) -> None:
    files = write_embeddings(tmp_path / "e", true)
    ids, rows = [f"thing_{n:02d}s" for n in range(12, 24)], true[12:].copy()
    if fault in ("nan", "zeros"):
        rows[8] = {"nan": np.nan, "zeros": 0}[fault]
    if fault == "again":
        ids[8] = "thing_03s"
    if fault == "narrow":
        rows = rows[:, :63]
    write_part(files[1], ids, rows)
    if fault == "uneven":  # as many numbers in all
        flat = np.delete(np.insert(rows.ravel(), 9 * 64, 1), -1)
        parts = np.split(flat, np.cumsum([*[64] * 8, 65, 64, 64]))
        parquet.write_table(pa.table({"image_id": ids, "emb": [*parts]}), files[1])
    said = str(take(files).exception)
    assert f"'{files[1]}'" in said
    assert says in said
    assert fault == "narrow" or said.startswith("row 8 of")
    assert not (tmp_path / "cache").exists()
