"""The results node: the only writer of the ledger, and the one place where answers come out."""

import time
from collections.abc import Callable
from typing import Any

import zmq

from stream.acquire.chunk import Chunk
from stream.acquire.lsl import local_clock
from stream.acquire.markers import Marker, marker_text
from stream.pipeline.books.ledger import Ledger, Record, told
from stream.pipeline.books.standing import Standing
from stream.pipeline.books.summary import StreamFacts, Tally, write_summary
from stream.pipeline.galleries import open_accepted
from stream.pipeline.nodes.node import Lifeline, run_node
from stream.pipeline.nodes.second_inlet import SecondInlet
from stream.pipeline.outputs.blind import leaving
from stream.pipeline.outputs.feed import Outputs
from stream.pipeline.trials import announcement
from stream.pipeline.wire.bus import Listener, Publisher, open_socket
from stream.pipeline.wire.config import LiveSource, SessionConfig
from stream.pipeline.wire.fields import Outcome
from stream.pipeline.wire.keys import lab_endpoint
from stream.pipeline.wire.messages import (
    Controlled,
    End,
    MarkerSeen,
    Message,
    NodeState,
    Noted,
    Painted,
    PaintingState,
    Preview,
    Retrieval,
    SessionClosed,
    SessionState,
    Settled,
    StreamHealth,
    TrialCut,
    TrialDropped,
)
from stream.pipeline.wire.nodes import READER, RECORD, RESULTS, SOURCE
from stream.pipeline.wire.orders import changed
from stream.pipeline.witness import (
    LOST,
    Attendance,
    FreeNumbers,
    Witness,
    last_announced,
    read_parting,
)

_ALIVE_S = 1.0
_ORPHAN_GRACE_S = 2.0  # for answers to trials that a lost reader had already sent
_SURE_S = 1.0  # one inlet may get a marker later than another
_REST_S = 0.5  # for what is on its way when the session ends, while it comes
_NOBODY = "no reader was there when the marker came"
_LAST_WORDS_S = 0.3  # subscribers get the last messages before the sockets close


