"""The decoder node: slices of trials in, ranked answers out."""

import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import numpy as np
import torch
import zmq

from decoder.answer import Answer
from decoder.bundle import open_bundle
from decoder.live import LiveDecoder, Slice
from hvf_core.problem import Problem, needed
from hvf_core.swift import Aside, Sweeper, keep_awake, may_spin
from index.gallery import Gallery
from index.search.flat import refuse_two_builds
from index.search.kinds import MILVUS
from stream.acquire.lsl import local_clock
from stream.acquire.markers import evidence_group
from stream.pipeline.decoding import Prepared, Say, look_up_in, open_decoder, prepare
from stream.pipeline.galleries import NICENESS, let_go, open_accepted
from stream.pipeline.memory import Learnt, Memory
from stream.pipeline.nodes.node import Lifeline, run_node
from stream.pipeline.outputs.blind import leaving
from stream.pipeline.wire.bus import Listener, Publisher, open_socket, send
from stream.pipeline.wire.config import LiveSource, SessionConfig
from stream.pipeline.wire.frames import pack, unpack
from stream.pipeline.wire.keys import lab_endpoint
from stream.pipeline.wire.mailbox import Outgoing
from stream.pipeline.wire.messages import (
    AnswerRef,
    NodeState,
    Noted,
    Retrieval,
    TrialDropped,
    TrialSlice,
)
from stream.pipeline.wire.nodes import DECODE
from stream.pipeline.wire.orders import changed

_ALIVE_S = 1.0
_ANSWERS = 1000  # that are at hand, should their trials come again
_NEARLY_S = 0.05  # what is left of a trial when it is known when its last slice comes
_AHEAD_S = 0.0013  # of it a rehearsal begins, which takes some 0.6 ms after a rest
_NEAR_S = 0.003  # after it was due nobody looks for it all the time any more


