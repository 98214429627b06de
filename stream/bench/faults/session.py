"""A live session that meets a fault: its processes, and what is done to them."""

import json
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import psutil
import zmq

from demo.model import ready_model
from demo.settings import ASSETS, PRIOR
from hvf_core.problem import Problem, needed
from hvf_core.specs import Frozen
from stream.acquire.lsl import local_clock
from stream.bench.measured_session import read_whole
from stream.bench.processes import KILL, interrupt, tied
from stream.pipeline.books.ledger import Record, read_ledger
from stream.pipeline.wire.bus import open_socket, receive
from stream.pipeline.wire.endpoints import Endpoints
from stream.pipeline.wire.messages import SessionState

_ROOT = Path(__file__).parents[3]
_CALM_S = 2.0  # of answers before the fault
_START_WAIT_S, _PROCESS_WAIT_S, _REST_S, _END_WAIT_S = 90.0, 15.0, 4.0, 300.0
_END = b'"end"\n'  # of what the source says
N_BESIDE = 10  # trials of a session beside the one that is looked at
_TMP_PATH = 106  # characters, too many for the path of a socket


class Fault(Frozen):
    """A fault, how its session is started, and what is promised of it."""

    name: str
    what: str
    """In words, for the table."""
    steps: tuple[str, ...] = ()
    """What is done once answers come: what `FaultySession.do` takes."""
    arguments: tuple[str, ...] = ()
    out: str = "session"
    n_files: int | None = None
    long_tmp: bool = False
    paints: bool = False
    may_refuse: bool = False
    """The session may also refuse to begin, in a sentence."""
    play_s: float = 4.0
    """How long images are seen after the fault."""
    soa_s: float = 0.3
    within_s: float = 3.0
    """Until answers are on time again; 0: never."""
    back_by: Literal["window_end", "onset"] = "window_end"
    """What of a trial has to come after the fault: all of it where EEG was lost."""
    drops: tuple[str, ...] = ()
    """Reasons for which trials may be dropped."""
    alone: bool = False
    """It cannot come among others in one session."""
    ends_s: float | None = None
    """The fault ends the session, in this time; else the bench does when all was seen."""
    exits: tuple[int, ...] = (130, 1)
    """Statuses with which it may end; 1: something was lost, and told."""
    leaves: tuple[str, ...] = ("summary.json", "report.html")
    """In the session's folder; nothing: the fault takes the books."""

    @property
    def steps_s(self) -> float:
        """From the first step to the last."""
        return sum(float(step.split()[1]) for step in self.steps if step.startswith("wait "))


def refuse_elsewhere() -> None:
    """Raises: Problem: this system cannot be asked for the faults."""
    if not (hasattr(signal, "SIGSTOP") and hasattr(psutil, "RLIMIT_NOFILE")):
        raise Problem(
            "faults are signals to processes and limits set to them from outside, which "
            f"{platform.system()} does not have: run this benchmark on Linux"
        )


