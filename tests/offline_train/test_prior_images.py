"""What a prior is trained on: images wherever they lie, latents kept or made, and what it takes."""

import io
import json
import shutil
import tarfile
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from pyarrow import parquet
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from decoder.painting.base import load_base
from decoder.painting.prior import ADAPTER_FILE, HVF_FILE
from decoder.painting.spec import read_base_spec
from hvf_core.problem import Problem
from index.encoders.load import load_encoder
from index.encoders.spec import EncoderSpec, read_specs
from offline_train.commands.app import app
from offline_train.data import images
from offline_train.data.features import encode_images
from offline_train.data.latents import MadeLatents, cache_latents, vae_encoder
from offline_train.features import shards
from offline_train.prior import estimate as estimate_module
from offline_train.prior.batches import Draws
from offline_train.prior.estimate import Estimate, Tried
from offline_train.prior.images import find_images
from offline_train.prior.settings import PriorSettings
from offline_train.prior.training import PriorProgress, train_prior
from tests.tiny_sdxl import SIZE_PX, write_tiny_base

pytestmark = pytest.mark.slow
N = 15
SETTINGS = PriorSettings(batch_size=4, n_samples=2, precision="no", device="cpu")
OPTIONS = "--steps 3 --size 64 --batch-size 4 --samples 2 --dim 12 --device cpu --precision no"
WIDTHS = "--cache cache --set hvf_hidden=8 --set projector_hidden=16"


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((90, 70)).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images a-0 to a-14: in `plain/`, and the same in `mixed/`: files, a tar and a Parquet."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("plain", "mixed"):
        (folder / name).mkdir()
    for n in range(N):
        (folder / f"plain/a-{n}.png").write_bytes(png(n))
    for n in range(5):
        (folder / f"mixed/a-{n}.png").write_bytes(png(n))
    with tarfile.open(folder / "mixed/shard.tar", "w") as tar:
        for n in range(5, 10):
            member = tarfile.TarInfo(f"train/a-{n}.png")
            member.size = len(png(n))
            tar.addfile(member, io.BytesIO(png(n)))
    rows = [{"bytes": png(n), "path": f"a-{n}.png"} for n in range(10, N)]
    table = pa.table({"image": rows, "label": list(range(len(rows)))})
    parquet.write_table(table, folder / "mixed/shard.parquet", row_group_size=2)
    write_tiny_base(folder / "base")
    encoder = {"name": "how", "kind": "diffusers-vae", "source": str(folder / "base")}
    encoders = [encoder | {"subfolder": "vae", "dim": 64, "size_px": 32}]
    (folder / "encoders.json").write_text(json.dumps(encoders))
    return folder


@pytest.fixture
def run(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `prior` in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    given = [f"--base={world / 'base'}", f"--encoders={world / 'encoders.json'}"]
    given += [*OPTIONS.split(), *WIDTHS.split()]

    def command(images: str, *more: str) -> Result:
        return CliRunner().invoke(app, ["prior", f"--images={world / images}", *given, *more])

    return command


def weights(prior: str) -> dict[str, torch.Tensor]:
    return load_file(Path(prior) / HVF_FILE) | load_file(Path(prior) / ADAPTER_FILE)


def free(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, n_bytes))


def test_images_are_the_same_wherever_they_lie(world: Path, tmp_path: Path) -> None:
    plain, mixed = (find_images([world / name], tmp_path) for name in ("plain", "mixed"))
    assert plain.contents == mixed.contents
    assert list(plain.contents) == list(mixed.contents) != sorted(mixed.contents)
    assert set(plain.contents) == {f"a-{n}" for n in range(N)}
    for item in mixed.contents:
        np.testing.assert_array_equal(plain.read(item), mixed.read(item))


def test_two_of_one_id_none_and_one_that_changes_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"'.*plain/a-10.png' and '.*row 0' have the same id, 'a-10'"):
        find_images([world / "plain", world / "mixed/shard.parquet"], tmp_path / "cache")
    with pytest.raises(Problem, match="there is no image in"):
        find_images([tmp_path / "cache"], tmp_path / "cache")
    with pytest.raises(Problem, match=r"there is no '.*00.tar': give .* that are there"):
        find_images([tmp_path / "00.tar"], tmp_path / "cache")
    shutil.copy(world / "plain/a-3.png", tmp_path)
    found = find_images([tmp_path], tmp_path / "cache")
    shutil.copy(world / "plain/a-4.png", tmp_path / "a-3.png")
    with pytest.raises(Problem, match=r"a-3.png' has just changed"):
        found.read("a-3")


