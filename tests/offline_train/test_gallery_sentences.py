"""gallery's commands that embed nothing: any id, any letters, and a disk that fails."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from hvf_core.problem import Problem
from index.gallery import Gallery, load_gallery, save_gallery
from index.gallery.sheet import Layout, Tile, legible, sheets
from offline_train.commands.gallery import gallery as app
from offline_train.data.images import pictures_in
from tests.index.test_gallery import gallery_of

IDS = ("caf\u00e9", "one\u2028two", "new\nline", "x" * 300)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    monkeypatch.chdir(tmp_path)
    return save_gallery(Path("g"), replace(gallery_of(len(IDS)), ids=IDS))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, Problem), result.output
    return str(result.exception)


@pytest.mark.usefixtures("made")
def test_a_pattern_matches_either_form_of_unicode() -> None:
    assert run("subset", "g", "--match", "cafe\u0301*", "--out", "some").exit_code == 0
    assert tuple(load_gallery(Path("some")).ids) == IDS[:1]


@pytest.mark.usefixtures("made")
def test_a_file_of_ids_is_parted_at_the_ends_of_its_lines_alone() -> None:
    Path("ids.txt").write_bytes(f"{IDS[1]}\r\n\n{IDS[0]}\n".encode())
    assert run("subset", "g", "--ids", "ids.txt", "--out", "some").exit_code == 0
    assert tuple(load_gallery(Path("some")).ids) == (IDS[1], IDS[0])


@pytest.mark.usefixtures("made")
def test_like_writes_one_line_for_each_image() -> None:
    lines = run("like", "g", IDS[0]).output.splitlines()
    expected = {ascii(id_)[1:-1] for id_ in IDS[1:]}
    assert len(lines) == len(expected)
    assert {line.split()[1] for line in lines} == expected


@pytest.mark.usefixtures("made")
def test_names_that_no_file_has_are_a_sentence() -> None:
    assert "neither an image of the gallery 'g' nor a file" in refusal("like", "g", "y" * 5000)
    Path("d.png").mkdir()
    assert "a contact sheet is a PNG" in refusal("sheet", "g", "--out", "d.png")
    long = "z" * 300
    assert f"{long}.png' cannot be" in refusal("sheet", "g", "--out", f"{long}.png")
    with pytest.raises(Problem, match=r"image 'a\.p\\x00ng' cannot be read \(.*null"):
        pictures_in({"a": Path("a.p\0ng")})


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("remove", "g", IDS[0]), "g/gallery.json"),
        (("compact", "g"), "g/gallery.json"),
        (("sheet", "g", "--out", "s.png"), "s.png"),
    ],
)
def test_a_disk_that_cannot_be_written_is_a_sentence(
    made: Gallery, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], file: str
) -> None:
    def read_only(self: Path, target: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self), None, str(target))

    monkeypatch.setattr(Path, "replace", read_only)
    assert refusal(*command).startswith(
        f"'{file}' cannot be read or written (Read-only file system)"
    )
    assert len(load_gallery(Path("g"))) == len(made)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Gr\u00f6\u00dfe e\u0301", "Gr\u00f6\u00dfe \u00e9"),
        (" two\n lines ", "two lines"),
        ("\u732b x", r"\u732b x"),
        ("rtl\u202e", r"rtl\u202e"),
    ],
)
def test_letters_that_a_font_lacks_are_their_codes(text: str, shown: str) -> None:
    assert legible(text, {*range(32, 127), *map(ord, "\u00f6\u00df\u00e9")}) == shown


def test_other_letters_than_latin_ones_are_drawn() -> None:
    def line(text: str) -> np.ndarray:
        [page] = sheets([Tile(None, (text,))], Layout(px=64))
        return np.asarray(page.convert("L"), int)

    for pair in (("\u03b1", "\u03b2"), ("\u0416", "\u0428"), ("\u00e9", "\u00fc"), ("猫", "犬")):
        assert np.abs(line(pair[0]) - line(pair[1])).max() > 100