class FaultySession:
    """A session and the source of its streams, for the length of a `with`.

    Attributes:
        folder: of the session.
        tmp: its temporary folder.
        fault_s, over_s: when the fault came and when all processes had ended, on the LSL clock.
        met: where in the ledger the fault is: what came later the bench has done.
        failure: why the fault could not be put in.
    """

    def __init__(self, fault: Fault, base: Path):
        self.fault, self.base, self.folder = fault, base, base / fault.out
        self.tmp = base / ("t" * (_TMP_PATH - 1 - len(str(base))) if fault.long_tmp else "tmp")
        self.tmp.mkdir()
        self.fault_s = self.over_s = float("inf")
        self.met, self.failure = slice(0, None), ""
        self._found: dict[str, psutil.Process] = {}
        self._spinning: list[subprocess.Popen[bytes]] = []
        name = f"fault-{fault.name}-{os.getpid()}"
        n = round((_CALM_S + fault.play_s) / fault.soa_s)
        source = ("-m", "stream.bench.faults.source", name, n, fault.soa_s)
        self.source = self._start("source", source, by=KILL, stdin=subprocess.PIPE)
        session = ["run_realtime.py", "live", "--headless", "--out", self.folder, "--wait", 60]
        session += ["--eeg", name, "--markers", f"{name}-markers", "--bundle", ready_model().bundle]
        session += ["--paint", PRIOR, "--base", ASSETS] * fault.paints
        session += [base / word if word.endswith(".npz") else word for word in fault.arguments]
        self.session = self._start("session", session)
        if fault.n_files is not None:
            limits = (fault.n_files, fault.n_files)
            psutil.Process(self.session.pid).rlimit(psutil.RLIMIT_NOFILE, limits)

    def __enter__(self) -> "FaultySession":
        return self

    def __exit__(self, *_: object) -> None:
        for process in [self.source, *self._spinning]:
            process.kill()
        for node in self.left():
            node.kill()

    def run(self) -> bool:
        """Runs the session to its end; False if it did not begin."""
        if not self.begin():
            self.wait_for_end()
            return False
        self.met, self.fault_s = slice(len(self.records()), None), local_clock()
        self.failure = self.put_in(self.fault)
        if self.fault.ends_s is None:
            self._wait(self._has_shown_all, 90.0)
            self._wait(lambda: not self._n_open(), _REST_S)
            self.met = slice(self.met.start, len(self.records()))
            self.end()
        self.wait_for_end()
        return True

    def begin(self) -> bool:
        """Shows images until they are answered; False if the session did not begin."""
        if not self._is_running():
            return False
        self.do("tell go")
        self._wait(lambda: any(r["event"] == "decoded" for r in self.records()), _START_WAIT_S)
        time.sleep(_CALM_S)
        return True

    def put_in(self, fault: Fault) -> str:
        """Does the steps of a fault; why they could not be done, if so."""
        try:
            for step in fault.steps:
                self.do(step)
        except (LookupError, psutil.NoSuchProcess) as error:
            return str(error)
        return ""

    def end(self) -> None:
        """Ends the session as Ctrl-C does, unless it has ended."""
        if self.session.poll() is None:
            interrupt(self.session)

    def wait_for_end(self) -> None:
        """Waits until all its processes are gone, but not for ever."""
        deadline_s = time.monotonic() + _END_WAIT_S
        while self.over_s == float("inf") and time.monotonic() < deadline_s:
            if self.session.poll() is not None and not self.left():
                self.over_s = local_clock()
            time.sleep(0.05)

    def said(self, log: str) -> list[str]:
        """Lines that `source` or `session` has written to `.out` or `.err`."""
        text = (self.base / log).read_text(encoding="utf-8", errors="replace")
        return text.replace(str(self.base), "…").splitlines()

    def sent_s(self) -> list[float]:
        """Stamps of the markers that the source has sent."""
        return [json.loads(s)["stamp_s"] for s in self.said("source.out") if s.startswith("{")]

    def records(self) -> list[Record]:
        """The ledger as it is."""
        path = self.folder / "ledger.jsonl"
        return read_ledger(path) if path.exists() else []

    def left(self) -> list[psutil.Process]:
        """Processes of the session that live."""
        return [p for p in psutil.process_iter() if str(self.folder) in _command_line(p)]

    def do(self, step: str) -> None:
        """`wait S`, a signal and whom to send it, something to tell the source, or as below."""
        match step.split():
            case ["wait", seconds]:
                time.sleep(float(seconds))
            case ["tell", *_]:
                assert self.source.stdin is not None
                self.source.stdin.write(step.removeprefix("tell ").encode() + b"\n")
                self.source.stdin.flush()
            case ["limit", who, "FSIZE"]:  # no file grows longer than the ledger is
                size = (self.folder / "ledger.jsonl").stat().st_size
                self._process(who).rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))
            case ["limit", who, "AS"]:
                size = self._process(who).memory_info().vms
                self._process(who).rlimit(psutil.RLIMIT_AS, (size, psutil.RLIM_INFINITY))
            case ["frame", name]:
                is_line = name == "control"
                kind = zmq.DEALER if is_line else zmq.PUSH
                with open_socket(kind, getattr(self._endpoints(), name), bind=False) as socket:
                    socket.send_multipart([b"nobody", b"beat", b""] if is_line else [b"\x07x"])
            case ["remove", "folder"]:
                shutil.rmtree(self.folder)
            case ["remove", "sockets"]:
                for folder in self.tmp.glob("hvf-*"):
                    shutil.rmtree(folder)
            case ["beside"]:  # another session, at the same time
                demo = ["run_realtime.py", "--no-paint", "--headless", "--trials", N_BESIDE]
                demo += ["--repeats", 1, "--out", self.base / "beside"]
                self._start("beside", demo).wait(_END_WAIT_S)
            case ["spin"]:
                spin = tied("-c", "while True: pass")
                self._spinning = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
            case ["rest"]:
                for process in self._spinning:
                    process.kill()
                    process.wait()
            case ["finish"]:
                self.wait_for_end()
                self._start("session", ["run_realtime.py", "finish", self.folder]).wait(_END_WAIT_S)
            case [word, "all"]:
                os.killpg(self.session.pid, getattr(signal, f"SIG{word}"))
            case ["CONT", who]:  # the one that was stopped, unless it was killed meanwhile
                if self._found[who].is_running():
                    self._found[who].resume()
            case [word, who]:
                self._process(who).send_signal(getattr(signal, f"SIG{word}"))

    def _is_running(self) -> bool:
        if not self._wait(self._endpoints, _START_WAIT_S):
            return False
        endpoint = needed(self._endpoints()).results
        with open_socket(zmq.SUB, endpoint, bind=False, hears=(SessionState,)) as heard:
            return self._wait(
                lambda: getattr(receive(heard, 50), "state", None) == "running", _START_WAIT_S
            )

    def _endpoints(self) -> Endpoints | None:
        config = read_whole(self.folder)
        return config.endpoints if config else None

    def _has_shown_all(self) -> bool:
        said = (self.base / "source.out").read_bytes()[-len(_END) :]
        return self.source.poll() is not None or said == _END

    def _n_open(self) -> int:
        events = [record["event"] for record in self.records() if "trial" in record]
        return 2 * events.count("marker") - len(events)

    def _start(
        self, log: str, command: Sequence[Any], by: signal.Signals = signal.SIGTERM, **more: Any
    ) -> subprocess.Popen[bytes]:
        """Starts a program in Python; `by` ends what may stand still when the bench is killed."""
        with (
            (self.base / f"{log}.out").open("ab") as out,
            (self.base / f"{log}.err").open("ab") as err,
        ):
            return subprocess.Popen(
                tied(*command, by=by),
                cwd=_ROOT,
                env=os.environ | {"TMPDIR": str(self.tmp), "COLUMNS": "400"},
                stdout=out,
                stderr=err,
                start_new_session=True,  # Ctrl-C is for the bench
                **more,
            )

    def _wait(self, holds: Callable[[], object], patience_s: float) -> bool:
        """Waits until something holds; False where the session or patience ends before."""
        deadline_s = time.monotonic() + patience_s
        while not holds():
            if self.session.poll() is not None or time.monotonic() > deadline_s:
                return False
            time.sleep(0.02)
        return True

    def _process(self, who: str) -> psutil.Process:
        """The process of a node, which may be about to start, of the session or of the source."""
        own = {"source": self.source.pid, "session": self.session.pid}
        found = [psutil.Process(own[who])] if who in own else []

        def look() -> list[psutil.Process]:
            of_node = f"stream.pipeline.nodes.{who} "
            found.extend(one for one in self.left() if of_node in _command_line(one))
            return found

        if not found and not self._wait(look, _PROCESS_WAIT_S):
            raise LookupError(f"there was no {who} to be found")
        self._found[who] = found[0]
        return found[0]


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
