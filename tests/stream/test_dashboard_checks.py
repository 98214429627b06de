"""What pages are told of checks that come to no end of their own, by processes that stand in."""

from pathlib import Path

import pytest

from stream.dashboard import checks
from stream.dashboard.checks import Checks
from tests.waiting import wait_until

OK = {"section": "s", "state": "ok", "text": "well"}


@pytest.mark.parametrize(
    ("does", "longest_s", "expected"),
    [
        (f"for one in (5, 'null', [1], {{}}, '{{'): print(one)\nprint(json.dumps({OK}))", 60, ""),
        ("sys.exit('it broke')", 60, "ended with code 1 (it broke)"),
        ("sys.stdin.read()", 0.01, "did not end within 0.01 s"),
        (None, 60, "cannot run (no process more)"),
    ],
)
def test_they_are_done_whatever_becomes_of_their_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    does: str | None,
    longest_s: float,
    expected: str,
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError("no process more")

    (tmp_path / "stand_in.py").write_text(f"import json, sys\n{does}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(checks, "_DOCTOR", "stand_in")
    monkeypatch.setattr(checks, "_LONGEST_S", longest_s)
    if does is None:
        monkeypatch.setattr("subprocess.Popen", refuses)
    looked = Checks(tmp_path)
    looked.begin(is_over=False)
    wait_until(lambda: looked.told["state"] == "done")
    (told,) = looked.told["verdicts"]
    assert told == OK if not expected else expected in told["text"]
