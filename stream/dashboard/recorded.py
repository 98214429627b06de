"""The EEG of a trial of a session that is over, from its recordings."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.watch.signals import Decimator
from stream.client import Eeg, MarkerSeen
from stream.dashboard.board.signals import Signals
from stream.sources.read import read_recording
from stream.sources.recording import Recording, offsets_at

_MOST_BYTES = 500e6  # of files that are read while somebody waits for a trial
_BESIDE_S = 0.5  # for the filter, on either side


class RecordedTrials:
    """Cuts trials from the recordings in a session's folder, which are read at the first.

    Args:
        window_s: of a trial, around its onset.
    """

    def __init__(self, folder: Path, window_s: tuple[float, float]):
        self._folder, self._window_s = folder, window_s

    def trial(self, marker: MarkerSeen) -> dict[str, Any]:
        """The EEG of a trial as pages show it, or why there is none."""
        number, signals = marker.about.trial, Signals(self._window_s)
        try:
            recordings = self._recordings
        except (Problem, OSError) as problem:
            return signals.trial(number) | {"sentence": f"There is no EEG of it: {problem}."}
        for recording, stamps_s in recordings:
            signals.opened(marker)
            signals.take(self._around(recording, stamps_s, marker.about.onset_s))
            if signals.n_cut:
                return signals.trial(number)
        return signals.trial(number) | {"sentence": "Its EEG is not whole in the recording."}

    @cached_property
    def _recordings(self) -> list[tuple[Recording, np.ndarray]]:
        """All of them, each with its stamps on the session's clock."""
        files = sorted(self._folder.glob("recording*.xdf"))
        if not files:
            raise Problem("nothing was recorded")
        n_bytes = sum(file.stat().st_size for file in files)
        if n_bytes > _MOST_BYTES:
            raise Problem(f"the recording has {n_bytes / 1e6:.0f} MB, too much to be read for it")
        return list(self._read(files))

    def _read(self, files: list[Path]) -> Iterator[tuple[Recording, np.ndarray]]:
        for recording in map(read_recording, files):
            raw_s = recording.stamps_s
            yield recording, raw_s + offsets_at(recording.eeg_offsets, raw_s)

    def _around(self, recording: Recording, stamps_s: np.ndarray, onset_s: float) -> Eeg:
        """The EEG around an onset, as a session has it to be watched."""
        channels = list(recording.brain_channels)
        columns = [recording.channels.index(name) for name in channels]
        span_s = (onset_s + self._window_s[0] - _BESIDE_S, onset_s + self._window_s[1] + _BESIDE_S)
        part = slice(*np.searchsorted(stamps_s, span_s))
        decimator = Decimator(recording.rate_hz, len(columns))
        samples, there_s = decimator.take(recording.samples[part][:, columns], stamps_s[part])
        array = np.ascontiguousarray(samples, np.float32).data
        return Eeg("", 0, channels, decimator.rate_hz, there_s.tolist(), [], [], array)
