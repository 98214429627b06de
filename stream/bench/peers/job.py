"""What a peer is told, and what its subscriber says: a peer is a program that is given a job.

`python -m stream.bench.peers.PEER JOB`: it connects, prints `ready`, and answers until it is ended.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hvf_core.specs import Frozen

READY, SUBSCRIBER = "ready", "subscriber"  # what a program says, the latter with a process id


class Job(Frozen):
    """The work of a peer, in a turn.

    Attributes:
        eeg, markers: names of the streams.
        answers: name of the stream that answers go out on, where they do so over LSL.
        session: folder of a session of ours.
        said: file that whoever has the answers writes them to.
    """

    eeg: str
    markers: str
    answers: str
    session: Path
    channels: tuple[str, ...]
    rate_hz: float
    bundle: Path
    gallery: Path
    said: Path


class Answer(NamedTuple):
    """An answer as a subscriber had it: to a trial of `image`, the best first, with cosines."""

    received_s: float
    image: str
    ids: tuple[str, ...]
    scores: tuple[float, ...]


def message(image: str, ids: Sequence[str], scores: Sequence[float]) -> str:
    """What a peer sends its subscribers."""
    return json.dumps([image, list(ids), [round(float(score), 6) for score in scores]])


def heard(text: str, received_s: float) -> str:
    """The line that a subscriber writes of a message."""
    return f"{json.dumps(received_s)}\t{text}\n"


def answers(said: Path) -> list[Answer]:
    """What a subscriber has written, but for a line that is not whole."""
    lines = said.read_text("utf-8").splitlines(keepends=True) if said.exists() else []
    found = []
    for line in lines:
        if line.endswith("\n"):
            received, _, text = line.partition("\t")
            image, ids, scores = json.loads(text)
            found.append(Answer(float(received), image, tuple(ids), tuple(scores)))
    return found
