"""Sends what a trial stream says: slices to the decoder, outcomes to the ledger."""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import zmq
from safetensors.numpy import load_file

from decoder.bundle import open_bundle
from stream.acquire.adaptation import write_state
from stream.acquire.chunk import Chunk, StreamKind
from stream.acquire.lsl import local_clock
from stream.acquire.preprocess import Preprocessing
from stream.acquire.slices import Slice
from stream.acquire.trial_stream import TrialStream
from stream.acquire.trials import Drop, Opened, Reason, Trial
from stream.acquire.units import Signal
from stream.pipeline.books.trial_file import TrialFile
from stream.pipeline.books.trial_formats import Head, channel_types
from stream.pipeline.galleries import open_accepted
from stream.pipeline.nodes.node import Lifeline
from stream.pipeline.nodes.recording_feed import RecordingFeed
from stream.pipeline.nodes.second_inlet import BothWays
from stream.pipeline.nodes.signals_feed import SignalsFeed
from stream.pipeline.trials import (
    adapted_of,
    announcement,
    starting_adaptation,
    trial_plan,
    trial_ref,
)
from stream.pipeline.wire.bus import Listener, open_socket, send
from stream.pipeline.wire.config import LiveSource, SessionConfig
from stream.pipeline.wire.messages import (
    End,
    NodeState,
    Noted,
    Settled,
    TrialCut,
    TrialDropped,
    TrialSlice,
)
from stream.pipeline.wire.nodes import READER
from stream.pipeline.wire.orders import changed
from stream.pipeline.wire.outbox import Outbox
from stream.pipeline.witness import Announced, Numbers, Switch

ADAPTATION = "adaptation.safetensors"
"""In the session folder: what the adaptation had come to at the end."""
_ALIVE_S = 1.0
_CALM_S = 0.02  # until the next sample that is waited for
_LOOK_S = 0.005  # how often the bus is looked at while samples stream
_PATIENCE_S = {"finish": 20.0, "stop": 3.0}  # for the answers that are still due at the end


