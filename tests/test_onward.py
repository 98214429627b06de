"""What a command says comes next can be copied, and is a command that there is."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hvf_core.options import STEPS, Step, onward
from stream.commands.common import after_session
from stream.pipeline.wire.config import Endpoints, LiveSource, SessionConfig
from tests.calling import ROOT


def parsed(line: str) -> list[str]:
    """The options of a line, after its program and command, which there must be."""
    from offline_train.commands.app import app as train
    from stream.commands.app import app as live

    _, python, program, name, *words = shlex.split(line)
    assert python == sys.orig_argv[0]  # as it was called: the line runs in its environment
    if program == "-m":
        name, *words = words
    command = typer.main.get_command(train if program == "-m" else live).commands[name]
    command = getattr(command, "commands", {}).get("build", command)  # may be left out
    known = {option for one in command.params for option in one.opts}
    assert [word for word in words if word.startswith("--") and word not in known] == []
    return words


@pytest.mark.parametrize("step", STEPS)
def test_each_is_a_command_with_options_that_it_has(step: Step) -> None:
    parsed(onward(step))


def test_what_is_known_stands_there_as_a_shell_takes_it_and_the_rest_in_capitals() -> None:
    line = onward("live", "--gallery", "a b", bundle="it's here", eeg=None)
    words = parsed(line)
    streams = ["--eeg", "EEG", "--markers", "MARKERS"]
    assert words == [*streams, "--bundle", "it's here", "--gallery", "a b"]


def test_a_python_without_the_packages_is_told_which_one_to_call() -> None:
    bare = [sys.executable, "-S", "-m", "offline_train"]
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert f"'{sys.executable}'" in line
    assert line.endswith("call the Python of its environment instead, as .venv/bin/python")


def test_after_a_session_without_trials_there_is_nothing_to_train_with() -> None:
    config = SessionConfig(
        session="s",
        folder=Path("s"),
        endpoints=Endpoints.local(),
        source=LiveSource(eeg="EEG", markers="m"),
    )
    assert [*after_session(config, {"decoded": 0, "cut": 0})] == []
    (line,) = after_session(config, {"decoded": 0, "cut": 1})
    assert parsed(line) == ["s", "--out", "trials"]
