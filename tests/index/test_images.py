"""Images are read as a person sees them, whatever file they are in; what cannot be is named."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from hvf_core.problem import Problem
from index.images import MOST_PIXELS, open_image, read_image
from tests.mutations import outcomes

RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)
# What is seen of each is this: four colours, of which a photo on its side shows others in place.
SEEN = np.array([[RED, GREEN], [BLUE, WHITE], [BLACK, RED]], np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


# From what is seen to what lies in the file, by EXIF's orientation (CIPA DC-008, 4.6.4).
LIES = {
    1: lambda seen: seen,
    2: np.fliplr,
    3: lambda seen: np.rot90(seen, 2),
    4: np.flipud,
    5: lambda seen: seen.swapaxes(0, 1),
    6: lambda seen: np.rot90(seen, 1),
    7: lambda seen: np.rot90(seen, 2).swapaxes(0, 1),
    8: lambda seen: np.rot90(seen, -1),
}


@pytest.mark.parametrize("orientation", LIES)
@pytest.mark.parametrize("kind", ["png", "webp", "tif"])
def test_a_photo_stands_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    lying = Image.fromarray(np.ascontiguousarray(LIES[orientation](SEEN)))
    path = saved(tmp_path / f"photo.{kind}", lying, exif=exif, lossless=True)
    np.testing.assert_array_equal(read_image(path), SEEN)


def test_the_portrait_of_a_phone_is_a_portrait(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    path = saved(tmp_path / "p.jpg", Image.new("RGB", (96, 64), "red"), exif=exif)
    assert read_image(path).shape == (96, 64, 3)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20), st.sampled_from(["PNG", "TIFF"]))
def test_16_bits_of_grey_are_scaled_and_keep_their_order(values: list[int], kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([values], np.uint16)).save(file, kind)
    seen = np.asarray(open_image(file))[0].astype(int)
    assert (np.abs(seen * 257 - np.array(values)[:, None]) <= 128).all()


def test_16_bits_of_colour_are_scaled(tmp_path: Path) -> None:
    colour = struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF)
    (tmp_path / "c16.png").write_bytes(png((1, 1), b"\0" + colour, depth=16, kind=2))
    np.testing.assert_array_equal(read_image(tmp_path / "c16.png")[0, 0], [0x12, 0x80, 0xFF])


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    clear = np.dstack([SEEN, [[255, 0], [255, 0], [128, 255]]]).astype(np.uint8)
    expected = SEEN.copy()
    expected[0, 1] = expected[1, 1] = WHITE
    expected[2, 0] = 127  # half of black
    for kind in ("png", "webp"):
        path = saved(tmp_path / f"clear.{kind}", Image.fromarray(clear), lossless=True, exact=True)
        np.testing.assert_array_equal(read_image(path), expected)
    grey = Image.fromarray(np.array([[[0, 0], [0, 255]]], np.uint8), "LA")
    seen = read_image(saved(tmp_path / "grey.png", grey))
    np.testing.assert_array_equal(seen, [[WHITE, BLACK]])


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_a_palette_gives_its_colours_and_one_of_them_may_be_clear(
    tmp_path: Path, kind: str
) -> None:
    indexed = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8), "P")
    indexed.putpalette([*RED, *GREEN, *BLUE])
    path = tmp_path / "indexed.png"
    np.testing.assert_array_equal(
        read_image(saved(path, indexed, format=kind)), [[RED, GREEN], [BLUE, RED]]
    )
    np.testing.assert_array_equal(
        read_image(saved(path, indexed, format=kind, transparency=0)),
        [[WHITE, GREEN], [BLUE, WHITE]],
    )


def test_a_colour_that_a_file_calls_clear_shows_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "rgb.png", Image.fromarray(SEEN), transparency=BLUE)
    assert read_image(path)[1, 0].tolist() == list(WHITE)
    grey = Image.fromarray(np.array([[7, 9]], np.uint8))
    seen = read_image(saved(tmp_path / "grey.png", grey, transparency=7))
    np.testing.assert_array_equal(seen, [[WHITE, (9, 9, 9)]])


def test_cmyk_black_and_white_and_one_bit_become_rgb(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    np.testing.assert_allclose(
        read_image(saved(tmp_path / "cmyk.jpg", ink, quality=100))[8, 8], RED, atol=3
    )
    grey = Image.new("L", (2, 1), 77)
    assert read_image(saved(tmp_path / "grey.bmp", grey)).tolist() == [[[77] * 3] * 2]
    bits = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(read_image(saved(tmp_path / "bits.png", bits)), [[WHITE, BLACK]])


def test_of_an_animation_the_first_frame_is_seen(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    for kind in ("gif", "png", "webp", "tiff"):
        options = {"save_all": True, "append_images": frames[1:], "lossless": True}
        seen = read_image(saved(tmp_path / f"moving.{kind}", frames[0], **options))
        assert (seen == RED).all()


def test_pixels_of_an_8_bit_file_are_as_they_are_in_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(tmp_path / "plain.png", Image.fromarray(pixels), icc_profile=profile)
    seen = read_image(path)
    np.testing.assert_array_equal(seen, pixels)
    assert (seen.dtype, seen.flags.writeable) == (np.uint8, True)


# --- what cannot be read -------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], data: bytes, depth: int = 8, kind: int = 0) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(data, 9))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9460, 20_000])
def test_an_image_that_would_take_all_memory_is_named_before_it_does(
    tmp_path: Path, side: int
) -> None:
    assert side**2 > MOST_PIXELS
    path = tmp_path / "huge.png"
    path.write_bytes(png((side, side), bytes((side // 8 + 1) * side), depth=1))
    with pytest.raises(Problem, match=r"huge\.png' cannot be read \(.*pixels.*\): replace it"):
        read_image(path)


def test_what_is_no_image_is_named_with_its_reason(tmp_path: Path) -> None:
    plain = saved(tmp_path / "x.png", Image.fromarray(SEEN)).read_bytes()
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"A" * (2 << 20)))
    at = plain.find(b"IDAT") - 4
    for name, content, reason in (
        ("page.jpg", b"<html>404</html>", "it is none of PNG, JPEG"),
        ("empty.png", b"", "it is none of PNG, JPEG"),
        ("half.png", plain[:-28], "truncated|broken"),
        ("bomb.png", plain[:at] + text + plain[at:], "too large"),
        # Pillow would run Ghostscript for it.
        ("program.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is none of"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Problem, match=rf"{name}' cannot be read \(.*({reason})"):
            read_image(tmp_path / name)
    with pytest.raises(Problem, match=r"gone\.png' cannot be read \(No such file"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(Problem, match=r"folder\.png' cannot be read"):
        read_image(tmp_path / "folder.png")


def _whole_files() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    files = []
    for kind, mode in (
        *(("PNG", mode) for mode in ("RGBA", "P", "L", "LA", "1")),
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *(("WEBP", mode) for mode in ("RGBA", "RGB")),
        *(("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGBA"), ("TIFF", "L")),
    ):
        file = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(file, kind, exif=exif)
        files.append(file.getvalue())
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(file, "PNG")
    return [*files, file.getvalue()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Pillow warns of much that it then reads
def test_any_bytes_are_an_image_or_a_sentence_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        try:
            assert open_image(path).mode == "RGB"
        except Problem as problem:
            if not str(problem).startswith(f"the image '{path}' cannot be read ("):
                raise AssertionError(content) from problem
            raise

    n_read = [outcomes(read, content, n=100) for content in _whole_files()]
    assert 50 < sum(n_read) < 1200  # of 1,500: both come