class TrialSender:
    """Hands chunks to the session's trial stream, and sends what it says.

    Args:
        channels: labels of the EEG stream, as the bundle calls them.
        headers: what each stream says of itself, for the recording.
        signal: what the stream records.
        kinds: what each channel records, in the stream's words.
        since_s: from when on it is heard, on the reader's clock; 0 in virtual time.

    Attributes:
        trials: the trial stream.
        reports: the socket to the results node.
    """

    def __init__(
        self,
        config: SessionConfig,
        lifeline: Lifeline,
        channels: Sequence[str],
        rate_hz: float,
        headers: Mapping[StreamKind, str],
        signal: Signal,
        kinds: Sequence[str] = (),
        since_s: float = 0.0,
    ):
        self._config = config
        self._lifeline = lifeline
        self._adaptation = None
        self._adaptation_path = config.folder / ADAPTATION
        self._n_kept, self._keeping = 0, threading.Thread()
        plan = replace(trial_plan(config), first_number=config.first_trial)
        if config.gallery is not None:
            plan = replace(plan, is_known=open_accepted(config).__contains__)
        if config.bundle is not None:
            bundle = open_bundle(config.bundle)
            preprocessing = Preprocessing.of(bundle)
            signal.check(preprocessing.signal, "the stream")
            marks = bundle.manifest.marks(config.decoding.tmax_s)[:-1]
            plan = replace(plan, preprocessing=preprocessing, marks=marks)
            self._adaptation = starting_adaptation(config, preprocessing)
            kept = self._adaptation_path  # by a reader before this one
            if self._adaptation is not None and config.first_trial > 1 and kept.exists():
                self._adaptation.go_on_from(load_file(kept))
        self.trials = TrialStream(channels, rate_hz, plan, self._adaptation, kinds)
        # One that is started again would be told too late for the first marker.
        was_told = config.was_told or ("pause" if config.about.form else "resume")
        self._waits_to_begin = was_told != "resume"
        if self._waits_to_begin:
            self.trials.pause()
        self._numbers = Numbers(config.kept("numbers"))
        self._announced = Announced(config.kept(lifeline.incarnation))
        self._switch, self._ways = None, None
        if isinstance(config.source, LiveSource):
            self._switch = Switch(config.kept("switch"), self.trials.acquisition.marker_reader)
            second = open_socket(zmq.PULL, config.endpoints.overheard, bind=False)
            told = Listener(second, config.session, self.say).drain
            self._ways = BothWays(told, since_s)
        self.reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False)
        heard = (Settled, NodeState)
        results = open_socket(zmq.SUB, config.endpoints.results, bind=False, hears=heard)
        self._results = Listener(results, config.session, self.say)
        to_decoder = None
        if config.bundle is not None:
            to_decoder = open_socket(zmq.PUSH, config.endpoints.trials, bind=True)
        self._outbox = Outbox(self.reports, to_decoder, config.trials.max_unanswered)
        self._feed = None
        if config.record:
            self._feed = RecordingFeed(config, headers)
        self._signals = SignalsFeed(config, channels, rate_hz, kinds)
        self._trial_file: TrialFile | None = None
        if config.save_trials is not None:
            window = (self.trials.window.first, self.trials.window.last)
            trigger = config.trigger.channel if config.trigger is not None else None
            types = channel_types(channels, kinds, signal.unit, trigger)
            head = Head(list(channels), rate_hz, window, types)
            self._trial_file = TrialFile(config.folder, head)
        self._notices: list[str] = []
        if (found := adapted_of(config)) is not None:
            found[0].check_cap(channels, rate_hz)
            self.say(f"{found[0].sentence()} (SHA-256 {config.adapted_sha256})")
        self.is_simulated = False
        """Whether its stream tells that the EEG is made up, as the summary then does."""
        self._next_look_s = self._next_alive_s = 0.0
        self._since_s = since_s
        self._taken_s = 0.0
        self._say_alive()

    def take(self, stream: StreamKind, chunk: Chunk) -> None:
        """Takes what arrived on `eeg` or `markers`, and announces its trials."""
        if stream == "markers" and self._ways is not None:
            for one in self._ways.own(chunk):
                self._take(stream, one)
        else:
            self._take(stream, chunk)

    def _take_second(self) -> None:
        """Takes the markers that another process has heard, and its own inlet has not."""
        for chunk in self._ways.second() if self._ways is not None else ():
            self._take("markers", chunk)

    def _take(self, stream: StreamKind, chunk: Chunk) -> None:
        if not len(chunk.raw_s):
            return
        self._taken_s = local_clock()
        if self._feed is not None:
            self._feed.add(stream, chunk)
        self._signals.add(stream, chunk)
        self._send(self.trials.add(stream, chunk))
        if self._switch is not None:
            self._switch.look()

    def say(self, sentence: str, **facts: bool) -> None:
        """Tells the screen and the ledger what a person should know of the streams."""
        self._notices.append(sentence)
        send(self.reports, Noted(node=READER, text=sentence, facts=facts))

    def _say_notices(self) -> None:
        notices = self.trials.acquisition.notices
        while notices:
            self.say(notices.pop(0))

    def _say_alive(self) -> None:
        until_s = self.trials.acquisition.attention.until_s
        if self._ways is not None:
            until_s = min(until_s, self._ways.waits_since_s)
        alive = NodeState(
            node=READER,
            incarnation=self._lifeline.incarnation,
            since_s=self._since_s,
            until_s=until_s,
            to=self._outbox.has_told,
            first=self._config.first_trial,
        )
        send(self.reports, alive)

    def obey(self) -> None:
        """Does what the session orders between two trials."""
        for verb, argument in self._lifeline.orders():
            self._config = changed(self._config, verb, argument)
            match verb:
                case "pause":
                    self.trials.pause()
                case "resume":
                    self.trials.resume()
                    self._waits_to_begin = False
                case "gallery":
                    self.trials.know(open_accepted(self._config).__contains__)
                case "set":
                    self.trials.reject(self._config.reject)

    def cut(self, now_s: float) -> None:
        """Sends every trial whose last sample is there, and what there is of the others."""
        self._send(self.trials.due(now_s))

    def look(self) -> None:
        """Looks at the bus, at most every few milliseconds."""
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_S
        for message in self._results.drain():
            if isinstance(message, Settled):
                self._outbox.on_settled(message)
            elif isinstance(message, NodeState):
                self._outbox.on_node_state(message)
        self._take_second()
        self._outbox.flush()
        if now_s >= self._next_alive_s:
            self._next_alive_s = now_s + _ALIVE_S
            self._say_alive()
        self._say_notices()
        if self._feed is not None:
            self._feed.flush()
        is_calm = self.trials.acquisition.next_due_in_s >= _CALM_S
        self._signals.flush(is_calm)
        if is_calm:
            self._keep_adaptation()
        self.obey()

    def _keep_adaptation(self) -> None:
        """Writes down what was adapted to, for a reader after this one, while nobody waits.

        In a thread: to replace a file may take as long as the disk takes to write it.
        """
        if self._adaptation is None or self._keeping.is_alive():
            return
        if self._adaptation.n_taken > self._n_kept:
            self._n_kept = self._adaptation.n_taken
            told = (self._adaptation_path, self._adaptation.state())
            self._keeping = threading.Thread(target=write_state, args=told)
            self._keeping.start()

    def wait_for_room(self) -> None:
        """In virtual time the recording waits for its session to begin, and for the decoder."""
        while self._waits_to_begin or self._outbox.is_full:
            if self._lifeline.command() is not None:
                return
            time.sleep(0.001)
            self.look()

    def end(self, command: str) -> None:
        """Ends what is open, waits for the answers that are due, and says so."""
        reason: Reason = "no_data" if command == "finish" else "shutdown"
        detail = "the source ended" if command == "finish" else "the session was stopped"
        self._ways = None  # what comes now, or waits, opens no trial: the results node has it
        self._send(self.trials.end(reason, detail))
        self._say_notices()
        self._wait_for_answers(_PATIENCE_S[command])
        if self._trial_file is not None:
            self._trial_file.close()
        if self._adaptation is not None:
            if self._n_kept:
                self._keeping.join()
            write_state(self._adaptation_path, self._adaptation.state())
        self._say_alive()
        facts = self.trials.acquisition.facts() | {"notices": self._notices}
        facts["simulated"] = self.is_simulated
        if self._feed is not None:
            self._feed.flush(at_once=True)
            facts["not_recorded"] = self._feed.n_lost
        send(self.reports, End(reason=command, facts=facts))

    def _wait_for_answers(self, patience_s: float) -> None:
        kept, deadline_s = self._outbox.n_kept, time.monotonic() + patience_s
        while self._outbox.n_kept and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)
            self.look()
            # In virtual time all is read before a slow decoder is there: the session waits for it.
            if self._outbox.n_kept < kept or self._outbox.waits_for_decoder:
                kept, deadline_s = self._outbox.n_kept, time.monotonic() + patience_s
            if self._lifeline.command() == "stop":
                patience_s = _PATIENCE_S["stop"]
                deadline_s = min(deadline_s, time.monotonic() + patience_s)

    def _send(self, said: Iterable[Opened | Slice | Trial | Drop]) -> None:
        for one in said:
            match one:
                case Opened():
                    self._numbers.give(one.number)
                    told = announcement(self._config.session, one.number, one.event)
                    self._announced.keep(told)
                    self._outbox.announce(told)
                case Slice():
                    self._send_slice(one)
                case Drop(number=trial, reason=reason, detail=detail):
                    self._outbox.report(TrialDropped(trial=trial, reason=reason, detail=detail))
                case Trial():
                    self._finish(one)

    def _send_slice(self, part: Slice) -> None:
        trial = part.trial
        self._outbox.send_slice(
            TrialSlice(
                about=trial_ref(self._config.session, trial.number, trial.event),
                first=part.first,
                corrects=part.corrects,
                final=part.final,
                residual_s=trial.residual_s,
                stamps=self._stamps(trial),
                array=part.array,
            )
        )

    def _finish(self, trial: Trial) -> None:
        if self._trial_file is not None:
            try:
                self._trial_file.add(trial)
            except OSError as error:  # what is left of the session is worth more than its end
                self.say(f"no trial is saved from {trial.number} on ({error.strerror})")
                self._trial_file = None
        if self._config.bundle is None:
            stamps = self._stamps(trial)
            cut = TrialCut(trial=trial.number, residual_s=trial.residual_s, stamps=stamps)
            self._outbox.report(cut)

    def _stamps(self, trial: Trial) -> dict[str, float]:
        # In virtual time `readable_s` is the data's own; what took time counts from the chunk.
        live = isinstance(self._config.source, LiveSource)
        readable_s = trial.readable_s if live else self._taken_s
        # From when on an answer is waited for: the window's last sample, if its stamp is a moment.
        end_s = trial.last_stamp_s if self._config.realtime else readable_s
        return {"window_end": end_s, "readable": readable_s, "cut": local_clock()}
