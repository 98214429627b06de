"""The outbox: all that the reader keeps until the ledger has it, so that crashes only delay."""

from dataclasses import dataclass, field

import zmq

from stream.acquire.trials import Reason
from stream.pipeline.wire.bus import try_send
from stream.pipeline.wire.frames import pack
from stream.pipeline.wire.messages import (
    MarkerSeen,
    NodeState,
    Settled,
    TrialCut,
    TrialDropped,
    TrialSlice,
)
from stream.pipeline.wire.nodes import DECODE, READER, RESULTS

_MAX_LOSSES = 4  # a trial that its decoder did not survive this often is given up


@dataclass
class _Kept:
    """What is known of a trial, and how much of it has gone out."""

    reports: list[bytes]  # the announcement, then perhaps the outcome
    n_reported: int = 0
    slices: list[bytes] = field(default_factory=list)
    n_sent: int = 0  # slices
    is_whole: bool = False
    n_lost: int = 0  # how often its decoder was lost with it

    @property
    def is_sent(self) -> bool:
        return self.n_reported == len(self.reports) and self.n_sent == len(self.slices)


class Outbox:
    """Sends announcements and outcomes to the results node and trials to the decoder.

    Everything of a trial is kept until the results node says that it is settled, and is sent
    again to a node that was restarted; with a results node answers are lost too, so that trials
    go to the decoder again as well. Trials go out only while a decoder is known to be there. ZeroMQ
    gives slices to a new one before it is known: those count, from the message on that greets it,
    so that trials are decoded in their order whatever decoder dies.
    """

    def __init__(self, reports: zmq.SyncSocket, trials: zmq.SyncSocket | None, max_unanswered: int):
        self._reports = reports
        self._trials = trials
        self._max_unanswered = max_unanswered
        self._kept: dict[int, _Kept] = {}
        self._unsent: dict[int, _Kept] = {}  # of those; thousands may only wait to be settled
        self._n_unanswered = 0
        self._incarnations: dict[str, str] = {}
        self._before: list[bytes] = []  # what the decoder gets before any slice

    @property
    def n_kept(self) -> int:
        """Trials that are announced and not settled."""
        return len(self._kept)

    @property
    def is_full(self) -> bool:
        """Whether a further trial would be dropped as `overflow`."""
        return self._n_unanswered >= self._max_unanswered

    @property
    def has_told(self) -> str:
        """The process of the results node to which all was sent; none while some waits for room."""
        is_told = all(kept.n_reported == len(kept.reports) for kept in self._unsent.values())
        return self._incarnations.get(RESULTS, "") if is_told else ""

    @property
    def waits_for_decoder(self) -> bool:
        """Whether trials are kept for a decoder that has never been there yet."""
        return self._trials is not None and DECODE not in self._incarnations

    def announce(self, message: MarkerSeen) -> None:
        kept = self._kept[message.about.trial] = _Kept([pack(message)])
        self._send_reports(message.about.trial, kept)

    def send_slice(self, message: TrialSlice) -> None:
        """Sends a slice of a trial to the decoder, now or as soon as it can be.

        Slices of a trial that was settled before its end, as by a decoder that refuses it, are not
        sent any more.
        """
        kept = self._kept.get(message.about.trial)
        if kept is None:
            return
        if message.final:
            if self.is_full:
                detail = f"{self._n_unanswered} trials wait for an answer"
                self._drop(message.about.trial, "overflow", detail)
                return
            kept.is_whole = True
            self._n_unanswered += 1
        kept.slices.append(pack(message))
        self._unsent[message.about.trial] = kept
        self.flush()

    def report(self, message: TrialDropped | TrialCut) -> None:
        """Reports an outcome that the reader itself decides; one of a settled trial is no news."""
        kept = self._kept.get(message.trial)
        if kept is None:
            return
        frame = pack(message)
        if kept.n_sent:
            self._before.append(frame)  # it forgets what it has of it
        self._forget_slices(kept)
        self._send_slices()
        kept.reports.append(frame)
        self._send_reports(message.trial, kept)

    def _drop(self, trial: int, reason: Reason, detail: str) -> None:
        self.report(TrialDropped(trial=trial, reason=reason, detail=detail))

    def flush(self) -> None:
        """Sends what could not be sent before, in order."""
        for trial, kept in [*self._unsent.items()]:
            self._send_reports(trial, kept)
        self._send_slices()
        self._unsent = {t: kept for t, kept in self._unsent.items() if not kept.is_sent}

    def _send_slices(self) -> None:
        if DECODE not in self._incarnations or self._trials is None:
            return
        while self._before:
            if not try_send(self._trials, self._before[0]):
                return
            del self._before[0]
        for kept in self._unsent.values():
            while kept.n_sent < len(kept.slices):
                if not try_send(self._trials, kept.slices[kept.n_sent]):
                    return
                kept.n_sent += 1

    def _send_reports(self, trial: int, kept: _Kept) -> None:
        while kept.n_reported < len(kept.reports):
            if not try_send(self._reports, kept.reports[kept.n_reported]):
                self._unsent[trial] = kept
                return
            kept.n_reported += 1

    def on_settled(self, message: Settled) -> None:
        kept = self._kept.pop(message.trial, None)
        self._unsent.pop(message.trial, None)
        if kept is not None:
            self._forget_slices(kept)

    def on_node_state(self, message: NodeState) -> None:
        """Notices a node that was restarted, and sends it again what its predecessor had."""
        before = self._incarnations.get(message.node)
        self._incarnations[message.node] = message.incarnation
        if before == message.incarnation:
            return
        if message.node == DECODE:
            self._resend_trials(message.incarnation)
        elif message.node == RESULTS:
            for kept in self._kept.values():
                kept.n_reported = 0
                kept.n_sent = 0  # its answers may have waited for the node that was lost
            self._unsent = dict(self._kept)
            self.flush()

    def _resend_trials(self, decoder: str) -> None:
        self._before = [pack(NodeState(node=READER, incarnation="", to=decoder))]
        for trial, kept in list(self._kept.items()):
            if not kept.n_sent:
                continue
            kept.n_sent = 0
            kept.n_lost += 1
            if kept.n_lost >= _MAX_LOSSES:
                detail = f"the decoder was lost {kept.n_lost} times with this trial"
                self._drop(trial, "node_lost", detail)
        self._unsent = dict(self._kept)
        self.flush()

    def _forget_slices(self, kept: _Kept) -> None:
        self._n_unanswered -= kept.is_whole
        kept.slices, kept.n_sent, kept.is_whole = [], 0, False
