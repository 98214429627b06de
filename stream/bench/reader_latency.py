"""How long the reader needs from the last sample that a trial waits for to the trial, at what CPU.

`run_realtime.py bench reader-latency`: one source of EEG and markers on LSL, and in turn three
programs that listen to it: a bare LSL loop-back, the reader, and mne-lsl's EpochsStream where it is
installed. All clocks are LSL's, which is one clock on one machine.

The reader is the real process, started by the real supervisor, with a bundle for 63 channels that
resamples to 250 Hz and keeps 17. This program plays its decoder, its recorder and its results node.
"""

import importlib.util
import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
import zmq
from rich import box
from rich.console import Console
from rich.table import Table

from stream.acquire.lsl import local_clock
from stream.acquire.preprocess import Preprocessing
from stream.acquire.settings import PreprocessSettings
from stream.bench.streams import (
    CHANNELS,
    SOA_S,
    Round,
    RunningSource,
    Source,
    loop_back,
    mne_lsl_epochs,
)
from stream.bench.untrained import untrained_bundle
from stream.pipeline.supervisor import Supervisor
from stream.pipeline.wire.bus import open_socket, receive, send
from stream.pipeline.wire.config import LiveSource, SessionConfig
from stream.pipeline.wire.endpoints import Endpoints
from stream.pipeline.wire.fields import Outcome
from stream.pipeline.wire.frames import unpack
from stream.pipeline.wire.messages import (
    End,
    Message,
    NodeState,
    Settled,
    TrialDropped,
    TrialSlice,
)
from stream.pipeline.wire.nodes import DECODE, READER, RESULTS, node

LOOP_BACK = "raw LSL: push → pull"
CUT = "readable → cut"
RECEIVED = "push → received"
PEER = "mne-lsl: push → epoch"

# What is done to a trial, as in the demo: baseline, resampling, whitening, fewer channels.
_PREPROCESSING = PreprocessSettings(
    channels=CHANNELS, output_channels=CHANNELS[-17:], rate_hz=250.0, tmin_s=0.0, tmax_s=0.996
)
_N_WARM_UP = 3  # trials of each round that are not counted
_ALIVE_S = 0.5
_SILENCE_S = 10.0  # from a reader that reports its stream's health every second
_BUDGET = "budget of readable → cut: p50 0.6 ms, p99 3 ms, at most 15 % of one core"


class Peers:
    """Everything that the reader talks to, except its supervisor."""

    def __init__(self, config: SessionConfig):
        at = config.endpoints
        self._reports = open_socket(zmq.PULL, at.reports, bind=True)
        self._results = open_socket(zmq.PUB, at.results, bind=True)
        self._recording = open_socket(zmq.PULL, at.recording, bind=True)
        self._trials = open_socket(zmq.PULL, at.trials, bind=False)
        self._poller = zmq.Poller()
        for socket in (self._reports, self._recording, self._trials):
            self._poller.register(socket, zmq.POLLIN)
        self._next_alive_s = 0.0
        self._heard_s = local_clock()
        self.reader_pid = 0
        self.dropped: list[TrialDropped] = []
        self.ended = False

    def next_trial(self) -> tuple[TrialSlice, float] | None:
        """The next trial and when it was received; None where none came within a short wait."""
        self._say_alive()
        ready = dict(self._poller.poll(100))
        if ready:
            self._heard_s = local_clock()
        elif local_clock() - self._heard_s > _SILENCE_S:
            raise SystemExit(f"the reader has said nothing for {_SILENCE_S:g} s; it has died")
        trial = None
        if self._trials in ready:
            frame, received_s = self._trials.recv(), local_clock()
            match unpack(frame):
                case TrialSlice(final=True) as last:
                    trial = last, received_s
                    self._settle(last.about.trial, "decoded")
        if self._recording in ready:
            self._recording.recv()
        if self._reports in ready:
            self._take(receive(self._reports))
        return trial

    def close(self) -> None:
        for socket in (self._reports, self._results, self._recording, self._trials):
            socket.close(0)

    def _say_alive(self) -> None:
        if (now_s := local_clock()) < self._next_alive_s:
            return
        self._next_alive_s = now_s + _ALIVE_S
        for name in (DECODE, RESULTS):
            process = f"{name}-benchmark"
            send(self._results, NodeState(node=name, incarnation=process))

    def _take(self, report: Message | None) -> None:
        match report:
            case NodeState():
                self.reader_pid = int(report.incarnation.removeprefix("reader-"))
            case TrialDropped():
                self.dropped.append(report)
                self._settle(report.trial, "dropped")
            case End():
                self.ended = True

    def _settle(self, trial: int, outcome: Outcome) -> None:
        settled = Settled(trial=trial, outcome=outcome, reason="", markers=trial, pending=0)
        send(self._results, settled)


def read_trials(running: RunningSource, bundle: Path, folder: Path, n_trials: int) -> Round:
    """One turn of the reader."""
    folder.mkdir()
    config = SessionConfig(
        session="benchmark",
        folder=folder,
        endpoints=Endpoints.local(),
        source=LiveSource(eeg=running.source.name, markers=f"{running.source.name}-markers"),
        bundle=bundle,
    )
    config.write()
    peers = Peers(config)
    supervisor = Supervisor(config, [node(READER)], None)
    try:
        supervisor.wait_until_ready()
        taken, cpu = _take_trials(peers, n_trials)
        supervisor.command("stop")
        while not peers.ended:
            peers.next_trial()
    finally:
        supervisor.end()
        peers.close()
    if unexpected := [drop for drop in peers.dropped if drop.reason not in ("no_data", "shutdown")]:
        raise SystemExit(f"the reader dropped {len(unexpected)} trials, the first: {unexpected[0]}")
    return Round(_latencies(taken, running), cpu)


