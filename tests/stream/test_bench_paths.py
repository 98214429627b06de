"""What is wrong with a path is said before a benchmark measures anything, and nothing stays."""

from contextlib import suppress
from pathlib import Path

import pytest

from hvf_core.problem import Problem
from stream.bench.paths import check_file, given, workplace


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"nowhere/a\.json' cannot be used \(No such file"):
        check_file(tmp_path / "nowhere" / "a.json")
    check_file(None)


def test_what_a_file_holds_stays(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1\n")
    check_file(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_other_faults_are_not_those_of_a_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="else"), given(tmp_path):
        raise ValueError("else")


def test_a_workplace_goes_however_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with suppress(KeyboardInterrupt), workplace("bench-", None) as folder:
        (folder / "a").write_text("")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_kept_stays(tmp_path: Path) -> None:
    with workplace("bench-", tmp_path) as folder:
        (folder / "a").write_text("")
    assert (folder / "a").exists()
    assert folder.parent == tmp_path
    with (
        pytest.raises(Problem, match="nowhere' cannot be used"),
        workplace("b", tmp_path / "nowhere"),
    ):
        pass
