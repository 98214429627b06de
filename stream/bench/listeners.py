"""Who waits for a session's answers outside of it: a subscriber to its bus, and an LSL client."""

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import zmq

from stream.acquire.lsl import GONE, find_stream, local_clock, pylsl
from stream.bench.processes import end_with_parent
from stream.client import Painted, Preview, Retrieval, unpack
from stream.pipeline.wire import messages as wire
from stream.pipeline.wire.bus import open_socket
from stream.pipeline.wire.endpoints import Endpoints

BATCH_S = 1.0
"""From one batch to the next: what is sent more often wakes another process beside the answers."""
_FIND_WAIT_S = 60.0
_HEARD = (wire.Preview, wire.Painted)


@dataclass(frozen=True)
class Answer:
    """An answer to a trial, final or `provisional`, and the moments of its way.

    `moments`, in seconds on the LSL clock: `window_end` (the stamp of the window's last sample),
    `pushed` (its push began), `readable`, `cut`, `taken` (by the decoder), `embedded`, `searched`,
    `published`, `received` (at the subscriber, unpacked); of final ones also `at_lsl` (at the LSL
    client, read), and where it was painted, `preview` and `image` (at the subscriber).
    """

    trial: int
    stimulus: str
    onset_s: float
    n_repeats: int
    tmax_s: float
    provisional: bool
    ids: tuple[str, ...]
    probabilities: tuple[float, ...]
    rank: int
    moments: Mapping[str, float]


def subscribe(endpoints: Endpoints, out: Connection) -> None:
    """The subscriber: plain SUB sockets, and `stream.client` that reads what comes.

    An answer is received when it comes from the decoder, and comes again on `results` once it is in
    the ledger; once more is `twice`. It sends None when it is there, and then what came in batches,
    right after an answer.
    """
    end_with_parent()
    answers: list[Answer] = []
    others: list[tuple[int, str, float]] = []
    sent_s, poller = time.monotonic(), zmq.Poller()
    seen: set[tuple[int, float, bool]] = set()
    booked: set[tuple[int, float, bool]] = set()
    direct = open_socket(zmq.SUB, endpoints.answers, bind=False, hears=(wire.Retrieval,))
    results = open_socket(zmq.SUB, endpoints.results, bind=False, hears=_HEARD)
    with direct, results:
        for socket in (direct, results):
            poller.register(socket, zmq.POLLIN)
        out.send(None)
        while True:
            has_come = dict(poller.poll(int(1e3 * BATCH_S)))
            socket = direct if direct in has_come else results
            message = unpack(socket.recv()) if has_come else None
            received_s = local_clock()
            match message:
                case Retrieval():
                    answer = _answer(message, received_s)
                    key = (answer.trial, answer.tmax_s, answer.provisional)
                    if key not in seen:
                        answers.append(answer)
                    if socket is results and key in booked:
                        others.append((answer.trial, "twice", received_s))
                    seen.add(key)
                    booked |= {key} if socket is results else set()
                case Preview():
                    others.append((message.about.trial, "preview", received_s))
                case Painted():
                    others.append((message.about.trial, "image", received_s))
            if (answers or others) and (not has_come or time.monotonic() > sent_s + BATCH_S):
                for kind, batch in (("answers", answers), ("others", others)):
                    if batch:
                        out.send((kind, batch))
                sent_s, answers, others = time.monotonic(), [], []


def _answer(message: Retrieval, received_s: float) -> Answer:
    about, answer, moments = message.about, message.answer, dict(message.stamps)
    moments["taken"] = moments.pop("received", math.nan)  # the decoder's word for it
    return Answer(
        trial=about.trial,
        stimulus=about.stimulus,
        onset_s=about.onset_s,
        n_repeats=answer.n_repeats,
        tmax_s=answer.tmax_s,
        provisional=answer.provisional,
        ids=tuple(message.ids),
        probabilities=tuple(message.probabilities),
        rank=message.rank,
        moments=moments | {"received": received_s},
    )


def read_lsl(name: str, out: Connection) -> None:
    """The client outside: reads the answers as JSON from their LSL stream."""
    end_with_parent()
    inlet = pylsl.StreamInlet(find_stream(name, _FIND_WAIT_S).info, recover=False)
    inlet.open_stream(_FIND_WAIT_S)
    out.send(None)
    batch: list[tuple[int, str, float]] = []
    sent_s = time.monotonic()
    with suppress(*GONE):
        while True:
            values, _ = inlet.pull_sample(BATCH_S)
            told = json.loads(values[0]) if values else {}
            if told.get("event") == "decoded":
                batch.append((told["trial"], "at_lsl", local_clock()))
            if batch and (not values or time.monotonic() > sent_s + BATCH_S):
                out.send(("others", batch))
                sent_s, batch = time.monotonic(), []
