"""Plays a recording without LSL and without waiting, as the chunks that inlets would deliver."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from stream.acquire.chunk import Chunk, StreamKind
from stream.sources.recording import Recording, offsets_at

_CHUNK_S = 0.05
_PAUSE_S = 0.25  # no chunk holds samples from before and after a longer one


def play(
    recording: Recording, chunk_samples: int | None = None
) -> Iterator[tuple[StreamKind, Chunk]]:
    """Chunks of EEG and markers in the order of their time on the reader's clock.

    A chunk's `readable_s` is the stamp of its newest sample, so time is the data's own: the same
    recording gives the same trials at any speed. Stored clock offsets apply from the moment at
    which they were taken, as they did live. No chunk is longer than `chunk_samples` (50 ms unless
    given), holds samples from both sides of a pause, or is newer than the marker that comes next.
    Which spans are bad is told before anything else, as it was known before this replay.
    """
    markers = _marker_chunks(recording)
    times_s = [chunk.readable_s for chunk in markers]
    if recording.bad_spans:
        yield "markers", _bad_spans(recording, min([*times_s, float(recording.stamps_s[0])]))
    for raw_s, samples, offset_s in _eeg_parts(recording, chunk_samples, times_s):
        newest_s = float(raw_s[-1] + offset_s)
        while markers and markers[0].readable_s <= newest_s:
            yield "markers", markers.pop(0)
        yield "eeg", Chunk(raw_s, samples, offset_s, newest_s)
    for chunk in markers:
        yield "markers", chunk


def _eeg_parts(
    recording: Recording, chunk_samples: int | None, marker_s: list[float]
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    stamps_s = recording.stamps_s
    offsets_s = offsets_at(recording.eeg_offsets, stamps_s)
    changes = np.flatnonzero(np.diff(offsets_s)) + 1
    pauses = np.flatnonzero(np.diff(stamps_s) > _PAUSE_S) + 1
    chunk_samples = chunk_samples or max(1, round(_CHUNK_S * recording.rate_hz))
    regular = np.arange(0, len(stamps_s), chunk_samples)
    at_markers = np.searchsorted(stamps_s + offsets_s, marker_s)
    edges = np.unique(np.concatenate([regular, changes, pauses, at_markers, [len(stamps_s)]]))
    for start, stop in pairwise(edges.tolist()):
        yield stamps_s[start:stop], recording.samples[start:stop], float(offsets_s[start])


def _bad_spans(recording: Recording, readable_s: float) -> Chunk:
    starts_s = np.array([span.start_s for span in recording.bad_spans])
    rows = np.array([[span.text] for span in recording.bad_spans], object)
    return Chunk(starts_s, rows, 0.0, readable_s)


def _marker_chunks(recording: Recording) -> list[Chunk]:
    offsets_s = offsets_at(recording.marker_offsets, [m.stamp_s for m in recording.markers])
    chunks = []
    for marker, offset_s in zip(recording.markers, offsets_s.tolist(), strict=True):
        row = np.array([[marker.text]], object)
        stamp_s = np.array([marker.stamp_s])
        chunks.append(Chunk(stamp_s, row, offset_s, marker.stamp_s + offset_s))
    return sorted(chunks, key=lambda chunk: chunk.readable_s)
