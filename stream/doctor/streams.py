"""The streams of a session to come: there, as the bundle needs them, and flowing now."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from decoder.bundle import open_bundle
from hvf_core.problem import Problem
from hvf_core.text import some_of
from stream.acquire.chunk import Chunk
from stream.acquire.preprocess import Preprocessing
from stream.acquire.watch.health import HealthMonitor
from stream.doctor.verdict import Named, Verdict, refused, verdict

if TYPE_CHECKING:
    from stream.acquire.inlet import Inlet

_LISTEN_S = 2.5
_OFF = 0.01  # of the rate
_LATE_MS = 500.0  # from stamp to readable; some amplifiers send 0.2 s at once


def flow(named: Named) -> Iterator[Verdict]:
    """Listens to both streams at once: some players begin when both are heard."""
    settings, source = named.settings, named.settings.source
    if source is None:
        return
    from stream.acquire.inlet import Inlet
    from stream.acquire.lsl import find_stream

    trigger = [settings.trigger.channel] if settings.trigger is not None else []
    chunks: dict[str | None, list[Chunk]] = {
        name: [] for name in (source.eeg, source.markers) if name
    }
    inlets: dict[str | None, Inlet] = {}
    chosen = {source.eeg: source.source_id, source.markers: source.marker_source_id}
    for name, arrived in chunks.items():
        try:
            stream = find_stream(str(name), source.wait_s, chosen[name])
            inlets[name] = Inlet(stream, arrived.append, settings.channel_map, trigger)
        except Problem as problem:
            yield Verdict("FAIL", str(problem))
    for inlet in inlets.values():
        inlet.start()
    time.sleep(_LISTEN_S if inlets else 0)
    for inlet in inlets.values():
        inlet.stop()
    if source.markers in inlets:
        inlet = inlets[source.markers]
        n = sum(len(chunk.raw_s) for chunk in chunks[source.markers])
        yield verdict(
            f"{inlet.stream} is there, {n} markers came in {_LISTEN_S:g} s, {_offset(inlet)}",
            (inlet.stream.rate_hz, "it is regular, name a stream of markers, or --trigger"),
            (not n, "none was sent meanwhile, show some images while you run this again"),
        )
    if source.eeg in inlets:
        rate_hz = settings.true_rate_hz or inlets[source.eeg].stream.rate_hz
        yield from _fits(inlets[source.eeg], rate_hz, trigger, settings.bundle)
        yield from _flows(inlets[source.eeg], rate_hz, trigger, chunks[source.eeg])
        if settings.bundle is not None:
            marked_s = [s for one in chunks.get(source.markers, ()) for s in one.raw_s.tolist()]
            yield from _answers(settings.bundle, marked_s, chunks[source.eeg])


def _fits(
    inlet: "Inlet", rate_hz: float, trigger: Sequence[str], bundle: Path | None
) -> Iterator[Verdict]:
    channels = f"{len(inlet.channels)} channels ({some_of(inlet.channels)})"
    yield verdict(
        f"{inlet.stream} is there, {inlet.signal}, {channels}",
        (not set(trigger) <= set(inlet.channels), f"it has no channel {trigger}, see --trigger"),
    )
    if bundle is not None:
        needs = Preprocessing.of(open_bundle(bundle))
        yield from refused(lambda: needs.prepare(inlet.channels, rate_hz))
        yield from refused(lambda: inlet.signal.check(needs.signal, f"stream {inlet.stream}"))


def _answers(bundle: Path, marked_s: Sequence[float], chunks: Sequence[Chunk]) -> Iterator[Verdict]:
    """When answers will come, by the bundle's window, how the samples come and how often images."""
    manifest = open_bundle(bundle).manifest
    late_s = median(one.readable_s - one.raw_s[-1] - one.offset_s for one in chunks[1:])
    apart_s = min(np.diff(marked_s), default=np.inf)
    yield verdict(
        f"an answer comes {manifest.tmax_s + late_s:.2f} s after its image: the window ends at "
        f"{manifest.tmax_s:g} s, its last sample can be read {1e3 * late_s:.0f} ms later",
        (
            apart_s < manifest.tmax_s,
            f"images come {apart_s:.2f} s apart, so that windows overlap: was it trained so?",
        ),
    )


def _offset(inlet: "Inlet") -> str:
    return f"clock offset {inlet.offset_s * 1e3:.2f} +- {inlet.offset_uncertainty_s * 1e3:.2f} ms"


def _flows(
    inlet: "Inlet", told_hz: float, trigger: Sequence[str], chunks: Sequence[Chunk]
) -> Iterator[Verdict]:
    """Rate, delays and channels by what came; the first chunk may have waited for us."""
    if not inlet.stream.rate_hz:
        raise Problem(f"{inlet.stream} is irregular: name a stream of EEG with --eeg")
    if len(chunks) < 2:
        raise Problem(f"no samples of {inlet.stream} came in {_LISTEN_S:g} s: start the amplifier")
    monitor = HealthMonitor(inlet.channels, told_hz)
    for one in chunks:
        monitor.arrived(one.samples, one.readable_s)
    health = monitor.report(chunks[-1].readable_s)
    span_s = float(chunks[-1].raw_s[-1] - chunks[0].raw_s[-1])
    rate_hz = sum(len(one.raw_s) for one in chunks[1:]) / span_s if span_s > 0 else 0.0
    yield verdict(
        f"samples come at {rate_hz:.1f} Hz",
        (abs(rate_hz / told_hz - 1) > _OFF, f"it promises {told_hz:g} Hz, are some lost?"),
    )
    late_ms = [(one.readable_s - one.raw_s[-1] - one.offset_s) * 1e3 for one in chunks[1:]]
    is_early = min(late_ms) < -1 - inlet.offset_uncertainty_s * 1e3
    yield verdict(
        f"they can be read {median(late_ms):.1f} ms after their stamps (median; "
        f"{min(late_ms):.1f} to {max(late_ms):.1f}), {_offset(inlet)}",
        (is_early or max(late_ms) > _LATE_MS, "its stamps are of another clock, or it is too slow"),
    )
    flat = [name for name in health.flat if name not in trigger]
    yield verdict(
        f"flat channels: {' '.join(flat) or 'none'}; clipped: {' '.join(health.clipped) or 'none'}",
        (flat or health.clipped, "look at their electrodes, the reference and the range"),
    )


CHECKS = (flow,)