def _take_trials(peers: Peers, n_trials: int) -> tuple[list[tuple[TrialSlice, float]], float]:
    """Trials after the warm-up, when they were received, and the reader's CPU meanwhile."""
    taken: list[tuple[TrialSlice, float]] = []
    begin_s = cpu_s = 0.0
    while len(taken) < _N_WARM_UP + n_trials:
        trial = peers.next_trial()
        if trial is None:
            continue
        taken.append(trial)
        if len(taken) == _N_WARM_UP:
            begin_s, cpu_s = local_clock(), _cpu_s(peers.reader_pid)
    cpu = (_cpu_s(peers.reader_pid) - cpu_s) / (local_clock() - begin_s)
    return taken[_N_WARM_UP:], cpu


def _latencies(
    taken: Sequence[tuple[TrialSlice, float]], running: RunningSource
) -> dict[str, np.ndarray]:
    readable_s, cut_s, last_s = (
        np.array([trial.stamps[stage] for trial, _ in taken])
        for stage in ("readable", "cut", "window_end")
    )
    received_s = np.array([moment_s for _, moment_s in taken])
    pushed_s = np.array([running.pushed_at_s(stamp_s) for stamp_s in last_s])
    return {
        CUT: cut_s - readable_s,
        RECEIVED: received_s - pushed_s,
    }


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far, all threads."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def measure(
    source: Source, n_rounds: int, n_trials: int, console: Console
) -> list[dict[str, Round]]:
    """All rounds; in each, every program has one turn. Every second round goes backwards."""
    with tempfile.TemporaryDirectory(prefix="hvf-benchmark-") as name, RunningSource(source) as on:
        folder = Path(name)
        untrained_bundle(folder / "bundle", _PREPROCESSING, dim=8)
        preprocessing = Preprocessing(_PREPROCESSING, {"whitener": np.eye(len(CHANNELS))})
        window = preprocessing.prepare(CHANNELS, source.rate_hz).window
        window_s = (window.first / source.rate_hz, window.last / source.rate_hz)
        turns: dict[str, Callable[[int], Round]] = {
            "raw LSL": lambda _: on.hear(loop_back, LOOP_BACK, n_trials * SOA_S),
            "reader": lambda number: read_trials(
                on, folder / "bundle", folder / f"session-{number}", n_trials
            ),
        }
        if importlib.util.find_spec("mne_lsl") is None:
            console.print("mne-lsl is left out: it is not installed (pip install mne-lsl)")
        else:
            turns["mne-lsl"] = lambda _: on.hear(
                mne_lsl_epochs, PEER, window_s, _N_WARM_UP, n_trials
            )
        rounds = []
        for number in range(n_rounds):
            order = list(turns) if number % 2 == 0 else list(reversed(turns))
            rounds.append({program: turns[program](number) for program in order})
            load = os.getloadavg()[0]
            console.print(f"round {number + 1} of {n_rounds} done, load average {load:.2f}")
        return rounds


def show(rounds: list[dict[str, Round]], title: str, console: Console) -> None:
    """Prints one row per measure: medians over the rounds."""
    out = Table(title=title, caption=_BUDGET, box=box.SIMPLE, min_width=80)
    out.add_column("ms", no_wrap=True)
    for head in ("p50", "p99", "CPU %"):
        out.add_column(head, justify="right")
    for program, first in rounds[0].items():
        cpu = 100 * np.median([turns[program].cpu for turns in rounds])
        for label in first.latency_s:
            each = [np.percentile(turns[program].latency_s[label], [50, 99]) for turns in rounds]
            p50, p99 = 1e3 * np.median(each, axis=0)
            out.add_row(label, f"{p50:.2f}", f"{p99:.2f}", f"{cpu:.1f}")
    console.print(out)


def _use_private_lsl_session(folder: Path) -> None:
    """Keeps the streams on this machine and apart from others; before the first use of LSL."""
    path = folder / "lsl_api.cfg"
    path.write_text(
        # mne-lsl's liblsl, an older one, does not hear multicast of machine scope.
        f"[lab]\nSessionID = hvf-benchmark-{uuid.uuid4()}\nKnownPeers = {{127.0.0.1}}\n"
        "[multicast]\nResolveScope = machine\n"
        "[log]\nlevel = -2\n"
    )
    os.environ["LSLAPICFG"] = str(path)


def main(
    trials: Annotated[int, typer.Option(min=2, help="Trials per program and round.")] = 60,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    rate: Annotated[float, typer.Option(min=250.0, help="Hz, of the EEG.")] = 1000.0,
) -> None:
    """Measures the latency and CPU of the reader next to raw LSL and mne-lsl."""
    console = Console()
    source = Source(f"benchmark-{uuid.uuid4().hex[:8]}", rate)
    with tempfile.TemporaryDirectory(prefix="hvf-lsl-") as folder:
        _use_private_lsl_session(Path(folder))
        load_before = os.getloadavg()[0]
        measured = measure(source, rounds, trials, console)
    title = f"{rate:g} Hz, sample by sample, {rounds} rounds; load {load_before:.2f}"
    show(measured, title, console)


if __name__ == "__main__":
    typer.run(main)
