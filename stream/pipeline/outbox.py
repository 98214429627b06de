"""What the reader keeps until the ledger has it, so that a node's crash delays answers only."""

from dataclasses import dataclass

import zmq

from stream.pipeline.bus import try_send
from stream.pipeline.messages import (
    MarkerSeen,
    NodeState,
    Settled,
    TrialCut,
    TrialDropped,
    TrialSlice,
    encode,
)

_MAX_SENDS = 4  # a trial that its decoder did not survive this often is given up


@dataclass
class _Kept:
    """What is known of a trial, and how much of it has gone out."""

    reports: list[bytes]  # the announcement, then perhaps the outcome
    n_reported: int = 0
    trial: TrialSlice | None = None
    trial_frame: bytes = b""
    is_sent: bool = False
    n_sends: int = 0


class Outbox:
    """Sends announcements and outcomes to the results node and trials to the decoder.

    Everything of a trial is kept until the results node says that it is settled, and is sent
    again to a node that was restarted. Trials go out only while a decoder is known to be there.
    """

    def __init__(self, reports: zmq.Socket, trials: zmq.Socket | None, max_unanswered: int):
        self._reports = reports
        self._trials = trials
        self._max_unanswered = max_unanswered
        self._kept: dict[int, _Kept] = {}
        self._n_unanswered = 0
        self._incarnations: dict[str, str] = {}

    @property
    def n_kept(self) -> int:
        """Trials that are announced and not settled."""
        return len(self._kept)

    @property
    def is_full(self) -> bool:
        """Whether a further trial would be dropped as `overflow`."""
        return self._n_unanswered >= self._max_unanswered

    def announce(self, message: MarkerSeen) -> None:
        kept = self._kept[message.trial] = _Kept([encode(message)])
        self._send_reports(kept)

    def send_trial(self, message: TrialSlice) -> None:
        """Sends a trial to the decoder, now or as soon as it can be."""
        if self.is_full:
            detail = f"{self._n_unanswered} trials wait for an answer"
            self.report(TrialDropped(message.session, message.trial, "overflow", detail))
            return
        kept = self._kept[message.trial]
        kept.trial, kept.trial_frame = message, encode(message)
        self._n_unanswered += 1
        self.flush()

    def report(self, message: TrialDropped | TrialCut) -> None:
        """Reports an outcome that the reader itself decides."""
        kept = self._kept[message.trial]
        self._forget_trial(kept)
        kept.reports.append(encode(message))
        self._send_reports(kept)

    def flush(self) -> None:
        """Sends what could not be sent before, in order."""
        for kept in self._kept.values():
            self._send_reports(kept)
        if "decode" not in self._incarnations or self._trials is None:
            return
        for kept in self._kept.values():
            if kept.trial is None or kept.is_sent:
                continue
            if not try_send(self._trials, kept.trial_frame):
                return
            kept.is_sent = True
            kept.n_sends += 1

    def _send_reports(self, kept: _Kept) -> None:
        while kept.n_reported < len(kept.reports):
            if not try_send(self._reports, kept.reports[kept.n_reported]):
                return
            kept.n_reported += 1

    def on_settled(self, message: Settled) -> None:
        kept = self._kept.pop(message.trial, None)
        if kept is not None:
            self._forget_trial(kept)

    def on_node_state(self, message: NodeState) -> None:
        """Notices a node that was restarted, and sends it again what its predecessor had."""
        before = self._incarnations.get(message.node)
        self._incarnations[message.node] = message.incarnation
        if before == message.incarnation:
            return
        if message.node == "decode":
            self._resend_trials()
        elif message.node == "results":
            self._resend_reports()

    def _resend_trials(self) -> None:
        for kept in list(self._kept.values()):
            if kept.trial is None:
                continue
            kept.is_sent = False
            if kept.n_sends >= _MAX_SENDS:
                detail = f"the decoder was lost {kept.n_sends} times with this trial"
                session, trial = kept.trial.session, kept.trial.trial
                self.report(TrialDropped(session, trial, "node_lost", detail))
        self.flush()

    def _resend_reports(self) -> None:
        for kept in self._kept.values():
            kept.n_reported = 0
            self._send_reports(kept)

    def _forget_trial(self, kept: _Kept) -> None:
        if kept.trial is not None:
            kept.trial, kept.trial_frame = None, b""
            self._n_unanswered -= 1
