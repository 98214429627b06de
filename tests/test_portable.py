"""A whole session where all is missing that Windows does not have, beside others on the machine."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stream.pipeline.wire.config import read_config
from tests.intruders import KNOWS, PAIRS, intruder, knock
from tests.sessions import (
    ROOT,
    check_accounted,
    finish,
    start,
    trials_of,
    wait_for_decoded,
    wait_for_ledger,
)

pytestmark = pytest.mark.slow

# Python runs it before anything else, in every process of a session. Only modules of this project
# go without: libraries ask for the platform, which is still POSIX.
WITHOUT_POSIX = """
import builtins, os, signal, socket, subprocess, types

OURS = {"hvf_core", "decoder", "index", "stream", "offline_train", "demo", "__main__"}
MISSING = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
kill, rename, load = os.kill, os.rename, builtins.__import__

def without(module, *names):
    rest = types.ModuleType(module.__name__)
    vars(rest).update({name: what for name, what in vars(module).items() if name not in names})
    return rest

PORTABLE = {
    "os": without(
        os, *"nice fork getuid getpgid setsid killpg mkfifo chown uname pwrite".split()
    ),
    "signal": without(signal, *"SIGKILL SIGSTOP SIGCONT SIGHUP SIGUSR1 SIGALRM SIGCHLD".split()),
    "socket": without(socket, "AF_UNIX"),
}

def load_portable(name, globals=None, *rest, **more):
    if (globals or {}).get("__name__", "").partition(".")[0] not in OURS:
        return load(name, globals, *rest, **more)
    if name in MISSING:
        raise ModuleNotFoundError(f"no {name} on Windows")
    return PORTABLE.get(name) or load(name, globals, *rest, **more)

def end(process):
    if process.poll() is None:
        kill(process.pid, 9)  # Windows ends a process at once, and asks it nothing

def move(old, new, **options):
    if os.path.exists(new):
        raise FileExistsError(17, "there already, which Windows does not replace", new)
    rename(old, new, **options)

builtins.__import__, os.rename = load_portable, move
subprocess.Popen.terminate = subprocess.Popen.kill = end
"""


@pytest.fixture
def without_posix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WITHOUT_POSIX)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")


@pytest.mark.usefixtures("without_posix")
def test_a_session_without_posix_decodes_paints_obeys_and_lets_nobody_in(tmp_path, request) -> None:
    folder = tmp_path / "session"
    process = start("--trials", 200, "--soa", 0.4, "--headless", "--out", folder)
    wait_for_decoded(folder, 2)
    endpoints = read_config(folder / "config.json").endpoints
    listener = subprocess.Popen(
        [sys.executable, "-u", "-c", example("bus.md"), folder], stdout=subprocess.PIPE, text=True
    )
    request.addfinalizer(listener.kill)
    strangers = [
        intruder(name, getattr(endpoints, name), knows) for name in PAIRS for knows in KNOWS
    ]
    wait_for_ledger(folder, lambda records: {"painted", "end"} & {r["event"] for r in records})
    for name in PAIRS:
        knock(getattr(endpoints, name))
    wait_for_decoded(folder, len(trials_of(folder, "decoded")) + 2)
    heard = [listener.stdout.readline() for _ in range(3)]  # it may have begun late
    assert tell(folder, "mark", "half time") == "done marked\n"
    assert tell(folder, "finish").startswith("done ")
    done = finish(process)
    listener.terminate()
    listener.communicate(timeout=100)

    assert done.code == 0, done.err
    for stranger in strangers:
        assert not stranger.poll(0)
        stranger.close(0)
    told = check_accounted(folder)
    assert set(told["dropped"]) <= {"paused"}  # what came once it was told to finish
    assert told["painting"]["painted"] >= 1
    assert [record["verb"] for record in trials_of(folder, "control")] == ["mark", "finish"]
    assert all(re.fullmatch(r"\d+ .+ \S+\n", line) for line in heard)
    assert all("Traceback" not in log.read_text("utf-8") for log in (folder / "logs").iterdir())
    assert not Path(endpoints.control.partition("#")[2]).parent.exists()


@pytest.mark.usefixtures("without_posix")
def test_benchmarks_without_posix_run_their_workers_and_refuse_faults_in_a_sentence() -> None:
    program = """
from hvf_core.problem import one_sentence
from stream.bench.processes import workers
from stream.commands.bench import bench
if __name__ == "__main__":
    with workers() as pool:
        print(pool.submit(abs, -7).result(), flush=True)
    for name in ("soak", "faults"):
        try:
            with one_sentence():
                bench([name])
        except SystemExit as end:
            print(end.code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.split() == ["7", "1", "1"], done.stderr
    for sentence in done.stderr.splitlines():
        assert re.fullmatch("faults are signals .* run this benchmark on Linux", sentence)


def example(page: str) -> str:
    """The program in a page of the documentation."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return program


def tell(folder: Path, *words: str) -> str:
    command = [sys.executable, "-c", example("control.md"), str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100).stdout
