"""What the reader does with what arrives: cuts and sends trials, and keeps the books of both."""

import time
from collections.abc import Sequence
from dataclasses import asdict

import zmq

from decoder.bundle import open_bundle
from hvf_core.problem import Problem
from index.gallery import open_gallery
from stream.acquire.acquisition import Acquisition, Opened
from stream.acquire.adaptation import Adaptation, rest
from stream.acquire.chunk import Chunk
from stream.acquire.lsl import local_clock
from stream.acquire.markers import Event
from stream.acquire.preprocess import Preprocessing
from stream.acquire.reject import Rejection
from stream.acquire.slices import Slice, Slicer
from stream.acquire.trials import Drop, Part, Reason, Trial, Window
from stream.acquire.triggers import TriggerReader
from stream.pipeline.nodes.node import Lifeline
from stream.pipeline.nodes.recording_feed import RecordingFeed
from stream.pipeline.nodes.trial_file import TrialFile
from stream.pipeline.wire.bus import drain, open_socket, send
from stream.pipeline.wire.config import DecodingSettings, FileSource, LiveSource, SessionConfig
from stream.pipeline.wire.messages import (
    End,
    MarkerSeen,
    NodeState,
    Settled,
    TrialCut,
    TrialDropped,
    TrialRef,
    TrialSlice,
)
from stream.pipeline.wire.outbox import Outbox

ADAPTATION = "adaptation.safetensors"
"""In the session folder: what the adaptation had come to at the end."""
_LOOK_S = 0.005  # how often the bus is looked at while samples stream
_PATIENCE_S = {"finish": 20.0, "stop": 3.0}  # for the answers that are still due at the end


