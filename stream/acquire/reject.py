"""Refuses trials that hold no brain signal: artefacts, dead channels, missing values."""

from collections.abc import Collection, Sequence

import numpy as np

from hvf_core.settings import Settings, setting


class RejectSettings(Settings):
    """Limits per channel of EEG or MEG over a trial, as MNE's `reject` and `flat`.

    NaN always rejects.
    """

    peak_to_peak_uv: float | None = setting(None, option="--reject", live=True, ge=0)
    """Reject trials with more than this, peak to peak, in any channel of EEG."""
    flat_uv: float | None = setting(None, option="--flat", live=True, ge=0)
    """Reject trials with less than this, peak to peak, in any channel of EEG."""
    keep_bad: bool = setting(False, option="--keep-bad", live=True)
    """Keep trials that overlap with spans that were marked bad."""


class Rejection:
    """The limits for the channels of one stream.

    Args:
        columns: of the stream that are looked at: a dead channel that nobody uses spoils no trial.
        channels: labels of the stream's channels.
        beside: those that are no EEG; only missing values are looked for there, no limits hold.
    """

    def __init__(
        self,
        settings: RejectSettings,
        columns: Sequence[int],
        channels: Sequence[str],
        beside: Collection[str] = (),
    ):
        self._settings = settings
        self._columns = as_index(columns)
        self._names = [channels[column] for column in columns]
        limited = [place for place, name in enumerate(self._names) if name not in beside]
        self._limited = as_index(limited)
        self._limited_names = [self._names[place] for place in limited]

    @property
    def has_limits(self) -> bool:
        """Whether anything but missing values is looked for."""
        limits = (self._settings.peak_to_peak_uv, self._settings.flat_uv)
        return bool(self._limited_names) and limits != (None, None)

    def why(self, samples: np.ndarray) -> str | None:
        """Why a trial, (times, channels) in microvolts, is rejected; None where it is good."""
        samples = samples[:, self._columns]
        is_finite = np.isfinite(samples.sum(axis=0))  # a sum is, where every value is
        if not is_finite.all():
            return f"{self._names[int(np.argmin(is_finite))]} holds values that are not finite"
        if not self.has_limits:
            return None
        high, low = self._settings.peak_to_peak_uv, self._settings.flat_uv
        samples = samples[:, self._limited]
        peak_to_peak = samples.max(axis=0) - samples.min(axis=0)
        if high is not None and peak_to_peak.max() > high:
            worst = int(peak_to_peak.argmax())
            return f"{self._limited_names[worst]} {peak_to_peak[worst]:.0f} uV peak to peak"
        if low is not None and peak_to_peak.min() < low:
            flattest = int(peak_to_peak.argmin())
            return f"{self._limited_names[flattest]} is flat ({peak_to_peak[flattest]:.2g} uV)"
        return None


def as_index(columns: Sequence[int]) -> slice | list[int]:
    """Columns for NumPy: a slice, which copies nothing, where they are neighbours in order."""
    columns = list(columns)
    if columns and columns == list(range(columns[0], columns[0] + len(columns))):
        return slice(columns[0], columns[0] + len(columns))
    return columns
