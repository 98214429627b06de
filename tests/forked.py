"""Processes of sessions that begin with everything imported: copies of one that has done it.

A session is four to six processes, and their imports take far longer than what a test has them do.
On Linux they are therefore copies, in tests, of a process without threads, which all workers
share: `Popen` asks it for one. So are commands of training, examples, and the workers themselves,
each of which would import all that all tests need. A copy has its own
number, command line, group, environment and files, runs its program from the first line to the
last, and ends once what Python does at an end is done, but for taking apart what it never touched.
What a test has Python run before every program, a `sitecustomize.py`, runs in a copy before the
modules of this project, which are imported anew. Elsewhere programs are started as in life; so are
those of `anew`.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from execnet.gateway_io import popen_bootstrapline

from stream import client
from tests.waiting import wait_until

SESSION = "run_realtime.py"
_ROOT = Path(__file__).parents[1]
_PROGRAMS = (
    *("tests.outlet", "stream.sources.replay", "demo.live_subject", "stream.bench.faults.source"),
    *("stream.pipeline.nodes.reader", "stream.pipeline.nodes.results"),
    *("stream.pipeline.nodes.record", "stream.pipeline.nodes.decode"),
    "stream.pipeline.nodes.paint",
)
# What they import as they run.
_LATER = (
    *("stream.commands.app", "stream.commands.demo", "stream.commands.live"),
    *("stream.commands.replay", "stream.pipeline.session", "demo.commands"),
    *("demo.model", "decoder.engines.onnx_engines", "faiss", "mne", "onnx", "onnxruntime", "pyxdf"),
    *("offline_train.commands.app", "stream.pipeline.nodes.painter"),
    # What tests import, but for what begins threads.
    *("accelerate", "hypothesis", "matplotlib.pyplot", "open_clip", "playwright.sync_api"),
    *("scipy.signal", "scipy.stats", "skimage.metrics", "starlette.testclient", "timm"),
)
_WORKER = ["-u", "-c", popen_bootstrapline]
_PACKAGES = ("demo", "offline_train", "moods")
"""Whose programs are known, too; of the last one a test writes them."""
_CAN_COPY = sys.platform == "linux" and hasattr(os, "pidfd_open")
_ROOMS = ("hvf_core", "decoder", "index", "stream", "demo", "offline_train")
_OF_A_TEST = ("PYTHONPATH", "PYTHONIOENCODING")  # what is copied is of all
_LONGEST = 8192  # bytes of a command line
_HIGH = 500  # from this file descriptor on there is room
_ASKED = signature(subprocess.Popen._execute_child)
_PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


@dataclass(frozen=True)
class _Wanted:
    """A program, and what it is given beside its files."""

    args: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    passed: Sequence[int]
    """The numbers of the files that it is passed, after its standard ones."""
    leads_session: bool
    group: int
    """-1 for that of whom it is copied from."""


class Popen(subprocess.Popen):
    """A `subprocess.Popen` that asks for a copy where it is a program of a session."""

    line: socket.socket | None = None
    """To the process that makes copies for this one, and ends with it."""
    place, owner = Path(tempfile.gettempdir()), os.getpid()
    """A folder of all workers, and the process that has started them."""
    _told: int | None = None
    """The file that says which process the copy is, and how it ended."""

    def _execute_child(self, *given: Any) -> None:
        asked = _ASKED.bind(self, *given).arguments
        env = os.environ if asked["env"] is None else asked["env"]
        args = _untied(asked["args"])
        if not _can_be_copied(args):
            super()._execute_child(*given)
            return
        wanted = _Wanted(
            args=args,
            cwd=str(asked["cwd"] or Path.cwd()),
            env=dict(env),
            passed=list(asked["pass_fds"]),
            leads_session=asked["start_new_session"],
            group=asked["process_group"],
        )
        ends = (asked["p2cread"], asked["c2pwrite"], asked["errwrite"])
        standard = [own if end == -1 else end for own, end in enumerate(ends)]
        self._told, tell = os.pipe()
        files = [*standard, *wanted.passed, tell]
        socket.send_fds(_line(), [json.dumps(asdict(wanted)).encode()], files)
        os.close(tell)
        self._close_pipe_fds(*(asked[pipe] for pipe in _PIPES))
        (self.pid,) = struct.unpack("i", os.read(self._told, 4))
        self._child_created = True

    def _internal_poll(self, _deadstate: int | None = None, **more: Any) -> int | None:
        if self._told is not None:
            more["_waitpid"] = self._waited
        return super()._internal_poll(_deadstate, **more)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._told is None:
            return super()._try_wait(wait_flags)
        return self._waited(self.pid, wait_flags)

    def _waited(self, pid: int, flags: int) -> tuple[int, int]:
        """What `os.waitpid` says to a parent."""
        end = select.poll()
        end.register(self._told, select.POLLIN)
        if flags & os.WNOHANG and not end.poll(0):
            return 0, 0
        (status,) = struct.unpack("i", os.read(self._told, 4))
        os.close(self._told)
        return pid, status


def _untied(args: Sequence[Any]) -> list[str]:
    """The command line that a benchmark has tied to itself by `tied`, or any other."""
    python, *words = map(str, args)
    return [python, *(words[4:] if words[:2] == ["-m", "stream.bench.processes"] else words)]


def _can_be_copied(args: Sequence[str]) -> bool:
    python, *words = args
    if words == _WORKER:
        is_known = True
    elif words[:1] == ["-m"]:
        is_known = words[1] in _PROGRAMS or words[1].partition(".")[0] in _PACKAGES
    else:
        is_known = "".join(words[:1]).startswith((SESSION, "examples/"))
    return _CAN_COPY and is_known and python == sys.executable


def _site(env: Mapping[str, str]) -> Path:
    """What a test has Python run first, if it does."""
    return Path(env.get("PYTHONPATH", ""), "sitecustomize.py")


def _line() -> socket.socket:
    """To the process that is copied for this one; the first worker that asks starts that of all."""
    if Popen.line is None:
        kind = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
        address, line = str(Popen.place / "copies"), socket.socket(*kind)
        with suppress(OSError), socket.socket(*kind) as door:
            door.bind(address)  # which another worker may have been the first to do
            door.listen()
            _start_what_is_copied(door.fileno())
        wait_until(lambda: line.connect_ex(address) == 0)  # it may be about to listen
        Popen.line = line
    return Popen.line


def _start_what_is_copied(door: int) -> None:
    words = map(str, (door, Popen.owner, _LONGEST * "-"))
    env = {name: value for name, value in os.environ.items() if name not in _OF_A_TEST}
    more: Any = {"pass_fds": [door], "start_new_session": True}
    subprocess.Popen([sys.executable, "-m", "tests.forked", *words], cwd=_ROOT, env=env, **more)


def _import_all() -> None:
    """Imports what sessions do; the programs themselves are run, not imported."""
    for name in (*_PROGRAMS, *_LATER):
        importlib.import_module(name)
    for name in _PROGRAMS:
        room, _, program = name.rpartition(".")
        del sys.modules[name]
        delattr(sys.modules[room], program)
    tempfile.tempdir = None
    assert len(os.listdir("/proc/self/task")) == 1, "what has threads cannot be copied"
    gc.collect()
    gc.freeze()


def _become_what_is_wanted(line: socket.socket) -> _Wanted:
    """Makes copies until nobody can ask for one; returns in each, as what it is to be."""
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    wanted, files = _copy(line)
    if wanted.group not in (None, -1):
        os.setpgid(0, wanted.group)
    if wanted.leads_session:  # and starts processes
        os.setsid()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:  # this one is still as it was
            os.setpgid(0, 0)
            os.dup2(theirs.detach(), 3)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            mine.detach()
            return _become_what_is_wanted(socket.socket(fileno=3))
        theirs.close()
        Popen.line = socket.socket(fileno=fcntl(mine.fileno(), F_DUPFD_CLOEXEC, _HIGH))
        mine.close()
    line.detach()
    *given, tell = (fcntl(file, F_DUPFD_CLOEXEC, _HIGH) for file in files)
    os.closerange(3, _HIGH)
    for file, number in zip(given, (0, 1, 2, *wanted.passed), strict=True):
        os.dup2(file, number)
        os.close(file)
    is_other = _site(wanted.env).exists()
    if is_other:
        for name in [name for name in sys.modules if name.partition(".")[0] in _ROOMS]:
            del sys.modules[name]
    os.chdir(wanted.cwd)
    sys.path[1:1] = filter(None, wanted.env.get("PYTHONPATH", "").split(os.pathsep))
    os.environ.clear()
    os.environ.update(wanted.env)
    client.PLACE = Path(tempfile.gettempdir()) / client.PLACE.name  # was looked up in imports
    _say_on_the_command_line(wanted.args)
    os.write(tell, struct.pack("i", os.getpid()))
    os.close(tell)
    if is_other:
        exec(_site(wanted.env).read_text(), {"__name__": "sitecustomize"})
    return wanted


def _copy(line: socket.socket) -> tuple[_Wanted, list[int]]:
    """Copies this process whenever it is asked to, and says how each copy ended."""
    lives: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([line, *lives], [], [])[0]:
            if ready is line:
                text, files, _, _ = socket.recv_fds(line, 1 << 20, 64)
                if not text:
                    os._exit(0)
                if (pid := os.fork()) == 0:
                    return _Wanted(**json.loads(text)), files
                for file in files[:-1]:
                    os.close(file)
                lives[os.pidfd_open(pid)] = pid, files[-1]
            else:
                pid, tell = lives.pop(ready)
                with suppress(BrokenPipeError):  # who asked has ended first
                    os.write(tell, struct.pack("i", os.waitpid(pid, 0)[1]))
                os.close(tell)
                os.close(ready)


def _say_on_the_command_line(args: Sequence[str]) -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = map(int, fields[45:47])
    line = "\0".join(args).encode()[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, line, len(line))


def _run(wanted: _Wanted) -> None:
    """Runs the program as Python would."""
    encoding, _, errors = wanted.env.get("PYTHONIOENCODING", "utf-8").partition(":")
    how: dict[str, Any] = {"encoding": encoding, "closefd": False}
    told = {"errors": errors or None}
    sys.stdin = sys.__stdin__ = open(0, **told, **how)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", **told, **how)  # noqa: SIM115
    told = {"errors": "backslashreplace"}
    sys.stderr = sys.__stderr__ = open(2, "w", 1, **told, **how)  # noqa: SIM115
    if Popen.line is not None:
        subprocess.Popen = Popen
    if wanted.args[1:] == _WORKER:
        sys.argv = ["-c"]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(popen_bootstrapline, vars(main))
    elif wanted.args[1] == "-m":
        sys.argv = list(wanted.args[2:])
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(wanted.args[1:])
        runpy.run_path(sys.argv[0], run_name="__main__")


def _run_to_the_end(wanted: _Wanted) -> None:
    code: Any = 0
    try:
        _run(wanted)
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()
    for _ in range(20):  # as Python needs to end: ZeroMQ sends what it was given last, if it runs
        time.sleep(0.01)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


def _line_of_a_worker(door: socket.socket, owner: int) -> socket.socket:
    """Makes a process for each worker that comes; returns in each of them."""
    while owner not in select.select([door, owner], [], [])[0]:
        line, _ = door.accept()
        if os.fork() == 0:
            door.close()
            os.close(owner)
            return line
        line.close()
    os._exit(0)


if __name__ == "__main__":
    _import_all()
    door, owner = socket.socket(fileno=int(sys.argv[1])), os.pidfd_open(int(sys.argv[2]))
    _run_to_the_end(_become_what_is_wanted(_line_of_a_worker(door, owner)))