class Intake:
    """Everything after the inlet: takes chunks, sends trials, and keeps the books of both.

    Args:
        channels: labels of the EEG stream.
        channel_format: of the stream, for the recording: `float32`, `double64` or `int32`.
    """

    def __init__(
        self,
        config: SessionConfig,
        lifeline: Lifeline,
        channels: Sequence[str],
        rate_hz: float,
        channel_format: str,
    ):
        self._config = config
        self._lifeline = lifeline
        channels = [config.channel_map.get(name, name) for name in channels]
        preprocessing = None
        self._slicer = None
        self._adaptation = None
        window = Window.of(config.trials.tmin_s, config.trials.tmax_s, rate_hz)
        columns = list(range(len(channels)))
        if config.bundle is not None:
            bundle = open_bundle(config.bundle)
            preprocessing = Preprocessing.of(bundle)
            transform = preprocessing.prepare(channels, rate_hz)
            window, columns = transform.window, transform.columns
            self._adaptation = starting_adaptation(config.decoding, preprocessing)
            marks = bundle.manifest.marks(config.decoding.tmax_s)
            self._slicer = Slicer(transform, marks[:-1], self._adaptation)
        settings = config.trials
        self._acquisition = Acquisition(
            len(channels),
            rate_hz,
            window,
            marker_rule=config.marker_rule,
            history_s=settings.history_s,
            no_data_after_s=settings.no_data_after_s,
            known_stimuli=set(open_gallery(config.gallery).ids) if config.gallery else None,
            first_number=config.first_trial,
            stream_filter=preprocessing.stream_filter(rate_hz, columns) if preprocessing else None,
            rejection=Rejection(config.reject, columns, channels),
            triggers=trigger_reader(config, channels),
            cross_check=config.trigger is not None and _has_markers(config),
            stops=self._slicer.stops if self._slicer is not None else (),
            urgent=self._slicer.urgent if self._slicer is not None else (),
        )
        self._reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False)
        self._results = open_socket(zmq.SUB, config.endpoints.results, bind=False)
        trials = None
        if self._slicer is not None:
            trials = open_socket(zmq.PUSH, config.endpoints.trials, bind=True)
        self._outbox = Outbox(self._reports, trials, settings.max_unanswered)
        self._feed = None
        if config.record:
            self._feed = RecordingFeed(config, channels, rate_hz, channel_format)
        self._trial_file = None
        if config.save_trials is not None:
            self._trial_file = TrialFile(config.save_trials, channels, rate_hz, window)
        self._next_look_s = 0.0
        self._taken_s = 0.0
        self._n_gaps = 0
        alive = NodeState(session=config.session, node="reader", incarnation=lifeline.incarnation)
        send(self._reports, alive)

    @property
    def reports(self) -> zmq.Socket:
        """What goes to the results node."""
        return self._reports

    @property
    def next_due_in_s(self) -> float:
        """Stream time until the next trial can be cut."""
        return self._acquisition.next_due_in_s

    @property
    def drift_ppm(self) -> float:
        return self._acquisition.drift_ppm

    def take(self, stream: str, chunk: Chunk) -> int:
        """Takes what arrived on `eeg` or `markers`; returns the number of gaps in it."""
        self._taken_s = local_clock()
        if self._feed is not None:
            self._feed.add(stream, chunk)
        n_gaps = 0
        if stream == "eeg":
            opened, n_gaps = self._acquisition.add_eeg(chunk)
            self._n_gaps += n_gaps
        else:
            opened = self._acquisition.add_markers(chunk)
        for entry in opened:
            self._announce(entry)
        return n_gaps

    def _announce(self, opened: Opened) -> None:
        event = opened.event
        about = self._about(opened.number, event)
        self._outbox.announce(MarkerSeen(about=about, readable_s=event.readable_s))
        if opened.drop is not None:
            self._drop(opened.drop)

    def cut(self, now_s: float) -> None:
        """Sends every trial whose last sample is there, and what there is of the others."""
        for outcome in self._acquisition.due(now_s):
            if isinstance(outcome, Drop):
                self._drop(outcome)
            elif isinstance(outcome, Part):
                self._send_slice(outcome, self._slicer.part(outcome))
            else:
                self._send(outcome)

    def look(self) -> None:
        """Looks at the bus, at most every few milliseconds."""
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_S
        for message in drain(self._results):
            if isinstance(message, Settled):
                self._outbox.on_settled(message)
            elif isinstance(message, NodeState):
                self._outbox.on_node_state(message)
        self._outbox.flush()
        if self._feed is not None:
            self._feed.flush()

    def wait_for_room(self) -> None:
        """In virtual time the recording waits for the decoder, so that no trial overflows."""
        while self._outbox.is_full and self._lifeline.command() is None:
            time.sleep(0.001)
            self.look()

    def end(self, command: str) -> None:
        """Ends what is open, waits for the answers that are due, and says so."""
        reason: Reason = "no_data" if command == "finish" else "shutdown"
        detail = "the source ended" if command == "finish" else "the session was stopped"
        for drop in self._acquisition.end(reason, detail):
            self._drop(drop)
        self._wait_for_answers(_PATIENCE_S[command])
        if self._trial_file is not None:
            self._trial_file.close()
        if self._adaptation is not None:
            self._adaptation.save(self._config.folder / ADAPTATION)
        if self._feed is not None:
            self._feed.close()
        facts = self._facts()
        send(self._reports, End(session=self._config.session, reason=command, facts=facts))

    def _facts(self) -> dict[str, object]:
        """What the summary is to say of the streams."""
        facts: dict[str, object] = {
            "gaps": self._n_gaps,
            "ignored_markers": self._acquisition.n_ignored,
            "drift_ppm": round(self._acquisition.drift_ppm, 3),
        }
        if self._acquisition.agreement is not None:
            facts["cross_check"] = asdict(self._acquisition.agreement)
        if self._feed is not None:
            facts["not_recorded"] = self._feed.n_lost
        return facts

    def _wait_for_answers(self, patience_s: float) -> None:
        kept, deadline_s = self._outbox.n_kept, time.monotonic() + patience_s
        while self._outbox.n_kept and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)
            self.look()
            if self._outbox.n_kept < kept:
                kept, deadline_s = self._outbox.n_kept, time.monotonic() + patience_s
            if self._lifeline.command() == "stop":
                patience_s = _PATIENCE_S["stop"]
                deadline_s = min(deadline_s, time.monotonic() + patience_s)

    def _send(self, trial: Trial) -> None:
        if self._slicer is not None:
            self._send_slice(trial, self._slicer.last(trial))
            self._slicer.learn(trial)
        if self._trial_file is not None:
            self._trial_file.add(trial)
        if self._slicer is None:
            self._outbox.report(
                TrialCut(
                    session=self._config.session,
                    trial=trial.number,
                    residual_s=trial.residual_s,
                    stamps=self._stamps(trial),
                )
            )

    def _send_slice(self, trial: Trial | Part, part: Slice) -> None:
        self._outbox.send_slice(
            TrialSlice(
                about=self._about(trial.number, trial.event),
                first=part.first,
                final=part.final,
                residual_s=trial.residual_s,
                stamps=self._stamps(trial),
                array=part.array,
            )
        )

    def _about(self, number: int, event: Event) -> TrialRef:
        return TrialRef(
            session=self._config.session,
            trial=number,
            stimulus=event.stimulus,
            group=event.group,
            repeat=event.repeat,
            onset_s=event.onset_s,
        )

    def _stamps(self, trial: Trial | Part) -> dict[str, float]:
        # In virtual time `readable_s` is the data's own; what took time counts from the chunk.
        live = isinstance(self._config.source, LiveSource)
        readable_s = trial.readable_s if live else self._taken_s
        return {"last_sample": trial.last_stamp_s, "readable": readable_s, "cut": local_clock()}

    def _drop(self, drop: Drop) -> None:
        if self._slicer is not None:
            self._slicer.forget(drop.number)
        self._outbox.report(
            TrialDropped(
                session=self._config.session,
                trial=drop.number,
                reason=drop.reason,
                detail=drop.detail,
            )
        )


def _has_markers(config: SessionConfig) -> bool:
    return isinstance(config.source, FileSource) or config.source.markers is not None


def trigger_reader(
    config: SessionConfig, channels: Sequence[str]
) -> tuple[TriggerReader, int] | None:
    """What reads a session's trigger channel, and the channel's column; None where it has none.

    Raises:
        Problem: the stream has no such channel.
    """
    if config.trigger is None:
        return None
    name = config.trigger.channel
    if name not in channels:
        raise Problem(
            f"the stream has no channel '{name}' to read triggers from; give --trigger one of "
            f"{', '.join(channels)}"
        )
    return TriggerReader(config.trigger), list(channels).index(name)


def starting_adaptation(
    settings: DecodingSettings, preprocessing: Preprocessing
) -> Adaptation | None:
    """The adaptation that a session begins with; None where it has none.

    Raises:
        Problem: the bundle has no trial covariance, or the resting recording cannot be used.
    """
    if settings.adaptation is None:
        return None
    start = None
    if settings.rest is not None:
        # Here, as MNE takes a second to import.
        from stream.sources.cut_recording import rest_windows
        from stream.sources.recording import read_recording

        windows = rest_windows(read_recording(settings.rest), preprocessing)
        start = rest(preprocessing, windows, settings.adaptation)
    return Adaptation(preprocessing, settings.adaptation, start)
