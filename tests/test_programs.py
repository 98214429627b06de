"""Of every program: its help is light, and Ctrl-C ends it in a line, even while it loads."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from hvf_core.problem import INTERRUPTED
from stream.commands.bench import BENCHES
from tests import forked
from tests.calling import call
from tests.sessions import ROOT, finish, interrupt, start
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
HEAVY = [
    *("torch", "mne", "diffusers", "scipy", "sklearn", "faiss", "pylsl", "matplotlib"),
    *("huggingface_hub", "zmq"),
]

NOBODY = ("--eeg", "nobody", "--markers", "nobody", "--headless")

HELP = """
import sys
from typer.main import get_command
from typer.testing import CliRunner
from {module} import app

names = {names}
for arguments in (["--help"], *(({group}, name, "--help") for name in names)):
    done = CliRunner().invoke(app, [word for word in arguments if word])
    heavy = [name for name in {heavy} if name in sys.modules]
    assert done.exit_code == 0 and not heavy, (arguments, heavy, done.output)
print(*names)
"""

# Sends Ctrl-C when a module is about to be imported, once.
INTERRUPTED_AT = """
import runpy, signal, sys

class CtrlC:
    def find_spec(self, name, *_):
        if name == at:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

_, at, *sys.argv = sys.argv
sys.meta_path.insert(0, CtrlC())
signal.signal(signal.SIGINT, signal.default_int_handler)
run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
run(sys.argv[0], run_name="__main__")
print("went on")
"""

# A callback can raise nothing; imports have such callbacks.
LOST = """
import signal, time, weakref
from hvf_core.problem import one_sentence

class Lock: pass

with one_sentence():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lock = Lock()
    watched = weakref.ref(lock, lambda _: signal.raise_signal(signal.SIGINT))
    del lock
    print("went on", flush=True)
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        pass
"""


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    ("module", "some"),
    [
        ("stream.commands.app", {"demo", "live", "replay", "config"}),
        ("offline_train.commands.app", {"prepare", "mbp", "prior", "evaluate"}),
        ("demo.commands", {"assets", "evaluate", "images"}),
    ],
)
def test_help_of_no_command_loads_what_is_heavy(module: str, some: set[str]) -> None:
    names = "sorted(get_command(app).commands)"
    done = python(HELP.format(module=module, names=names, group="''", heavy=HEAVY))
    assert done.returncode == 0, done.stderr
    assert some <= set(done.stdout.split())


def test_help_of_no_benchmark_loads_what_is_heavy() -> None:
    """But for what carries messages, which most of them do, and which loads in a tenth of a second.

    One process asks them all, so that the first that does is named.
    """
    heavy = [name for name in HEAVY if name not in ("pylsl", "zmq")]
    module, names = "stream.commands.app", list(BENCHES)
    done = python(HELP.format(module=module, names=names, group="'bench'", heavy=heavy))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("at", "command"),
    [
        ("typer", "run_realtime.py"),
        ("pydantic", "run_realtime.py --help"),
        ("pylsl", "run_realtime.py streams"),
        ("rich", "offline_train"),
        ("numpy", "demo --help"),
        ("torch", "offline_train onnx --bundle x --out y"),
    ],
)
def test_ctrl_c_while_a_program_loads_ends_it_in_a_line(at: str, command: str) -> None:
    done = python(INTERRUPTED_AT, at, *command.split())
    assert (done.returncode, done.stderr) == (INTERRUPTED, "interrupted\n")
    assert "went on" not in done.stdout


@pytest.mark.parametrize("command", ["run_realtime.py", "offline_train", "demo"])
def test_ctrl_c_before_a_program_can_say_so_ends_it_without_a_word(command: str) -> None:
    done = python(INTERRUPTED_AT, "hvf_core.problem", command)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("other", ["ImportError", "RuntimeError", "Problem"])
def test_a_ctrl_c_of_which_an_import_makes_another_error_ends_it_in_a_line(other: str) -> None:
    program = f"""
from hvf_core.problem import Problem, one_sentence
with one_sentence():
    try:
        raise ValueError from KeyboardInterrupt()
    except ValueError:
        raise {other}("initialization failed")
