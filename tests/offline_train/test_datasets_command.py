"""`datasets`: what is listed, and what is said of what lies there."""

import shutil
from pathlib import Path

import pytest

from offline_train.data.catalogue import DATA_SETS, faults
from tests.calling import call
from tests.lookalikes import bids, things_eeg2, things_meg


def test_all_are_listed_with_source_size_and_licence(tmp_path: Path) -> None:
    things_eeg2.ubp(tmp_path / "things-eeg2-ubp" / "sub-01")
    (tmp_path / "things-eeg2-nice" / "sub-01").mkdir(parents=True)
    done = call("datasets", "--in", tmp_path, module="offline_train")
    assert done.code == 0, done.err
    for one in DATA_SETS:
        assert f"{one.folder}: {one.about}\n    from {one.source},\n    into '" in done.out
        assert f"    into '{tmp_path / one.folder}'\n" in done.out
    assert "as its source       1 of 10 subjects" in done.out
    assert "things-eeg2-ubp: 1 of 10 subjects are there: 01" in done.out
    assert done.out.splitlines()[-1].endswith(f" prepare {tmp_path / 'things-eeg2-ubp'} ...")


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = call("datasets", "--in", tmp_path / "WRONG", module="offline_train")
    assert done.code == 1
    assert done.one_sentence().startswith(f"there is no folder '{tmp_path / 'WRONG'}'")


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_fits_into_a_terminal_with_every_name_whole(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline_train.commands.options.console._width", columns)
    said = call("datasets", "--in", tmp_path, module="offline_train").out
    table, told, _ = said.split("\n\n")
    rows = table.splitlines()
    assert len(rows) == 1 + len(DATA_SETS)
    for row, one in zip(rows[1:], DATA_SETS, strict=True):
        assert len(row) <= columns
        assert row.split("  ")[0] == one.folder
        assert f" {one.licence} " in row
    words = f"from {DATA_SETS[6].source}, into '{tmp_path / DATA_SETS[6].folder}'".split()
    assert [word for word in words if word not in told.split()] == []
    longest = max(map(len, told.split()))
    assert max(map(len, said.splitlines())) <= max(columns, 8 + longest)
    assert said.splitlines()[-1].endswith(" prepare FOLDER ...")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Alljoined1 of eight subjects."""
    root = bids.nm000133(tmp_path / "nm000133")
    for number in range(2, 9):
        copy = shutil.copytree(root / "sub-01", root / f"sub-{number:02d}")
        for file in [*copy.rglob("sub-01_*")]:
            file.rename(file.with_name(file.name.replace("sub-01", copy.name)))
    return root


def test_a_data_set_is_whole_or_it_is_said_what_is_not(whole: Path) -> None:
    done = call("datasets", "--in", whole.parent, module="offline_train")
    assert "whole" in done.out
    assert list(faults(whole, 8, False)) == []
    files = sorted(whole.rglob("*.bdf"))
    size = files[0].stat().st_size
    files[0].write_bytes(files[0].read_bytes()[:-5000])
    files[1].write_bytes(b"")
    files[2].unlink()
    files[3].write_bytes(b"x" * 900)
    told = list(faults(whole, 9, False))
    assert f"{files[0]}' has {size - 5000} bytes of {size}" in told[1]
    for sentence, start in zip(told, ("'", "'", "'", "'", "8 of 9"), strict=True):
        assert sentence.startswith(start)
    assert "lies beside no recording" in told[0]
    assert "is empty, or a link" in told[2]
    assert "has no header of EDF or BDF" in told[3]


def test_saved_arrays_are_opened_where_that_is_asked_for(tmp_path: Path) -> None:
    things_meg.ubp(tmp_path)
    assert list(faults(tmp_path, 1, True)) == []
    file = tmp_path / "sub-01" / "test.pt"
    file.write_bytes(file.read_bytes()[:-100])
    assert list(faults(tmp_path, 1, False)) == []
    (told,) = faults(tmp_path, 1, True)
    assert "was cut short" in told
    assert list(faults(tmp_path / "none", 1, True)) == ["there are no files of it"]
