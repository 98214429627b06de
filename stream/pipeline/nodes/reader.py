"""The reader node: from LSL, or a recording in virtual time, to trials for the decoder.

Here is where samples come from and when they are looked at; `TrialSender` does the rest.
"""

import queue
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from hvf_core.problem import Problem
from hvf_core.swift import Sweeper
from stream.acquire.chunk import Chunk, StreamKind
from stream.acquire.inlet import Inlet
from stream.acquire.lsl import find_stream, local_clock
from stream.pipeline.nodes.node import Lifeline, run_node
from stream.pipeline.nodes.stream_watch import StreamWatch
from stream.pipeline.nodes.trial_sender import TrialSender
from stream.pipeline.wire.config import FileSource, LiveSource, SessionConfig
from stream.pipeline.wire.nodes import READER
from stream.recorder.header import corrected, legible, made

Arrivals = queue.SimpleQueue[tuple[StreamKind, Chunk]]
Watches = Mapping[StreamKind, StreamWatch]
_WAIT_S = 0.02  # longest wait for a sample before looking after everything else
_HURRY_S = 0.024  # before the end of a trial: three of the inlet's unhurried deliveries
_QUIET_S = 0.5  # a source that ended has delivered everything after this silence ...
_REST_S = 10.0  # ... and is not waited for any longer than this


def run(config: SessionConfig, lifeline: Lifeline) -> None:
    """Runs the reader until its source or its session ends."""
    if isinstance(config.source, FileSource):
        _read_recording(config, config.source, lifeline)
    else:
        _read_live(config, config.source, lifeline)


def _read_live(config: SessionConfig, source: LiveSource, lifeline: Lifeline) -> None:
    arrivals: Arrivals = queue.SimpleQueue()
    trigger = [config.trigger.channel] if config.trigger is not None else []
    with ThreadPoolExecutor(1) as beside:  # to find and open a stream is a second and a half
        opening = beside.submit(_open_markers, source, arrivals)
        eeg = _open_eeg(source, config.channel_map, trigger, arrivals)
    inlets: dict[StreamKind, Inlet] = {"eeg": eeg}
    if (markers := opening.result()) is not None:
        inlets["markers"] = markers
    rate_hz = config.true_rate_hz or eeg.stream.rate_hz
    told = (eeg.channels, rate_hz, _headers(config, inlets), eeg.signal, eeg.kinds)
    sender = TrialSender(config, lifeline, *told, since_s=local_clock())
    for inlet in inlets.values():
        if inlet.stream.notice:
            sender.say(inlet.stream.notice)
    sender.is_simulated = eeg.is_simulated
    if eeg.is_simulated and not config.simulated:
        sender.say(f"the EEG of stream '{eeg.stream.name}' is simulated", simulated=True)
    chosen = {"eeg": source.source_id, "markers": source.marker_source_id}
    watches = {
        kind: StreamWatch(kind, inlet, sender.reports, trigger, chosen[kind] is not None)
        for kind, inlet in inlets.items()
    }
    for inlet in inlets.values():
        inlet.start()
    lifeline.ready()
    command = _pump(sender, watches, eeg, arrivals, lifeline)
    if command == "finish":
        _pump_rest(sender, watches, arrivals)
    sender.trials.acquisition.attention.until_s = local_clock()
    for inlet in inlets.values():
        inlet.stop()
    while not arrivals.empty():
        _take_next(sender, watches, arrivals)
    sender.end(command)


def _headers(config: SessionConfig, inlets: Mapping[StreamKind, Inlet]) -> Mapping[StreamKind, str]:
    """What the recording says of the streams: their own words, but for what a person corrects."""
    headers = {kind: legible(inlet.header) for kind, inlet in inlets.items()}
    if config.channel_map or config.true_rate_hz or config.trigger:
        codes = [config.trigger.channel] if config.trigger is not None else []
        told = (inlets["eeg"].channels, config.true_rate_hz, codes)
        headers["eeg"] = corrected(headers["eeg"], *told)
    return headers


