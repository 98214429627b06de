"""What the reader does with what arrives: cuts and sends trials, and keeps the books of both."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import zmq

from decoder.bundle import load_bundle
from decoder.problem import Problem
from index.gallery import load_gallery
from stream.acquire.acquisition import Acquisition, Opened
from stream.acquire.inlet import Chunk
from stream.acquire.lsl import local_clock
from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from stream.acquire.reject import Rejection
from stream.acquire.trials import Drop, Reason, Trial, Window
from stream.acquire.triggers import TriggerReader
from stream.pipeline.bus import drain, open_socket, send
from stream.pipeline.config import FileSource, LiveSource, SessionConfig
from stream.pipeline.messages import (
    End,
    MarkerSeen,
    NodeState,
    Settled,
    TrialCut,
    TrialDropped,
    TrialSlice,
)
from stream.pipeline.node import Lifeline
from stream.pipeline.outbox import Outbox
from stream.pipeline.recording_feed import RecordingFeed
from stream.pipeline.trial_file import TrialFile

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
        preprocessing = _preprocessing(config.bundle) if config.bundle is not None else None
        self._transform = None
        window = Window.of(config.trials.tmin_s, config.trials.tmax_s, rate_hz)
        columns = list(range(len(channels)))
        if preprocessing is not None:
            self._transform = preprocessing.prepare(channels, rate_hz)
            window, columns = self._transform.window, self._transform.columns
        settings = config.trials
        self._acquisition = Acquisition(
            len(channels),
            rate_hz,
            window,
            marker_rule=config.marker_rule,
            history_s=settings.history_s,
            no_data_after_s=settings.no_data_after_s,
            known_stimuli=set(load_gallery(config.gallery).ids) if config.gallery else None,
            first_number=config.first_trial,
            stream_filter=preprocessing.stream_filter(rate_hz, columns) if preprocessing else None,
            rejection=Rejection(config.reject, columns, channels),
            triggers=_triggers(config, channels),
            cross_check=config.trigger is not None and _has_markers(config),
        )
        self._reports = open_socket(zmq.PUSH, config.endpoints.reports, bind=False)
        self._results = open_socket(zmq.SUB, config.endpoints.results, bind=False)
        trials = None
        if self._transform is not None:
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
        self._pyxdf_stamps_s: np.ndarray | None = None
        self._differences_s: list[float] = []  # of every trial's stamps, from pyxdf's
        send(self._reports, NodeState(config.session, "reader", lifeline.incarnation, "alive"))

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
        self._outbox.announce(
            MarkerSeen(
                self._config.session,
                opened.number,
                event.stimulus,
                event.group,
                event.repeat,
                event.onset_s,
                event.readable_s,
            )
        )
        if opened.drop is not None:
            self._drop(opened.drop)

    def compare_with(self, pyxdf_stamps_s: np.ndarray | None) -> None:
        """Where a recording is read that pyxdf could stamp: its stamps of the samples to come."""
        self._pyxdf_stamps_s = pyxdf_stamps_s

    def _pyxdf_difference(self, trial: Trial) -> float:
        if self._pyxdf_stamps_s is None:
            return np.nan
        return trial.first_stamp_s - float(self._pyxdf_stamps_s[trial.first_sample])

    def cut(self, now_s: float) -> None:
        """Sends every trial whose last sample is there."""
        for outcome in self._acquisition.due(now_s):
            if isinstance(outcome, Drop):
                self._drop(outcome)
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
        if self._feed is not None:
            self._feed.close()
        send(self._reports, End(self._config.session, command, self._facts()))

    def _facts(self) -> dict[str, object]:
        """What the summary is to say of the streams."""
        facts: dict[str, object] = {
            "gaps": self._n_gaps,
            "ignored_markers": self._acquisition.n_ignored,
            "drift_ppm": round(self._acquisition.drift_ppm, 3),
        }
        if self._acquisition.agreement is not None:
            facts["cross_check"] = asdict(self._acquisition.agreement)
        if self._pyxdf_stamps_s is not None and self._differences_s:
            off_ms = np.array(self._differences_s) * 1e3
            facts["pyxdf_difference_ms"] = {
                "median": float(np.median(off_ms)),
                "largest": float(off_ms[np.abs(off_ms).argmax()]),
            }
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
        event = trial.event
        # In virtual time `readable_s` is the data's own; what took time counts from the chunk.
        live = isinstance(self._config.source, LiveSource)
        readable_s = trial.readable_s if live else self._taken_s
        stamps = {"last_sample": trial.last_stamp_s, "readable": readable_s}
        self._differences_s.append(self._pyxdf_difference(trial))
        if self._trial_file is not None:
            self._trial_file.add(trial, self._differences_s[-1])
        if self._transform is None:
            stamps["cut"] = local_clock()
            self._outbox.report(
                TrialCut(self._config.session, trial.number, trial.residual_s, stamps)
            )
            return
        array = self._transform(trial.samples)
        stamps["cut"] = local_clock()
        self._outbox.send_trial(
            TrialSlice(
                session=self._config.session,
                trial=trial.number,
                stimulus=event.stimulus,
                group=event.group,
                repeat=event.repeat,
                first=0,
                final=True,
                onset_s=event.onset_s,
                residual_s=trial.residual_s,
                stamps=stamps,
                array=array,
            )
        )

    def _drop(self, drop: Drop) -> None:
        self._outbox.report(
            TrialDropped(self._config.session, drop.number, drop.reason, drop.detail)
        )


def _has_markers(config: SessionConfig) -> bool:
    return isinstance(config.source, FileSource) or config.source.markers is not None


def _triggers(config: SessionConfig, channels: Sequence[str]) -> tuple[TriggerReader, int] | None:
    if config.trigger is None:
        return None
    name = config.trigger.channel
    if name not in channels:
        raise Problem(
            f"the stream has no channel '{name}' to read triggers from; give --trigger one of "
            f"{', '.join(channels)}"
        )
    return TriggerReader(config.trigger), list(channels).index(name)


def _preprocessing(bundle_path: Path) -> Preprocessing:
    bundle = load_bundle(bundle_path)
    try:
        settings = PreprocessSettings.model_validate(bundle.manifest.preprocessing)
    except ValueError as error:
        raise Problem(
            f"the preprocessing of the bundle '{bundle_path}' is not understood "
            f"({str(error).splitlines()[0]}); train it again with this version"
        ) from None
    return Preprocessing(settings, bundle.arrays("preprocessing"))
