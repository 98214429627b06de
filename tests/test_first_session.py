"""docs/first_session.md from its first command to the last, in an empty folder; but sooner over."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import forked
from tests.calling import ROOT
from tests.sessions import PATIENCE_S, check_accounted

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs/first_session.md").read_text(encoding="utf-8")
SOONER = {
    "--concepts 200": "--concepts 24",
    # Until it is ended, and from the beginning: nothing here waits for a machine that is slow.
    "--soa 1.0 --repeats 4": "--soa 0.3 --on 0.1 --iti 0.1 --repeats 999 --wait 0",
    "--duration 900": "--duration 8",
    "--duration 180": "--duration 8",
    "--base demo/assets": "--base demo/assets --paint-steps 1",
    "--batch-size 64": "--batch-size 64 --epochs 1",
    "PsychoPy --dashboard": "PsychoPy",  # one page will do
    "--dashboard": "--dashboard --no-browser",
}
BESIDE = "# in a terminal of its own"
N_TESTS = 8
"""Pictures to be told apart; the demo would draw 200."""


def commands() -> Iterator[tuple[str, bool]]:
    """Each command of the page, and whether it runs beside those after it."""
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S):
        beside = False
        for line in block.splitlines():
            if line.startswith("#"):
                beside = line == BESIDE
            else:
                yield line, beside
                beside = False


def sooner(command: str) -> str:
    for slow, fast in SOONER.items():
        command = command.replace(slow, fast)
    return command


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds the program, as a clone does, and nothing else."""
    for name in ("demo", "examples", "run_realtime.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="l-") as short:  # for the names of sockets
        (tmp_path / "tmp").symlink_to(short)
        yield tmp_path


def test_each_command_of_the_page_works_and_says_what_may_follow(lab: Path) -> None:
    told = list[str]()
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "300"}
    env["TMPDIR"] = os.path.realpath(lab / "tmp")
    assert all(any(slow in command for command, _ in commands()) for slow in SOONER)

    def begin(command: str, **how: object) -> subprocess.Popen:
        program, *words = shlex.split(sooner(command))
        assert program == "python"
        line = [sys.executable, *words]
        return forked.Popen(line, cwd=lab, env=env, text=True, start_new_session=True, **how)

    with ExitStack() as last:
        terminals = dict[str, subprocess.Popen]()

        def end(program: str) -> None:
            if (before := terminals.pop(program, None)) is not None:
                before.send_signal(signal.SIGINT)
                before.wait(PATIENCE_S)

        last.callback(lambda: [end(program) for program in list(terminals)])
        for command, beside in commands():
            program = command.split()[1]
            if " doctor" in command:
                continue  # tests/test_doctor.py goes through all that it looks at
            if beside:
                end(program)
                terminals[program] = begin(command, stdout=subprocess.DEVNULL)
                continue
            done = begin(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            out, err = done.communicate(timeout=PATIENCE_S)
            name = command.split()[3 if program == "-m" else 2]
            assert done.returncode == 0, f"{command}\n{out}\n{err}"
            told += [f"{name}: {x}" for x in out.splitlines() if x.startswith("next: ")]
            if name == "images":
                for picture in sorted((lab / "lab/pictures/test").iterdir())[N_TESTS:]:
                    picture.unlink()

    way = ("live prepare", "prepare mbp", "mbp gallery", "calibrate adapt", "adapt live")
    for name, onward in map(str.split, (*way, "live export", "export evaluate")):
        found = [line for line in told if line.startswith(f"{name}: ") and f" {onward} " in line]
        assert found, (name, onward, told)
    session = check_accounted(lab / "lab/session")
    assert session["decoded"] > 0
    assert session["simulated"]
    assert session["adapted"]
    assert (lab / "lab/session/report.html").is_file()
    painting = session["painting"]
    assert not painting["failed"]
    # On a machine that is slow all may have come too late.
    assert painting["painted"] + painting["superseded"] + painting["cancelled"]
    bids = lab / "lab/bids"
    assert json.loads((bids / "dataset_description.json").read_text())["BIDSVersion"]
    assert list(bids.glob("sub-01/eeg/*_eeg.vhdr"))