"""
    done = python(program)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "interrupted\n")
    bug = python(program.replace("KeyboardInterrupt", "OSError"))
    assert bug.returncode == 1
    assert "initialization failed" in bug.stderr
    also = python(program.replace('failed")', 'failed") from None'))
    assert also.returncode == 1


def test_standard_files_that_are_closed_are_empty_and_nothing_takes_their_place(tmp_path) -> None:
    program = f"""
import os, sys
from hvf_core.problem import one_sentence
with one_sentence():
    with open({str(tmp_path / "file")!r}, "w") as file:
        print("some", flush=True)
        os.write(2, b"more")
        print(repr(sys.stdin.read()), sys.stdout.isatty(), file=file)
"""
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, program]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert (tmp_path / "file").read_text() == "'' False\n"


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_other_signals_end_a_program_in_a_line_and_it_cleans_up(name: str, status: int) -> None:
    program = """
import signal, sys, tempfile
from hvf_core.problem import one_sentence
with one_sentence(), tempfile.TemporaryDirectory() as draft:
    print(draft, flush=True)
    signal.raise_signal(getattr(signal, sys.argv[1]))
    print("went on")
"""
    done = python(program, name)
    assert (done.returncode, done.stderr) == (status, f"ended by {name}\n")
    (draft,) = done.stdout.splitlines()
    assert not Path(draft).exists()


def test_a_signal_that_is_ignored_stays_so() -> None:
    program = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
from hvf_core.problem import asked_to_end, one_sentence
with one_sentence(), asked_to_end() as came:
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGTERM)
    print(*came)
"""
    done = python(program)
    assert (done.returncode, done.stdout) == (0, f"{signal.SIGTERM.value}\n"), done.stderr


SLOWLY = """
import threading, time
start = threading.Thread.start
threading.Thread.start = lambda thread: (start(thread), time.sleep(0.3))
"""


@pytest.mark.parametrize("before", ["", SLOWLY])
def test_a_ctrl_c_that_python_loses_comes_again(before: str) -> None:
    done = python(before + LOST)
    assert (done.stdout, done.stderr) == ("went on\n", "interrupted\n")
    assert done.returncode == INTERRUPTED


def test_signs_that_a_console_lacks_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    program = "from hvf_core.problem import one_sentence\nwith one_sentence(): print('a → b ✓ …')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    assert done.stdout.decode("cp1252").strip() == "a ? b ? …", done.stderr


def test_ctrl_c_while_the_nodes_load_is_not_heard_by_them(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    process = start("live", *NOBODY, "--out", folder, anew=True)
    wait_for_loading(process.pid)
    interrupt(process)
    done = finish(process)
    assert "Traceback" not in done.out + done.err
    assert {log.read_text() for log in (folder / "logs").iterdir()} == {""}
    assert done.code == INTERRUPTED


def test_ctrl_c_wins_over_the_processes_that_hear_it_as_they_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(subprocess.Popen):
        def __init__(self, _, **more: Any):
            signal.raise_signal(signal.SIGINT)
            super().__init__(["sh", "-c", "kill -INT $$"], **more)
            self.wait()

    monkeypatch.setattr(forked, "Popen", Killed)
    done = call("live", *NOBODY, "--out", tmp_path / "session")
    assert (done.code, done.one_sentence()) == (INTERRUPTED, "interrupted")
    assert "the session was ended before it began" in done.out


def test_nodes_end_with_a_session_that_is_killed(tmp_path: Path) -> None:
    process = start("live", *NOBODY, "--out", tmp_path / "session", anew=True)
    nodes = wait_for_loading(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(runs, nodes)))


def runs(pid: int) -> bool:
    """Whether a process does; one that has ended is there until somebody asks after it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_loading(session: int) -> list[int]:
    """Waits until every node of a session, results, record and reader, is in its imports."""
    deadline_s = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline_s
        found = subprocess.run(["pgrep", "-P", str(session)], capture_output=True, text=True)
        nodes = list(map(int, found.stdout.split()))
        if len(nodes) == 3 and all("numpy" in Path(f"/proc/{n}/maps").read_text() for n in nodes):
            return nodes
