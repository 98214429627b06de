"""The decoder node: trials in, ranked answers out."""

import time
from collections import defaultdict

import numpy as np
import torch
import zmq

from decoder.brain_encoders import load_brain_encoder
from decoder.bundle import load_bundle
from decoder.evidence import RepeatMean
from decoder.problem import Problem
from index.gallery import check_space, load_gallery
from index.search import Search, refuse_two_builds
from stream.acquire.lsl import local_clock
from stream.pipeline.bus import open_socket, receive, send
from stream.pipeline.config import SessionConfig
from stream.pipeline.messages import NodeState, Retrieval, TrialDropped, TrialSlice
from stream.pipeline.node import Lifeline, run_node

_ALIVE_S = 1.0
_WARM_UPS = 20


class Decoder:
    """A bundle and a gallery, warm, and the evidence that repeats have left.

    Raises:
        Problem: the bundle or the gallery cannot be used, or they are of different spaces.
    """

    def __init__(self, config: SessionConfig):
        refuse_two_builds()
        torch.set_num_threads(1)  # a second thread spins and starves the reader on a small machine
        bundle = load_bundle(config.bundle)
        self._gallery = load_gallery(config.gallery)
        check_space(self._gallery, bundle.manifest.space)
        self._encoder = load_brain_encoder(bundle)
        self._shape = (len(bundle.manifest.channels), bundle.manifest.n_times)
        self._search = Search(self._gallery.embeddings, k=len(self._gallery))
        self._top_k = min(config.top_k, len(self._gallery))
        self._evidence: defaultdict[str, RepeatMean] = defaultdict(RepeatMean)
        for _ in range(_WARM_UPS):
            self._embed(np.zeros(self._shape, np.float32))

    def answer(self, trial: TrialSlice) -> Retrieval:
        """The gallery ranked by what this trial and earlier repeats of its group show.

        Raises:
            Problem: a trial of another shape, or with values that are not finite.
        """
        if trial.array.shape != self._shape:
            raise Problem(
                f"trial {trial.trial} has shape {trial.array.shape}, the bundle needs {self._shape}"
            )
        received_s = local_clock()
        if not np.isfinite(trial.array).all():
            raise Problem(f"trial {trial.trial} holds values that are not finite")
        evidence = self._evidence[trial.group]
        z = self._embed(evidence.add(trial.trial, trial.array))
        embedded_s = local_clock()
        scores, rows = self._search.search(z)
        searched_s = local_clock()
        shown = self._gallery.row_of(trial.stimulus)
        rank = int(np.flatnonzero(rows[0] == shown)[0]) + 1 if shown is not None else 0
        best = rows[0, : self._top_k].tolist()
        return Retrieval(
            session=trial.session,
            trial=trial.trial,
            stimulus=trial.stimulus,
            group=trial.group,
            n_repeats=evidence.n,
            provisional=False,
            ids=[self._gallery.ids[row] for row in best],
            labels=[self._gallery.labels[row] for row in best],
            scores=scores[0, : self._top_k].tolist(),
            rank=rank,
            onset_s=trial.onset_s,
            stamps=dict(trial.stamps)
            | {"received": received_s, "embedded": embedded_s, "searched": searched_s},
        )

    @torch.inference_mode()
    def _embed(self, eeg: np.ndarray) -> np.ndarray:
        return self._encoder(torch.from_numpy(eeg)[None])[0].numpy()


def run(config: SessionConfig, lifeline: Lifeline) -> None:
    """Answers trials until it is told to stop."""
    decoder = Decoder(config)
    trials = open_socket(zmq.PULL, config.endpoints.trials, bind=False)
    reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False)
    alive = NodeState(config.session, "decode", lifeline.incarnation, "alive")
    send(reports, alive)
    lifeline.ready()
    next_alive_s = time.monotonic() + _ALIVE_S
    while lifeline.command() is None:
        trial = receive(trials, wait_ms=200)
        if trial is not None:
            send(reports, _answer_or_drop(decoder, trial))
        if time.monotonic() >= next_alive_s:
            next_alive_s = time.monotonic() + _ALIVE_S
            send(reports, alive)


def _answer_or_drop(decoder: Decoder, trial: TrialSlice) -> Retrieval | TrialDropped:
    try:
        return decoder.answer(trial)
    except Problem as problem:
        return TrialDropped(trial.session, trial.trial, "rejected", str(problem))


if __name__ == "__main__":
    run_node("decode", run)
