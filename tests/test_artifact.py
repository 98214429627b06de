"""Directories that are whole or absent: what full disks, kills and foreign places leave of them."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hvf_core.artifact import (
    refuse_foreign,
    refuse_other_results,
    refuse_unwritable,
    sealed_directory,
    whole_file,
    whole_files,
    write_manifest,
    write_tensors,
)
from hvf_core.problem import Problem
from hvf_core.specs import Frozen
from offline_train.commands.app import app


class Said(Frozen):
    """A manifest."""

    word: str


def make(directory: Path, word: str) -> None:
    with sealed_directory(directory, "it.json") as draft:
        write_manifest(draft / "it.json", Said(word=word))


def word_in(directory: Path) -> str:
    return Said.model_validate_json((directory / "it.json").read_text()).word


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_all_files_of_a_folder_have_the_mode_that_the_umask_gives(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        with sealed_directory(tmp_path / "it", "it.json") as draft:
            write_tensors(draft / "it.safetensors", {"a": np.zeros(3)})
            write_manifest(draft / "it.json", Said(word="new"))
    finally:
        os.umask(before)
    modes = {file.stat().st_mode & 0o777 for file in (tmp_path / "it").iterdir()}
    assert modes == {0o666 & ~umask}


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path) -> None:
    make(tmp_path / "it", "old")

    def fill_disk(draft: Path) -> None:
        (draft / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    full = pytest.raises(Problem, match=r"No space left on device.*make room")
    with full, sealed_directory(tmp_path / "it", "it.json") as draft:
        fill_disk(draft)
    assert word_in(tmp_path / "it") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_what_killed_processes_left_is_taken_away_and_what_they_took_is_back(
    tmp_path: Path,
) -> None:
    for left in (".it.draft-1", ".it.draft-99999999", ".item.draft-1", ".it.old-1"):
        make(tmp_path / left, left)
    with pytest.raises(KeyboardInterrupt), sealed_directory(tmp_path / "it", "it.json"):
        raise KeyboardInterrupt
    assert word_in(tmp_path / "it") == ".it.old-1"  # killed between its two renames
    make(tmp_path / ".it.old-2", "older")
    make(tmp_path / "it", "new")
    assert word_in(tmp_path / "it") == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".item.draft-1", "it"]


def test_a_draft_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    child, parent = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.close(parent[1])  # so that the end of the test, however it ends, ends this process
        with sealed_directory(tmp_path / "it", "it.json") as draft:
            write_manifest(draft / "it.json", Said(word="slow"))
            os.write(child[1], b"!")
            os.read(parent[0], 1)
        os._exit(0)
    os.read(child[0], 1)
    make(tmp_path / "it", "quick")
    there = word_in(tmp_path / "it")
    os.close(parent[1])
    assert there == "quick"
    assert os.waitpid(pid, 0)[1] == 0
    assert word_in(tmp_path / "it") == "slow"
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_places_are_refused_that_are_not_ours_or_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy/mine.txt").write_text("x")
    for place in ("file", "busy"):
        with pytest.raises(Problem, match=r"holds no it\.json"):
            refuse_foreign(tmp_path / place, "it.json")
    for place in ("file/it", "file/a/it"):
        with pytest.raises(Problem, match="cannot be written"):
            refuse_foreign(tmp_path / place, "it.json")
        with pytest.raises(Problem, match="cannot be written"):
            refuse_unwritable(tmp_path / place)
    refuse_unwritable(tmp_path / "busy")
    for place in ("it", "new/folder/it"):
        refuse_foreign(tmp_path / place, "it.json")
    make(tmp_path / "it", "ours")
    refuse_foreign(tmp_path / "it", "it.json")
    shutil.rmtree(tmp_path / "it")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["busy", "file"]


def test_files_are_put_beside_those_that_are_there_all_or_none(tmp_path: Path) -> None:
    refuse_other_results(tmp_path / "new", "it.json")

    def put(word: str, fault: type[BaseException] | None = None) -> None:
        with whole_files(tmp_path / "it") as draft:
            write_manifest(draft / "it.json", Said(word=word))
            if fault is not None:
                raise fault

    put("first")
    put("second")
    (tmp_path / "it/mine.txt").write_text("x")
    with pytest.raises(KeyboardInterrupt):
        put("third", KeyboardInterrupt)
    (tmp_path / "it/.draft-killed").mkdir()
    assert word_in(tmp_path / "it") == "second"
    with whole_files(tmp_path / "it"):
        pass
    assert sorted(path.name for path in (tmp_path / "it").iterdir()) == ["it.json", "mine.txt"]
    refuse_other_results(tmp_path / "it", "it.json", "other.json")
    with pytest.raises(Problem, match=r"holds no other\.json or runs"):
        refuse_other_results(tmp_path / "it", "other.json", "runs")
    (tmp_path / "killed/.draft-killed").mkdir(parents=True)
    refuse_other_results(tmp_path / "killed", "it.json")


@pytest.mark.parametrize(
    "asked",
    [
        "mbp t --labels",
        "prepare no.fif",
        "prepare-test no.fif --bundle b",
        "gallery --bundle b --labels a,b",
        pytest.param(
            "prior --base b --images i --encoders paper-prior", marks=pytest.mark.slow
        ),  # diffusers
        "evaluate --bundle b --gallery g --trials t",
        pytest.param(
            "evaluate-prior --bundle b --prior p --base b --trials t", marks=pytest.mark.slow
        ),
    ],
)
def test_commands_refuse_a_place_before_they_work(tmp_path: Path, asked: str) -> None:
    """All that they name is missing, and would be told next."""
    (tmp_path / "file").write_text("x")
    done = CliRunner().invoke(app, [*asked.split(), "--out", str(tmp_path / "file/out")])
    assert isinstance(done.exception, Problem)
    assert "cannot be written (Not a directory)" in str(done.exception)


@pytest.mark.parametrize(("cache", "told"), [("", "is a file: name a"), ("/x", "cannot be writ")])
def test_a_cache_that_can_be_none_is_told_first(tmp_path: Path, cache: str, told: str) -> None:
    (tmp_path / "file").write_text("x")
    asked = f"mbp t --labels --out {tmp_path / 'out'} --cache {tmp_path / 'file'}{cache}"
    assert told in str(CliRunner().invoke(app, asked.split()).exception)
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_replaced_is_named_and_not_its_draft(tmp_path: Path) -> None:
    (tmp_path / "it.json").mkdir()
    with pytest.raises(IsADirectoryError) as caught, whole_file(tmp_path / "it.json") as draft:
        draft.write_text("x")
    assert caught.value.filename == str(tmp_path / "it.json")
    assert [path.name for path in tmp_path.iterdir()] == ["it.json"]