class Results:
    """Enters every report into the ledger and publishes it.

    Args:
        config: of the session.
        incarnation: of this process.
        publisher: where everything comes out.
        tell: is given each record of the ledger, those of before a restart too.
        clock: the reader's, in seconds.
    """

    def __init__(
        self,
        config: SessionConfig,
        incarnation: str,
        publisher: Publisher,
        tell: Callable[[Record], None],
        clock: Callable[[], float] = local_clock,
    ):
        self._config = config
        self._is_live = isinstance(config.source, LiveSource)
        self._publisher = publisher
        self._tell, self._left = tell, leaving(config)
        self._clock = clock
        self._standing = Standing()
        n_way = len(open_accepted(config)) if config.gallery else 0
        self._tally = Tally(config, n_way)
        self._provisional: set[tuple[int, float]] = set()  # trial, tmax of answers that are out
        self._witness = Witness(config.marker_rule, config.kept("switch"))
        self._reader, self._reader_since_s, self._heard_until_s = "", 0.0, 0.0
        self._free_numbers = FreeNumbers()
        self._ledger = Ledger(config.folder / "ledger.jsonl", self._entered)
        self._ledger.note("start", session=config.session, node=incarnation, at_s=clock())
        self._attendance = Attendance(config.kept("attendance"))
        self._alive = NodeState(node=RESULTS, incarnation=incarnation)
        self._next_alive_s = 0.0
        self._orphans_until_s = 0.0
        self._streams = StreamFacts()
        self.witnessed_s: tuple[float, float] | None = None
        """From when and until when markers were taken by the second way, where there is one."""
        self.ended: str | None = None
        if self._ledger.damage:
            self.say(self._ledger.damage)

    @property
    def has_begun(self) -> bool:
        """Whether a reader of LSL has begun to listen, in this process's time or before."""
        return self._attendance.since_s < float("inf")

    def obey(self, verb: str, argument: str) -> None:
        """Does what the session orders between two messages."""
        self._config = changed(self._config, verb, argument)
        if verb == "gallery":
            self._tally.look_up_in(self._config, len(open_accepted(self._config)))
        elif verb == "hello":
            self._tell_all()

    def take(self, message: Message) -> None:
        match message:
            case Retrieval():
                self._answer(message)
            case MarkerSeen(about=about):
                if not self._ledger.has(about.trial):
                    number = self._witness.announced(message.mark)
                    if number is None:
                        self._announce(message)
                    else:
                        self._drop((number,), "node_lost", _NOBODY)  # unless a crash came before
                        self._ledger.same(about.trial, number)
                self._publish_settled(about.trial)
            case TrialDropped():
                self._settle(message.trial, "dropped", **told("dropped", message))
            case TrialCut():
                self._settle(message.trial, "cut", **told("cut", message))
            case NodeState():
                self._on_node_state(message)
            case Noted():
                self._note("note", message, at_s=self._clock())
                if message.node in (SOURCE, RECORD):
                    self._streams.notices.append(message.text)
            case SessionState():
                self._note("session", message, at_s=self._clock())
            case Controlled():
                self._note("control", message)
            case PaintingState(state="begun"):  # and will end in one of the other ways
                self._tally.painting.add(message.trial, message.state)
                self._publish(message)
            case PaintingState():
                self._note("painting", message, of_trial=message.trial)
            case Preview():
                message.stamps["published"] = local_clock()
                self._publish(message)
            case Painted():
                message.stamps["published"] = local_clock()
                self._note("painted", message, of_trial=message.about.trial)
            case StreamHealth():
                self._on_health(message)
            case End():
                self.ended = message.reason
                self._streams.reader_ends(message.facts)

    def say(self, sentence: str) -> None:
        """Enters what a person should know, and tells it."""
        self._streams.notices.append(sentence)
        self._note("note", Noted(node=RESULTS, text=sentence, facts={}), at_s=self._clock())

    def saw(self, chunk: Chunk) -> None:
        """Takes markers that this process has heard itself."""
        for raw_s, row in zip(chunk.raw_s.tolist(), chunk.samples, strict=True):
            self._witness.saw(Marker(raw_s, marker_text(row), chunk.readable_s, chunk.offset_s))

    def look(self, is_idle: bool) -> None:
        """Says that it is alive, and looks for what a reader that was lost has left.

        Args:
            is_idle: no report waits to be taken.
        """
        now_s = self._clock()
        if now_s < self._next_alive_s:
            return
        self._next_alive_s = now_s + _ALIVE_S
        self._publish(self._alive)
        if self._is_live:  # a file is read again by another reader
            if is_idle and self.ended is None:
                self._enter_missed(self._heard_until_s - _SURE_S)
            self._drop_orphans(now_s)

    def close(self, end: str, is_orphan: bool) -> None:
        """Settles what is open, closes the ledger, writes the summary and publishes it.

        An orphan, whose session has ended before it, writes table and report too.
        """
        parting = read_parting(self._config.kept("parting"))
        if parting is None:
            end = LOST if is_orphan else end
        elif parting.why or (self.ended is None and end == "finish"):
            end = parting.end
        if self.has_begun:
            self._take_announced()
            self._hear_the_rest(parting.at_s if parting is not None else float("inf"))
        reason = "shutdown" if end == "stop" else "node_lost"
        self._drop(self._ledger.pending, reason, "no answer when the session ended")
        if strange := self._ledger.unannounced:
            few = ", ".join(map(str, strange[:5]))
            self.say(f"outcomes of {len(strange)} trials that nobody announced are left out: {few}")
        self._ledger.note("end", reason=end)
        self._ledger.close()
        summary = self._tally.summary(self._ledger, end, self._ledger.faults())
        summary["streams"] = self._streams.summary()
        summary["simulated"] |= summary["streams"].pop("simulated", False)
        if parting is not None and parting.why:
            summary["failure"] = parting.why
        write_summary(self._config.folder, summary)
        self._tell_all()  # whoever had missed something can ask no more
        self._publish(SessionClosed(summary=summary))
        time.sleep(_LAST_WORDS_S)
        if is_orphan:  # there is nobody else to do it
            from stream.pipeline.books.closing import write_pages

            write_pages(self._config, summary)

    def _tell_all(self) -> None:
        self._publisher.publish(self._standing.snapshot(self._config, self._ledger))

    def _hear_the_rest(self, left_s: float) -> None:
        """Enters what came until the session left for its end, and tells when nobody listened."""
        heard_until_s = self._heard_until_s if self.ended else 0.0
        self._enter_missed(heard_until_s or left_s)
        # Where a process was lost nobody may have said up to when he heard all.
        if not (heard_until_s or (self.ended and self._attendance.is_first(self._reader_since_s))):
            left_s = min(left_s, self._clock())
            self._attend(RESULTS, left_s, left_s)

    def _announce(self, message: MarkerSeen) -> None:
        self._ledger.announce(message.about.trial, **told("marker", message))
        self._publish(message)

    def _take_announced(self) -> None:
        """Enters what a reader that was lost has announced, and had perhaps told to nobody."""
        for message in last_announced(self._config.kept(self._reader)):
            if not self._ledger.has(message.about.trial):
                self.take(message)

    def _enter_missed(self, until_s: float) -> None:
        """Enters the markers that came until then and were announced by no reader."""
        for event in self._witness.missed(self._attendance.since_s, until_s):
            number = self._free_numbers.next
            self._announce(announcement(self._config.session, number, event))
            self._drop((number,), "node_lost", _NOBODY)

    def _drop_orphans(self, now_s: float) -> None:
        """Gives up the trials of readers before this one, once their answers had time to come."""
        if now_s >= self._orphans_until_s:
            orphans = self._ledger.pending_before(self._reader_since_s)
            self._drop(orphans, "node_lost", "the reader was lost with this trial")

    def _attend(self, who: str, since_s: float, until_s: float) -> None:
        """Somebody has said what he heard; tells of times at which nobody listened."""
        # What was seen and is not announced yet is not in the ledger, whatever a reader says.
        if self.witnessed_s is not None:
            witness_since_s, sure_until_s = self.witnessed_s
            sure_until_s = self._witness.sure_until_s(sure_until_s)
            self._attendance.listened("witness", witness_since_s, sure_until_s)
            until_s = min(until_s, sure_until_s)
        self._attendance.listened(who, since_s, until_s)
        for from_s, to_s in self._attendance.gaps(who):
            self._ledger.note("unheard", from_s=from_s, until_s=to_s)
            self.say(
                f"nobody listened for {to_s - from_s:.1f} s: markers of that time, if there were "
                "any, are in no record"
            )
        self._attendance.keep()

    def _note(self, event: str, message: Message, **facts: Any) -> None:
        self._ledger.note(event, **facts, **told(event, message))
        self._publish(message)

    def _on_health(self, message: StreamHealth) -> None:
        if self._streams.is_news(message):
            facts = {"state": message.state, "age_s": round(message.age_s, 3)}
            self._ledger.note("stream", name=message.stream, **facts, at_s=self._clock())
        self._publish(message)

    def _answer(self, message: Retrieval) -> None:
        trial, answer = message.about.trial, message.answer
        message.stamps.setdefault("published", local_clock())  # by the decoder, which gave it out
        is_out = answer.provisional and (trial, answer.tmax_s) in self._provisional
        if not is_out and not self._ledger.has_outcome(trial):
            self._publish(message)
        facts = told("decoded", message)
        if not answer.provisional:
            self._settle(trial, "decoded", **facts)
        elif not is_out:  # a trial that is sent again is answered again
            self._ledger.note("provisional", of_trial=trial, **facts)

    def _publish(self, message: Message) -> None:
        self._publisher.publish(message)
        self._standing.published(self._publisher.seq, self._left(message))

    def _entered(self, record: Record) -> None:
        self._tally.count(record)
        self._standing.entered(record)
        if record["event"] == "provisional":
            self._provisional.add((record["of_trial"], record["tmax_s"]))
        elif record["event"] == "listening":
            self._reader, self._reader_since_s = record["node"], record["since_s"]
            self._free_numbers.reader_begins(record.get("first") or 1)
        elif record["event"] == "marker" and self._free_numbers.use(record["trial"]):
            self._witness.entered(record["mark"], record["trial"])
        self._tell(record)

    def _drop(self, trials: tuple[int, ...], reason: str, detail: str) -> None:
        for trial in trials:
            self._settle(trial, "dropped", reason=reason, detail=detail)

    def _settle(self, trial: int, outcome: Outcome, **facts: Any) -> None:
        self._ledger.settle(trial, outcome, **facts)
        self._publish_settled(trial)

    def _publish_settled(self, trial: int) -> None:
        # What was settled before is said again too: whoever sent it again did not hear it.
        if (settled := self._ledger.outcome_of(trial)) is not None:
            outcome, reason = settled
            sums = {"markers": self._ledger.markers, "pending": len(self._ledger.pending)}
            self._publish(Settled(trial=trial, outcome=outcome, reason=reason, **sums))

    def _on_node_state(self, message: NodeState) -> None:
        if message.node == READER and message.since_s >= self._reader_since_s:
            if message.incarnation != self._reader:
                if self._reader:
                    self._ledger.note("node_lost", node=self._reader, at_s=self._clock())
                    self._orphans_until_s = self._clock() + _ORPHAN_GRACE_S
                    self._take_announced()
                self._heard_until_s = 0.0
                begins = {"since_s": message.since_s, "first": message.first}
                self._ledger.note("listening", node=message.incarnation, **begins)
            if self._is_live:
                self._hear_reader(message)
        self._publish(message)

    def _hear_reader(self, message: NodeState) -> None:
        self._attendance.begin(message.since_s)
        if message.to == self._alive.incarnation:
            self._attend(message.incarnation, message.since_s, message.until_s)
            self._heard_until_s = message.until_s