def test_only_what_has_changed_is_read_again(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, cache = tmp_path / "mixed", tmp_path / "cache"
    shutil.copytree(world / "mixed", place)
    before = find_images([place], cache).contents  # too new to be known by their times
    monkeypatch.setattr(time, "time_ns", lambda: 2**62)
    assert find_images([place], cache).contents == before
    read: list[Path] = []
    for module in (images, shards):
        monkeypatch.setattr(module, "bytes_of", lambda path, *how: read.append(path) or b"")
    assert find_images([place], cache).contents == before
    assert read == []
    (place / "a-3.png").write_bytes(png(3)[::-1])  # as long as it was
    after = find_images([place], cache).contents
    assert read == [place / "a-3.png"]
    assert {item for item in before if after[item] != before[item]} == {"a-3"}


def test_latents_kept_or_made_and_features_in_memory_or_not_give_the_same_batches(
    world: Path, tmp_path: Path
) -> None:
    base = load_base(read_base_spec(world / "base"))
    pictures = find_images([world / "mixed"], tmp_path)
    vae = load_encoder(vae_encoder(base.spec, SIZE_PX))
    how = load_encoder(
        EncoderSpec.model_validate(json.loads((world / "encoders.json").read_text())[0])
    )
    on_disk = encode_images(pictures.contents, pictures.read, [how], tmp_path / "features")
    in_memory = on_disk.select(on_disk.items)
    kept = cache_latents(pictures.contents, pictures.read, vae, 0.13025, tmp_path / "latents")
    made = MadeLatents(on_disk.items, pictures.read, vae, n_threads=2)
    assert made.shape == kept.shape
    accelerator = Accelerator(cpu=True)
    one = Draws(kept, in_memory, base, SETTINGS, accelerator)
    other = Draws(made, on_disk, base, SETTINGS, accelerator)
    ahead = other.ahead(range(3, 8))
    for step in range(3, 8):
        (a,), (b,) = one.of(step), next(ahead)
        for x, y in zip(
            (*a.seen[:2], a.seen[3], a.noise), (*b.seen[:2], b.seen[3], b.noise), strict=True
        ):
            torch.testing.assert_close(x, y, rtol=2e-3, atol=1e-4)  # float16's rounding
        assert torch.equal(a.seen[2]["how"], b.seen[2]["how"])
    assert next(ahead, None) is None


def test_a_training_on_shards_keeps_nothing_it_makes_and_is_that_on_files(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = run("plain", "--out=kept")
    assert kept.exit_code == 0, kept.output
    assert "15 images: about 0:0" in kept.output
    assert "for 3 steps of 4 images, " in kept.output
    assert list(Path("cache").glob("latents-*"))
    monkeypatch.setattr(estimate_module, "_COPIES", 0)
    free(monkeypatch, 8000)  # 3840 for the features, and too few for 7680 of latents
    made = run("mixed", "--out=made", "--cache=other")
    assert made.exit_code == 0, made.output
    assert not list(Path("other").glob("latents-*"))
    for name, tensor in weights("kept").items():
        torch.testing.assert_close(weights("made")[name], tensor, rtol=0, atol=2e-4)


def test_a_disk_that_is_too_small_is_told_before_all_is_encoded(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate_module, "_COPIES", 0)
    free(monkeypatch, 8000)
    said = str(run("plain", "--out=prior", "--latents=cached").exception)
    assert (
        "'cache' needs 12 kB for features, latents and the training's state, and 8 kB are" in said
    )
    assert said.endswith("or make latents as they are needed (--latents streamed)")
    assert not list(Path("cache").glob("latents-*"))


def test_too_few_images_are_told_before_any_is_encoded(run: Callable[..., Result]) -> None:
    said = str(run("plain", "--out=prior", "--samples=15").exception)
    assert said.startswith("15 images, of which 15 are only looked at, leave nothing to learn")
    assert [path.suffix for path in Path("cache").iterdir()] == [".txt"]


def test_what_a_training_of_the_papers_size_takes() -> None:
    """ImageNet at 512 px: latents are kept where 42 GB are free beside the rest."""
    estimate = Estimate(
        n_images=1_281_167,
        features_s=36_000,
        features_bytes=13_100_000_000,
        latents_s=18_000,
        latents_bytes=42_000_000_000,
        latent_s=0.014,
        tried=Tried(0.54, 11_800_000_000, "38.1 GB of each GPU's memory"),
    )
    with pytest.MonkeyPatch.context() as patch:
        for n_free, keeps in ((70 * 10**9, True), (60 * 10**9, False)):
            free(patch, n_free)
            assert estimate.keeps_latents(PriorSettings(), Path()) is keeps
        free(patch, 20 * 10**9)
        with pytest.raises(Problem, match=r"needs 24.9 GB for features and .* 20.0 GB are free"):
            estimate.keeps_latents(PriorSettings(), Path("c"))
        free(patch, 60 * 10**9)
        assert estimate.sentence(PriorSettings(), Path("c"), keeps_latents=False) == (
            "1281167 images: about 10:00:00 to encode what is new, 1 day, 3:26:40 for 100000 steps "
            "of 32 images, 24.9 GB more in 'c' (60.0 GB are free), and 38.1 GB of each GPU's memory"
        )


def test_a_training_on_latents_that_are_made_goes_on_to_the_same_bits(
    world: Path, tmp_path: Path
) -> None:
    pictures = find_images([world / "mixed"], tmp_path)
    vae = load_encoder(vae_encoder(read_base_spec(world / "base"), SIZE_PX))
    encoders = [load_encoder(one) for one in read_specs(world / "encoders.json")]
    seen = encode_images(pictures.contents, pictures.read, encoders, tmp_path / "features")
    made = MadeLatents(seen.items, pictures.read, vae, n_threads=2)
    widths = {"dim": 12, "hvf_hidden": 8, "projector_hidden": 16, "checkpoint_every": 2}
    settings = SETTINGS.model_copy(update={"steps": 5, "lr": 1e-2, **widths})

    def learn(state: str, end: int = 0) -> dict[str, torch.Tensor]:
        def end_at(progress: PriorProgress) -> None:
            if progress.step == end:
                raise KeyboardInterrupt

        base = load_base(read_base_spec(world / "base"))
        trained = train_prior(made, seen, base, settings, end_at, tmp_path / state)
        return trained.networks.state_dict()

    whole = learn("whole")
    with pytest.raises(KeyboardInterrupt):
        learn("left", end=4)
    again = learn("left")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