class Decoder:
    """The session's decoder, warm, between messages and messages.

    What it learns of repeats is kept in the session folder: one that is started in its place goes
    on from there. A trial that comes again, since its answer was lost, gets the same answer again.

    Args:
        config: of the session.
        live: opened as the config asks for it.
        gallery: in which it looks.
        say: hears what a person should know.
    """

    def __init__(self, config: SessionConfig, live: LiveDecoder, gallery: Gallery, say: Say):
        self.config, self.live, self._gallery, self._say = config, live, gallery, say
        self._aside = Aside(NICENESS)
        self._next: Future[Prepared] | None = None
        self._answered: dict[int, list[Retrieval]] = {}  # the last ones
        self._learnt: list[tuple[int, str, np.ndarray]] = []  # and not kept yet
        self._block = 0  # the newest
        self._left = leaving(config)
        self._is_live = config.realtime and isinstance(config.source, LiveSource)
        self._late_s = 0.0  # of the last slices of trials, after their last sample
        self._rehearsal = b""
        self.due_s = inf
        """When the last slice of a trial is expected, as long as that is not rehearsed."""
        self.near_until_s = -inf
        """How long one that was rehearsed may be late; when it is there nothing is near."""
        self._memory = Memory(config.kept("repeats.msgpack"), live.repeats.shape)
        for one in self._memory.recalled():
            if one.trial is None:
                live.reset_group(one.group)
            else:
                live.repeats.add(one.trial, one.group, one.given)
                self._answers(one.trial).extend(one.answers)
                self._block = max([self._block, *(answer.about.block for answer in one.answers)])
        live.repeats.added = lambda *learnt: self._learnt.append(learnt)

    def obey(self, verb: str, argument: str) -> None:
        """Does what the session orders between two slices, or begins with it."""
        self.config = changed(self.config, verb, argument)
        self.live.top_k = self.config.top_k
        self.live.min_confidence = self.config.decoding.min_confidence
        if verb == "reset_group":
            group = evidence_group(argument, self._block)
            self.live.reset_group(group)
            self._memory.forget(group)
        elif verb == "gallery":
            self._next = self._aside.begin(partial(prepare, self.config, self.live))

    def look(self) -> None:
        """Goes over to another gallery, once that is ready."""
        if self._next is None or not self._next.done():
            return
        ready, self._next = self._next, None
        try:
            look_up_in(new := ready.result(), self.live, self.config, self._say)
        except Problem as problem:
            self._say(f"answers go on among the images of before: {problem}", {})
        else:
            self._aside.begin(partial(let_go, self._gallery))
            self._gallery = new.gallery

    def take(self, part: TrialSlice) -> list[tuple[Retrieval | TrialDropped, np.ndarray | None]]:
        """What is to be reported after a slice, answers with their embeddings."""
        received_s = local_clock()
        about = part.about
        self._block = max(self._block, about.block)
        told = self._answers(about.trial)
        self._expect(part, received_s)
        if told and not told[-1].answer.provisional:
            return [(report, None) for report in told if part.final]
        if part.first == 0:
            told.clear()
        try:
            answers = self.live.take(self._slice(part))
        except Problem as problem:
            dropped = TrialDropped(trial=about.trial, reason="rejected", detail=str(problem))
            return [(dropped, None)]
        reports = [self._retrieval(part, answer, received_s) for answer in answers]
        told.extend(reports)
        return [(report, one.embedding) for report, one in zip(reports, answers, strict=True)]

    def _expect(self, part: TrialSlice, received_s: float) -> None:
        """Takes down when the last slice after this one will come."""
        manifest = self.live.manifest
        end_s = part.about.onset_s + part.residual_s + manifest.tmax_s
        if part.final:
            self.due_s, self.near_until_s, self._late_s = inf, -inf, received_s - end_s
            return
        n_channels, n = part.array.shape
        first = part.first - part.corrects + n
        n_left = self.live.shares.marks[-1] - first
        is_here = self.config.decoding.search != MILVUS  # a server's answer would be waited for
        if self._is_live and is_here and 0 < n_left < _NEARLY_S * manifest.rate_hz:
            self.due_s = end_s + self._late_s
            about = replace(part.about, trial=0, group="\0")  # which no marker is
            array = np.ones((n_channels, n_left), np.float32)
            last = replace(part, about=about, first=first, corrects=0, final=True, array=array)
            self._rehearsal = pack(last)

    def rehearse(self) -> None:
        """Goes the whole way of a last slice that is due soon, for nobody; nothing is learnt."""
        due_s, self.due_s, received_s = self.due_s, inf, local_clock()
        if not received_s < due_s < inf:  # it may be here any moment, or was rehearsed
            return
        self.near_until_s = due_s + _NEAR_S
        part = unpack(self._rehearsal, self.config.session)
        assert isinstance(part, TrialSlice)
        with suppress(Problem):  # what is wrong with the network is said of a trial
            answer = self.live.rehearse(self._slice(part))
            pack(self._left(self._retrieval(part, answer, received_s)), 0, self.config.session)

    def keep(self) -> None:
        """Writes down what was learnt, now that the answer is out."""
        while self._learnt:
            trial, group, given = self._learnt.pop()
            self._memory.learn(Learnt(group, trial, given, tuple(self._answers(trial))))

    @staticmethod
    def _slice(part: TrialSlice) -> Slice:
        about, first, final = part.about, part.first, part.final
        group = evidence_group(about.group, about.block)
        return Slice(about.trial, group, about.stimulus, first, final, part.array, part.corrects)

    def _answers(self, trial: int) -> list[Retrieval]:
        answers = self._answered.setdefault(trial, [])
        if len(self._answered) > max(_ANSWERS, 2 * self.config.trials.max_unanswered):
            del self._answered[next(iter(self._answered))]
        return answers

    def _retrieval(self, part: TrialSlice, answer: Answer, received_s: float) -> Retrieval:
        ranked, gallery = answer.ranked, self._gallery
        probabilities = np.exp(ranked.log_p).tolist()
        return Retrieval(
            about=part.about,
            answer=AnswerRef(
                n_repeats=ranked.n_repeats, tmax_s=answer.tmax_s, provisional=answer.provisional
            ),
            ids=[gallery.ids[row] for row in ranked.rows],
            labels=[gallery.labels[row] for row in ranked.rows],
            scores=ranked.scores.tolist(),
            probabilities=probabilities,
            confidence=probabilities[0],
            calibrated=self.live.manifest.calibration is not None,
            abstain=answer.abstain,
            rank=ranked.rank_of_shown,
            stamps={
                **part.stamps,
                "received": received_s,
                "embedded": answer.embedded_s,
                "searched": answer.searched_s,
            },
        )


