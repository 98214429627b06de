"""Turns: peers answer a recording under a condition, one alone or all beside each other."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from decoder.bundle import load_bundle
from demo.head import CHANNELS
from demo.model import DemoModel
from demo.stimuli import Stimulus
from hvf_core.problem import Problem
from index.gallery import open_gallery
from stream.acquire.preprocess import Preprocessing
from stream.bench.peers.conditions import CONDITIONS, Condition, Plan, plan
from stream.bench.peers.job import Job
from stream.bench.peers.judge import Truth, Verdict, back_after_s, judge
from stream.bench.peers.peers import Peer, RunningPeer
from stream.bench.peers.source import Streams, TurnSource, recorded

_SETTLE_S = 3.0  # from ready to the first marker: some connect, and learn of clocks, in a thread
_GRACE_S = 2.0  # for answers that are under way


@dataclass(frozen=True)
class Turn:
    """What came of a peer's turn; `cannot` says why it did not take part, where it did not."""

    verdicts: Sequence[Verdict] = ()
    cpu: float = 0.0
    back_s: float = float("nan")
    cannot: str = ""


@dataclass(frozen=True)
class World:
    """The streams, and the model and its truth about them."""

    streams: Streams
    model: DemoModel
    truth: Truth
    codes: Path
    """The table of markers' codes, as a session of ours takes it."""

    def job(self, condition: Condition, folder: Path) -> Job:
        name = self.streams.name
        return Job(
            eeg=name,
            markers=f"{name}-{'events' if condition.marks == 'codes' else 'markers'}",
            answers=f"{name}-answers-{folder.name}",
            session=folder / "session",
            channels=self.streams.channels,
            rate_hz=self.streams.rate_hz,
            bundle=self.model.bundle,
            gallery=self.model.gallery,
            said=folder / "said",
        )


def make_world(
    name: str,
    model: DemoModel,
    shown: Sequence[Stimulus],
    soa_s: float,
    rate_hz: float,
    folder: Path,
) -> World:
    """The demo's subject, who sees these; `folder` is for files of it."""
    samples = recorded(shown, soa_s, rate_hz)
    onsets = plan(CONDITIONS["clean"], 0, len(shown), soa_s, rate_hz, 0).onsets
    ids = open_gallery(model.gallery).ids
    codes = folder / "codes.csv"
    lines = [f"{code},{id_}" for code, id_ in enumerate(ids, 1)]
    codes.write_text("\n".join(["code,id", *lines]) + "\n", encoding="utf-8")
    names = tuple(one.id for one in shown)
    numbers = tuple(ids.index(one) + 1 for one in names)
    streams = Streams(name, CHANNELS, rate_hz, samples, numbers, names)
    return World(streams, model, truth_of(streams, model, onsets), codes)


def truth_of(streams: Streams, model: DemoModel, onsets: Sequence[int]) -> Truth:
    """What each trial is answered by offline; onsets are rows of the recording."""
    from stream.bench.peers.lab import Lab  # here: torch, FAISS and SciPy take seconds

    gallery = open_gallery(model.gallery)
    transform = Preprocessing.of(load_bundle(model.bundle)).prepare(
        streams.channels, streams.rate_hz
    )
    lab = Lab(model.bundle, model.gallery, streams.channels, streams.rate_hz)
    own, first = transform.window, -lab.n_before

    def at(onset: int) -> list[np.ndarray]:
        rows = streams.samples[onset + own.first : onset + own.last + 1]
        epoch = streams.samples[onset + first : onset + first + lab.n_times].T
        return [transform(rows), lab.prepared(epoch)]

    prepared = [[one for shift in (0, -1, 1) for one in at(onset + shift)] for onset in onsets]
    z = np.array([[lab.embedding(one) for one in of_trial] for of_trial in prepared])
    return Truth(
        images=streams.names,
        ids=tuple(gallery.ids),
        cosines=z @ gallery.embeddings.T,
        first=min(first, own.first),
        last=first + lab.n_times - 1,
    )


def _hear_out(running: Sequence[RunningPeer], n_trials: int) -> None:
    """Waits while answers still come, as where the machine is busy, unless all are there."""
    n, n_before = sum(len(one.answers()) for one in running), -1
    while n_before < n < n_trials * len(running):
        time.sleep(_GRACE_S)
        n, n_before = sum(len(one.answers()) for one in running), n


def take_turn(
    world: World,
    source: TurnSource,
    peers: Mapping[str, Peer],
    condition: Condition,
    plan: Plan,
    folder: Path,
) -> dict[str, Turn]:
    """A turn of one peer, or of several beside each other, in a new folder."""
    turns, running = dict[str, Turn](), dict[str, RunningPeer]()
    options = ("--codes", str(world.codes)) if condition.marks == "codes" else ()
    with ExitStack() as stack:
        for name, peer in peers.items():
            (own := folder / name).mkdir(parents=True)
            one = RunningPeer(peer, world.job(condition, own), own, options)
            running[name] = stack.enter_context(one)
        for name, one in list(running.items()):
            try:
                one.wait_until_ready()
            except Problem as problem:
                turns[name] = Turn(cannot=str(problem))
                del running[name]
        if not running:
            return turns
        time.sleep(_SETTLE_S)
        before_s = {name: one.cpu_s() for name, one in running.items()}
        begin_s = time.monotonic()
        played = source.play(condition, plan)
        time.sleep(_GRACE_S)
        span_s = time.monotonic() - begin_s
        used_s = {name: one.cpu_s() - before_s[name] for name, one in running.items()}
        _hear_out([*running.values()], len(plan.onsets))
        for name, one in running.items():
            verdicts = judge(played, one.answers(), world.truth)
            turns[name] = Turn(
                verdicts=verdicts,
                cpu=used_s[name] / span_s,
                back_s=back_after_s(played, verdicts, world.streams.rate_hz),
                cannot="" if any(one.n_answers for one in verdicts) else one.last_words(),
            )
    return turns
