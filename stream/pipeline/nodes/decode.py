"""The decoder node: slices of trials in, ranked answers out."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import zmq

from decoder.anytime import Anytime, Shares, shares_of
from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle, open_bundle
from decoder.engines.graph import Scored, UnitLength
from decoder.engines.open import Engine, open_engine
from hvf_core.artifact import cache_folder
from hvf_core.problem import Problem
from index.gallery import Gallery, check_space, open_gallery
from index.ranking import Ranker, Ranking
from index.search.flat import refuse_two_builds
from stream.acquire.lsl import local_clock
from stream.pipeline.nodes.node import Lifeline, run_node
from stream.pipeline.wire.bus import open_socket, receive, send
from stream.pipeline.wire.config import DecodingSettings, SessionConfig
from stream.pipeline.wire.mailbox import Outgoing
from stream.pipeline.wire.messages import (
    AnswerRef,
    NodeState,
    Noted,
    Retrieval,
    TrialDropped,
    TrialSlice,
)

_ALIVE_S = 1.0
_WARM_UPS = 20
_NEARLY_S = 0.05  # before a trial's end its head is run once, so that its weights are in the cache
_SCORED_UP_TO = 50_000  # images: on a GPU a larger gallery is FAISS's

Say = Callable[[str, dict], None]
"""Takes a sentence that a person should know, and facts for the summary."""


@dataclass(frozen=True)
class Answer:
    """What is said of a trial, and the embedding that says it, unit-length float32 (dim,)."""

    retrieval: Retrieval
    embedding: np.ndarray


class Decoder:
    """A bundle and a gallery, warm, and the evidence that repeats have left.

    Raises:
        Problem: the bundle or the gallery cannot be used, or they are of different spaces.
    """

    def __init__(self, config: SessionConfig, say: Say):
        refuse_two_builds()
        torch.set_num_threads(1)  # a second thread spins and starves the reader on a small machine
        bundle = open_bundle(config.bundle)
        self._settings, self._manifest = config.decoding, bundle.manifest
        self._gallery = open_gallery(config.gallery)
        check_space(self._gallery, self._manifest.space)
        encoder = load_brain_encoder(bundle)
        self._marks = self._manifest.marks(self._settings.tmax_s)
        shares = shares_of(encoder, self._marks)
        self._anytime = Anytime(shares, encoder.n_channels, self._marks)
        self._engine = _open_engine(self._settings, bundle, shares, self._gallery, say)
        self._ranker = Ranker(self._gallery.embeddings, self._manifest, self._settings.evidence)
        self._top_k = min(config.top_k, len(self._gallery))
        if self._manifest.calibration is None:
            say("the bundle is not calibrated: its probabilities are not to be believed", {})
        for _ in range(_WARM_UPS):
            z, *_ = self._engine(np.ones(shares.rest_shape, np.float32))
            self._ranker.rank(z, None, self._manifest.tmax_s, 1)

    def take(self, part: TrialSlice) -> list[Answer]:
        """Adds a slice, and answers at every time that it reaches and that was asked for.

        Raises:
            Problem: the slice does not fit the bundle, or holds values that are not finite.
        """
        received_s = local_clock()
        trial = part.about.trial
        if not self._anytime.follows(trial, part.first):
            return []  # the reader sends the whole trial again as soon as it knows this decoder
        marks = self._anytime.add(trial, part.about.group, part.first, part.array)
        if part.final:
            self._anytime.check_whole(trial)
        answers = [self._answer(part, mark, received_s) for mark in marks]
        n_left = self._marks[-1] - part.first - part.array.shape[1]
        if n_left == 0:
            if self._settings.evidence == "mean":
                self._anytime.finish(trial)
            else:  # the log-likelihoods are kept, the EEG is not needed again
                self._anytime.forget(trial)
        elif n_left <= _NEARLY_S * self._manifest.rate_hz and not marks:
            self._engine(self._anytime.rest_input(trial, self._marks[-1])[0])
        return answers

    def forget(self, trial: int) -> None:
        """Takes back a trial that the reader dropped while it was going on."""
        self._anytime.forget(trial)

    def _answer(self, part: TrialSlice, mark: int, received_s: float) -> Answer:
        manifest = self._manifest
        tmax_s = manifest.tmin_s + (mark - 1) / manifest.rate_hz
        final = mark == self._marks[-1]
        added = self._settings.evidence == "added"
        known, n_repeats = self._anytime.rest_input(part.about.trial, mark, alone=added)
        z, *scored = self._engine(known)
        embedded_s = local_clock()
        cosines = scored[0] if scored else None
        if added:
            at = (tmax_s, part.about.group, part.about.trial, final)
            ranking = self._ranker.rank_added(z, cosines, *at)
        else:
            ranking = self._ranker.rank(z, cosines, tmax_s, n_repeats)
        searched_s = local_clock()
        stamps = {"received": received_s, "embedded": embedded_s, "searched": searched_s}
        # A copy, as the next answer may be written where the engine wrote this one.
        return Answer(self._retrieval(part, ranking, tmax_s, final, stamps), np.array(z))

    def _retrieval(
        self,
        part: TrialSlice,
        ranking: Ranking,
        tmax_s: float,
        final: bool,
        stamps: dict[str, float],
    ) -> Retrieval:
        best = ranking.rows[: self._top_k].tolist()
        shown = self._gallery.row_of(part.about.stimulus)
        probabilities = ranking.probabilities[: self._top_k].tolist()
        return Retrieval(
            about=part.about,
            answer=AnswerRef(n_repeats=ranking.n_repeats, tmax_s=tmax_s, provisional=not final),
            ids=[self._gallery.ids[row] for row in best],
            labels=[self._gallery.labels[row] for row in best],
            scores=ranking.scores[: self._top_k].tolist(),
            probabilities=probabilities,
            confidence=probabilities[0],
            calibrated=self._manifest.calibration is not None,
            abstain=probabilities[0] < self._settings.min_confidence,
            rank=ranking.rank_of(shown) if shown is not None else 0,
            stamps=dict(part.stamps) | stamps,
        )


def _open_engine(
    settings: DecodingSettings, bundle: Bundle, shares: Shares, gallery: Gallery, say: Say
) -> Engine:
    network = UnitLength(shares.rest)
    if torch.cuda.is_available() and len(gallery) <= _SCORED_UP_TO:
        network = Scored(network, torch.from_numpy(gallery.embeddings))
    engine = open_engine(
        network,
        shares.rest_shape,
        settings.engine,
        precision=settings.precision,
        cache=cache_folder(),
        key=bundle.manifest.files["brain.safetensors"],
        say=lambda sentence: say(sentence, {}),
    )
    facts = {"engine": engine.name, "precision": engine.precision}
    say(f"the engine is {engine.name} in {engine.precision}", facts)
    return engine


def run(config: SessionConfig, lifeline: Lifeline) -> None:
    """Answers trials until it is told to stop."""
    reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False)
    decoder = Decoder(
        config,
        lambda text, facts: send(
            reports, Noted(session=config.session, node="decode", text=text, facts=facts)
        ),
    )
    trials = open_socket(zmq.PULL, config.endpoints.trials, bind=False)
    painter = None
    if config.painting is not None:
        painter = Outgoing(config.endpoints.embeddings, config.painting.refine)
    alive = NodeState(session=config.session, node="decode", incarnation=lifeline.incarnation)
    send(reports, alive)
    lifeline.ready()
    next_alive_s = time.monotonic() + _ALIVE_S
    while lifeline.command() is None:
        message = receive(trials, wait_ms=200)
        if isinstance(message, TrialSlice):
            for outcome in _answers_or_drop(decoder, message):
                if isinstance(outcome, TrialDropped):
                    send(reports, outcome)
                    continue
                send(reports, outcome.retrieval)
                if painter is not None:  # and now that the answer is out
                    painter.offer(outcome.retrieval, outcome.embedding)
        elif isinstance(message, TrialDropped):
            decoder.forget(message.trial)
        if time.monotonic() >= next_alive_s:
            next_alive_s = time.monotonic() + _ALIVE_S
            send(reports, alive)


def _answers_or_drop(decoder: Decoder, part: TrialSlice) -> list[Answer | TrialDropped]:
    try:
        return decoder.take(part)
    except Problem as problem:
        decoder.forget(part.about.trial)
        dropped = {"session": part.about.session, "trial": part.about.trial}
        return [TrialDropped(**dropped, reason="rejected", detail=str(problem))]


if __name__ == "__main__":
    run_node("decode", run)