class _Voice:
    """Where the decoder says something: answers to whoever waits, all else to the results node."""

    def __init__(self, config: SessionConfig) -> None:
        # Answers wait for a results node that is slow; the reader bounds how many there can be.
        self.reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False, queue=0)
        also = lab_endpoint(config.outputs.listen, "answers")
        endpoint = config.endpoints.answers
        self._answers = Publisher(endpoint, config.session, leaving(config), also)
        self._answers.seq = time.time_ns() // 1000  # above those of a node that was lost
        self.painter = None
        if config.painting is not None:
            self.painter = Outgoing(config.endpoints.embeddings, config.painting.refine)

    def say(self, text: str, facts: Mapping[str, Any]) -> None:
        """Tells a person."""
        send(self.reports, Noted(node=DECODE, text=text, facts=facts))

    def report(self, report: Retrieval | TrialDropped, embedding: np.ndarray | None) -> None:
        """Tells what became of a trial; an answer that was told before has no embedding."""
        if embedding is None or isinstance(report, TrialDropped):
            send(self.reports, report)
            return
        report.stamps["published"] = local_clock()
        self._answers.publish(report)
        send(self.reports, report)
        if self.painter is not None:
            self.painter.offer(report, embedding)  # now that the answer is out


def run(config: SessionConfig, lifeline: Lifeline) -> None:
    """Answers trials until it is told to stop."""
    # Before all else, so that who hears a decoder before this one is there again in time.
    voice = _Voice(config)
    decoder = _opened(config, voice.say)
    socket = open_socket(zmq.PULL, config.endpoints.trials, bind=False)
    trials = Listener(socket, config.session, lambda sentence: voice.say(sentence, {}))
    alive = NodeState(node=DECODE, incarnation=lifeline.incarnation)
    send(voice.reports, alive)
    lifeline.ready()
    next_alive_s = time.monotonic() + _ALIVE_S
    # Slices that come before the reader knows this process come again, in the order of trials.
    is_known = False
    sweeper, spins = Sweeper(), may_spin(config.decoding.spin)
    if spins:
        voice.say("the decoder does not sleep while an answer is due", {"spins": True})
    awake = keep_awake(config.decoding.awake) if isinstance(config.source, LiveSource) else None
    if awake is not None:
        voice.say("the machine's cores are kept awake", {"awake": True})
    while lifeline.command() is None:
        due_in_s = decoder.due_s - local_clock()
        wait_s = min(0.2, max(0.0, due_in_s - _AHEAD_S))
        is_near = spins and local_clock() < decoder.near_until_s
        message = trials.receive(wait_ms=0 if is_near else int(1e3 * wait_s))
        if message is None and (is_near or due_in_s < _AHEAD_S + 1e-3):
            decoder.rehearse()
            continue
        sweeper.look(due_in_s)
        decoder.look()
        if isinstance(message, NodeState):
            is_known |= message.to == lifeline.incarnation
        elif isinstance(message, TrialSlice) and is_known:
            for report, embedding in decoder.take(message):
                voice.report(report, embedding)
            decoder.keep()
        elif isinstance(message, TrialDropped):
            decoder.live.forget(message.trial)
        for verb, argument in lifeline.orders():
            decoder.obey(verb, argument)
            if voice.painter is not None:
                voice.painter.with_provisional = needed(decoder.config.painting).refine
        if time.monotonic() >= next_alive_s:
            next_alive_s = time.monotonic() + _ALIVE_S
            send(voice.reports, alive)


def _opened(config: SessionConfig, say: Say) -> Decoder:
    """The session's decoder, warm."""
    refuse_two_builds()
    torch.set_num_threads(1)  # a second thread spins and starves the reader on a small machine
    gallery, bundle = open_accepted(config), open_bundle(needed(config.bundle))
    live = open_decoder(config, bundle, gallery, local_clock, say)
    live.warm_up()
    return Decoder(config, live, gallery, say)


if __name__ == "__main__":
    run_node(DECODE, run)