def run(config: SessionConfig, lifeline: Lifeline) -> None:
    """Collects reports until it is told that no more come."""
    socket = open_socket(zmq.PULL, config.endpoints.reports, bind=True)
    also = lab_endpoint(config.outputs.listen, "results")
    publisher = Publisher(config.endpoints.results, config.session, leaving(config), also)
    publisher.seq = time.time_ns() // 1000  # above those of a node that was lost
    outputs = Outputs(config)
    results = Results(config, lifeline.incarnation, publisher, outputs.entered)
    outputs.begin()
    reports = Listener(socket, config.session, results.say)
    second = None
    lifeline.ready()
    while (command := lifeline.command()) is None:
        message = reports.receive(wait_ms=100)
        if message is not None:
            results.take(message)
        if second is not None:
            _hear(second, results)
        elif results.has_begun and isinstance(config.source, LiveSource) and config.source.markers:
            second = SecondInlet(config.source, config.source.markers, config.endpoints.overheard)
        results.look(is_idle=not reports.is_waiting)
        for sentence in outputs.said():
            results.say(sentence)
        for verb, argument in lifeline.orders():
            results.obey(verb, argument)
    _take_the_rest(results, reports)
    if second is not None:
        _hear(second, results)
    results.close(results.ended or command, lifeline.is_orphan)
    outputs.close()


def _hear(second: SecondInlet, results: Results) -> None:
    now_s = local_clock()
    for chunk in second.taken():
        results.saw(chunk)
    results.witnessed_s = (second.since_s, now_s) if second.since_s < now_s else None


def _take_the_rest(results: Results, reports: Listener) -> None:
    """The last words of a reader, or an image, come by another way than the word to finish."""
    deadline_s = time.monotonic() + _REST_S
    while time.monotonic() < deadline_s:
        message = reports.receive(wait_ms=50)
        if message is not None:
            results.take(message)
        elif results.ended is not None:
            return


if __name__ == "__main__":
    run_node(RESULTS, run)
