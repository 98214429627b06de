"""The commands that take images: what becomes of them is that of the images that are there now."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from demo.settings import ASSETS
from hvf_core.problem import Problem
from index.gallery import load_gallery
from index.images import read_image
from offline_train.commands.app import app
from offline_train.data.trial_set import write_trial_set
from tests.offline_train.conftest import FORMAT

pytestmark = pytest.mark.slow
COMPOSED, APART = "caf\u00e9", "cafe\u0301"
NAMES = ("cat", "dog", "owl", COMPOSED)


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((72, 48), Image.Resampling.NEAREST)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on images, with the demo's small VAE, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    vae = {"name": "vae", "kind": "autoencoder_kl", "source": str(ASSETS / "vae")}
    Path("encoders.json").write_text(json.dumps([vae | {"dim": 64, "size_px": 32}]))
    for folder, offset in (("train", 0), ("test", 100)):
        Path(folder).mkdir()
        for seed, name in enumerate(NAMES):
            picture(seed + offset).save(f"{folder}/{name}.png")
    trials = np.random.default_rng(0).standard_normal((8, 6, 20)).astype(np.float32)
    with write_trial_set(Path("trials"), FORMAT) as writer:
        writer.append(trials, NAMES * 2, session="s")

    def command(*arguments: object) -> Result:
        more = () if arguments[0] == "prepare" else ("--encoders", "encoders.json")
        return CliRunner().invoke(app, [*map(str, arguments), *more])

    return command


def trained(run: Callable[..., Result], out: str) -> Result:
    return run("mbp", "trials", "--images", "train", "--epochs", 1, "--hold-out", 0, "--out", out)


def test_other_images_of_the_same_names_get_their_own_embeddings(
    run: Callable[..., Result],
) -> None:
    assert trained(run, "bundle").exit_code == 0
    gallery = ("gallery", "--bundle", "bundle", "--images", "test", "--out")
    assert run(*gallery, "mixed").exit_code == 0
    assert run(*gallery, "right", "--cache", "empty").exit_code == 0
    mixed, right = load_gallery(Path("mixed")), load_gallery(Path("right"))
    np.testing.assert_array_equal(mixed.embeddings, right.embeddings)
    exchanged = Path("test/cat.png")
    exchanged.write_bytes(Path("test/dog.png").read_bytes())
    assert run(*gallery, "later").exit_code == 0
    later = load_gallery(Path("later"))
    row, dog = later.row_of("cat"), right.row_of("dog")
    np.testing.assert_array_equal(later.embeddings[row], right.embeddings[dog])


def test_an_encoder_can_be_said_in_words_wherever_a_list_is_taken(
    run: Callable[..., Result],
) -> None:
    """Of the same weights it is the same one; another is refused by what differs."""
    assert trained(run, "bundle").exit_code == 0
    gallery = (
        "gallery",
        "--bundle",
        "bundle",
        "--images",
        "test",
        "--out",
        "gallery",
        "--encoders",
    )
    vae = ASSETS / "vae"
    done = CliRunner().invoke(app, [*gallery, f"diffusers-vae:32px@{vae}"])
    assert "trained with the image encoders vae, and these are vae-32px" in str(done.exception)
    Path("vae").symlink_to(vae)
    other = {"name": "vae", "kind": "diffusers-vae", "source": "./vae", "size_px": 64}
    Path("other.json").write_text(json.dumps([other]))
    done = CliRunner().invoke(app, [*gallery, "other.json"])
    assert "vae, and 'vae' has other weights, or sees or gives something else" in str(
        done.exception
    )
    Path("same.json").write_text(json.dumps([other | {"size_px": 32}]))
    assert CliRunner().invoke(app, [*gallery, "same.json"]).exit_code == 0


def test_a_gallery_has_the_images_as_they_are_and_shows_them_upright(
    run: Callable[..., Result],
) -> None:
    assert trained(run, "bundle").exit_code == 0
    lying = Image.Exif()
    lying[0x112] = 6
    for name in ("upright", "photo"):
        Path(name).mkdir()
        for seed, item in enumerate(NAMES):
            upright = picture(seed)
            if name == "photo":
                turned = upright.transpose(Image.Transpose.ROTATE_90)
                turned.save(f"{name}/{item}.webp", exif=lying, lossless=True)
            else:
                upright.save(f"{name}/{item}.png")
        done = run("gallery", "--bundle", "bundle", "--images", name, "--out", f"{name}-g")
        assert done.exit_code == 0, done.output
    upright, photo = load_gallery(Path("upright-g")), load_gallery(Path("photo-g"))
    np.testing.assert_array_equal(photo.embeddings, upright.embeddings)
    for row, item in enumerate(photo.ids):
        assert photo.images[row].read_bytes() == Path(f"photo/{item}.webp").read_bytes()
        np.testing.assert_array_equal(
            read_image(photo.images[row]), read_image(upright.images[row])
        )


def test_a_mac_s_file_names_are_those_of_the_markers(run: Callable[..., Result]) -> None:
    Path(f"train/{COMPOSED}.png").rename(f"train/{APART}.png")
    done = trained(run, "bundle")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "command",
    [
        ("mbp", "trials", "--images", "train", "--out", "b"),
        ("prior", "--base", "nowhere", "--images", "train", "--out", "p"),
        ("prepare", "nowhere.fif", "--images", "train", "--out", "t"),
    ],
)
def test_two_images_of_one_id_are_refused_in_one_sentence_everywhere(
    run: Callable[..., Result], command: tuple[str, ...]
) -> None:
    Path("train/y").mkdir()
    picture(9).save("train/y/cat.jpg")
    Path("nowhere.fif").touch()
    done = run(*command)
    assert isinstance(done.exception, Problem), done.output
    assert str(done.exception) == (
        "'train/cat.png' and 'train/y/cat.jpg' have the same id, 'cat', which is an image's name "
        "without the ending: rename one"
    )


def test_a_broken_image_is_refused_by_its_name(run: Callable[..., Result]) -> None:
    Path("train/cat.png").write_bytes(Path("train/cat.png").read_bytes()[:60])
    done = trained(run, "bundle")
    assert isinstance(done.exception, Problem)
    assert str(done.exception).startswith("the image 'train/cat.png' cannot be read (")
    assert not Path("bundle").exists()