def _open_eeg(
    source: LiveSource, names: Mapping[str, str], trigger: Sequence[str], arrivals: Arrivals
) -> Inlet:
    stream = find_stream(source.eeg, source.wait_s, source.source_id)
    if stream.rate_hz <= 0:
        raise Problem(
            f"the stream {stream} has no sampling rate, an EEG stream has one; give the name "
            "of the EEG stream with --eeg"
        )
    return Inlet(stream, lambda chunk: arrivals.put(("eeg", chunk)), names=names, unscaled=trigger)


def _open_markers(source: LiveSource, arrivals: Arrivals) -> Inlet | None:
    if source.markers is None:
        return None
    stream = find_stream(source.markers, source.wait_s, source.marker_source_id)
    if stream.rate_hz > 0:
        raise Problem(
            f"the stream {stream} is sampled at a rate, a marker stream is irregular; "
            "give the name of the marker stream with --markers, or the channel of an EEG "
            "stream that carries codes with --trigger"
        )
    return Inlet(stream, lambda chunk: arrivals.put(("markers", chunk)))


def _pump(
    sender: TrialSender,
    watches: Watches,
    eeg: Inlet,
    arrivals: Arrivals,
    lifeline: Lifeline,
) -> str:
    sweeper = Sweeper()
    while (command := lifeline.command()) is None:
        _take_next(sender, watches, arrivals)
        # Only the last samples of a trial are urgent; between them a few at a time do.
        due_in_s = sender.trials.acquisition.next_due_in_s
        eeg.hurry = due_in_s < _HURRY_S
        sweeper.look(due_in_s)
        for watch in watches.values():
            for sentence in watch.look(sender.trials.acquisition.flow):
                sender.say(sentence)
    return command


def _pump_rest(sender: TrialSender, watches: Watches, arrivals: Arrivals) -> None:
    quiet_s = time.monotonic() + _QUIET_S
    end_s = time.monotonic() + _REST_S
    cutter = sender.trials.acquisition.cutter
    while time.monotonic() < end_s:
        is_whole, is_quiet = cutter.next_end_s == np.inf, time.monotonic() > quiet_s
        if is_whole if cutter.is_paused else is_quiet:  # paused: a source that goes on
            return
        if _take_next(sender, watches, arrivals):
            quiet_s = time.monotonic() + _QUIET_S


def _take_next(sender: TrialSender, watches: Watches, arrivals: Arrivals) -> bool:
    acquisition, came, taken_s = sender.trials.acquisition, None, None
    n_gaps = acquisition.n_gaps
    with suppress(queue.Empty):
        came = stream, chunk = arrivals.get(timeout=_WAIT_S)
        sender.take(stream, chunk)
        taken_s = None if arrivals.empty() else chunk.readable_s
    sender.cut(acquisition.attention.look(local_clock(), taken_s))
    if came is not None:  # an answer waits for the cut, and nobody for this
        watches[stream].arrived(chunk, acquisition.n_gaps - n_gaps)
    sender.look()
    return came is not None


def _read_recording(config: SessionConfig, source: FileSource, lifeline: Lifeline) -> None:
    # Here, as MNE takes a second to import.
    from stream.sources.read import read_recording
    from stream.sources.virtual_time import play

    recording = read_recording(source.path, source, source.stop_s)
    recording = recording.corrected(config.channel_map, config.true_rate_hz)
    channels, rate_hz = recording.channels, recording.rate_hz
    signal, kinds = recording.signal(channels), recording.kinds
    headers: dict[StreamKind, str] = {
        "eeg": made(
            recording.name,
            "EEG",
            rate_hz,
            "float32",
            channels,
            kinds,
            recording.units,
            recording.simulated,
        ),
        "markers": made("markers", "Markers", 0.0, "string"),
    }
    sender = TrialSender(config, lifeline, channels, rate_hz, headers, signal, kinds)
    sender.is_simulated = recording.simulated
    for notice in recording.notices:
        sender.say(notice)
    lifeline.ready()
    command = "finish"
    for stream, chunk in play(recording):
        sender.wait_for_room()
        sender.take(stream, chunk)
        sender.cut(chunk.readable_s)
        sender.look()
        asked = lifeline.command()
        if asked == "stop" or (asked and sender.trials.acquisition.cutter.next_end_s == np.inf):
            command = asked
            break
    sender.end(command)


if __name__ == "__main__":
    run_node(READER, run)
