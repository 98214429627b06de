"""Of a session that only cuts trials: how its channels were, and what they have in common."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.channels import brain_channels
from stream.acquire.trial_stream import TrialStream
from stream.acquire.trials import Trial
from stream.acquire.watch.signals import Quality, QualityMeter
from stream.pipeline.report.charts import Frame, chart, line, text, ticks, time_axis, upright
from stream.pipeline.report.markup import chart_with, folded, note, section, side_by_side, table
from stream.pipeline.report.story import Story
from stream.pipeline.trials import trial_plan
from stream.pipeline.wire.config import FileSource, SessionConfig
from stream.sources.recording import Recording
from stream.sources.xdf import write_excerpt

MOST_BYTES = 64e6
"""Of recordings that a session's end waits for; of larger ones parts from all over are read."""
_MOST_SECONDS = 60  # whose channels are looked at, from all over
_MOST_SAMPLES = 150_000  # in which trials are cut
_UNITS = {"microvolts": "µV", "femtoteslas": "fT"}
_MOST_POINTS = 120
_SHADES = 8
_ODD = 4.0  # times what is usual
_SAME_S = 5e-4  # onsets of one trial, as told and as found again


@dataclass
class Signals:
    """What was measured of a session's recordings, channel by channel.

    Attributes:
        columns: of the channels that record the brain.
        seconds: how each second was.
        evoked: the sum of the trials (times, channels), from each of which the mean before its
            onset was taken.
    """

    channels: Sequence[str]
    unit: str
    rate_hz: float
    columns: Sequence[int]
    n_samples: int = 0
    seconds: list[Quality] = field(default_factory=list)
    evoked: np.ndarray | None = None
    first: int = 0
    n_trials: int = 0

    def add(self, recording: Recording, config: SessionConfig, onsets_s: np.ndarray) -> None:
        """Measures a recording; of its trials those count that the session has cut."""
        n = max(2, round(self.rate_hz))
        whole = len(recording.samples) // n
        looked_at = np.linspace(0, max(0, whole - 1), min(whole, _MOST_SECONDS), dtype=int)
        for second in looked_at.tolist():
            part = slice(second * n, (second + 1) * n)
            meter = QualityMeter(self.rate_hz, len(self.columns))
            samples = recording.samples[part, self.columns]
            self.seconds += meter.take(samples, recording.stamps_s[part])
        room = _MOST_SAMPLES - self.n_samples
        self.n_samples += len(recording.samples)
        if room < len(recording.samples):
            if room < n:
                return
            until_s = float(recording.stamps_s[room] - recording.stamps_s[0])
            recording = recording.slice(0.0, until_s)
        for trial in _trials(recording, config, self):
            at = int(np.searchsorted(onsets_s, trial.event.onset_s - _SAME_S))
            if at < len(onsets_s) and onsets_s[at] <= trial.event.onset_s + _SAME_S:
                self._add_trial(trial)

    def _add_trial(self, trial: Trial) -> None:
        samples = trial.samples[:, self.columns].astype(np.float64)
        before = samples[: max(0, -self.first)]
        samples -= (before if len(before) else samples).mean(axis=0)
        self.evoked = samples if self.evoked is None else self.evoked + samples
        self.n_trials += 1


def signal_part(config: SessionConfig, story: Story) -> str:
    """The section; "" for a session without recording."""
    try:
        signals = measured(config, story)
    except Problem as problem:
        return section("signals", "Signals", note(f"There is nothing to show: {problem}."))
    if signals is None or not (signals.channels and signals.seconds):
        return ""
    return section(
        "signals",
        "Signals",
        side_by_side(_evoked(signals), _over_time(signals)),
        _channels(signals),
    )


def measured(config: SessionConfig, story: Story) -> Signals | None:
    """Measures what the session recorded; None where that is nothing.

    Raises:
        Problem: a recording cannot be read.
    """
    onsets_s = np.array([trial.at_s for trial in story.trials if trial.fate == "cut"])
    signals = None
    for recording in _recordings(config):
        if signals is None:
            brain = brain_channels(recording.channels, recording.kinds)
            columns = [i for i, name in enumerate(recording.channels) if name in brain]
            unit = recording.units[columns[0]] if columns else ""
            names = [recording.channels[i] for i in columns]
            signals = Signals(names, _UNITS.get(unit, unit), recording.rate_hz, columns)
        signals.add(recording, config, np.sort(onsets_s))
    return signals


def _recordings(config: SessionConfig) -> Iterator[Recording]:
    from stream.sources.read import read_recording  # here, as MNE takes a second to import

    source = config.source
    if isinstance(source, FileSource):
        recording = read_recording(source.path, source, source.stop_s)
        yield recording.corrected(config.channel_map, config.true_rate_hz)
        return
    paths = sorted(config.folder.glob("recording*.xdf"), key=lambda path: (len(path.name), path))
    n_bytes = sum(path.stat().st_size for path in paths)
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            part = path
            if n_bytes > MOST_BYTES:
                part = Path(folder) / path.name
                write_excerpt(path, part, MOST_BYTES * path.stat().st_size / n_bytes)
            yield read_recording(part)  # what the session corrected was recorded so


def _trials(recording: Recording, config: SessionConfig, signals: Signals) -> Iterator[Trial]:
    from stream.sources.cut_recording import run_through

    stream = TrialStream(
        recording.channels, recording.rate_hz, trial_plan(config), kinds=recording.kinds
    )
    signals.first = stream.window.first
    for one in run_through(stream, recording):
        if isinstance(one, Trial) and one.is_whole:
            yield one


def _evoked(signals: Signals) -> str:
    """All channels of the mean trial, and how far they lie apart."""
    if signals.evoked is None:
        return ""
    mean = signals.evoked / signals.n_trials
    power = mean.std(axis=1)
    times_s = (signals.first + np.arange(len(mean))) / signals.rate_hz
    step = max(1, len(times_s) // _MOST_POINTS)
    largest = float(np.abs(mean).max()) or 1.0
    y_ticks = ticks(-largest, largest, 5)
    frame = Frame(
        (float(times_s[0]), float(times_s[-1])),
        (-largest * 1.05, largest * 1.05),
        "s after the onset",
        signals.unit,
        ticks(float(times_s[0]), float(times_s[-1]), 6),
        y_ticks,
    )
    marks = []
    for channel in mean.T:
        points = zip(times_s[::step].tolist(), channel[::step].tolist(), strict=True)
        marks.append(line(frame, points, "faint"))
    points = zip(times_s[::step].tolist(), power[::step].tolist(), strict=True)
    marks += [line(frame, points, "c2"), upright(frame, 0.0, "onset")]
    peak = int(power.argmax())
    some_s = _MOST_SAMPLES / signals.rate_hz
    part = f" of the first {some_s:.0f} s that were read" * (signals.n_samples > _MOST_SAMPLES)
    told = f"largest {power[peak]:.2g} {signals.unit} at {times_s[peak]:.3f} s"
    caption = (
        f"The mean of n = {signals.n_trials} trials{part}, {len(signals.channels)} channels, from "
        f"each the mean before the onset taken, no filter. The strong line: global field power, "
        f"{told}."
    )
    title = "Evoked response"
    return chart_with(title, chart(frame, f"{title}: global field power {told}", marks), caption)


def _over_time(signals: Signals) -> str:
    """Every channel's rms over the session, as shades: against the channels' median."""
    rms = np.array([second.rms_uv for second in signals.seconds])
    ends_s = np.array([second.until_s for second in signals.seconds])
    usual = float(np.median(rms)) or 1.0
    # From a quarter of what is usual to four times it.
    shades = np.log2(np.maximum(rms, 1e-9) / usual) / 4 + 0.5
    levels = np.clip(np.rint(shades * _SHADES), 0, _SHADES).astype(int)
    n_channels = len(signals.channels)
    span_s = max(float(ends_s[-1] - ends_s[0]), 0.0) + 1
    unit_s, unit = time_axis(span_s)
    row_px = 14 if n_channels <= 24 else 6
    frame = Frame(
        (0, span_s / unit_s),
        (0, n_channels),
        f"time ({unit})",
        x_ticks=ticks(0, span_s / unit_s, 6),
        height_px=max(230, row_px * n_channels + 48),
        left_px=64,
    )
    # Up to the next second that was looked at, but not over a hole between two recordings.
    steps_s = np.diff(ends_s, append=ends_s[-1] + 1)
    widths_s = np.minimum(steps_s, 3 * np.median(steps_s))
    lefts = [frame.px(x) for x in (ends_s - ends_s[0]) / unit_s]
    widths = widths_s / unit_s * (frame.px(frame.x[1]) - frame.px(0)) / frame.x[1]
    height = (frame.py(0) - frame.py(n_channels)) / n_channels
    marks = []
    for shade in range(_SHADES + 1):
        cells = "".join(
            f"M{lefts[i]:.1f} {frame.py(n_channels - j):.1f}h{widths[i]:.1f}"
            f"v{height:.2f}h-{widths[i]:.1f}z"
            for i, j in zip(*np.nonzero(levels == shade), strict=True)
        )
        if cells:
            opacity = f"{shade / _SHADES:.2f}"
            marks.append(f'<path class="shade" fill-opacity="{opacity}" d="{cells}"/>')
    every = -(-n_channels // 24)
    for j in range(0, n_channels, every):
        y = frame.py(n_channels - j - 0.5) + 4
        marks.append(text(58, y, signals.channels[j][:9], "end"))
    title = "Size of each channel over the session"
    caption = (
        f"rms in a second, of {len(rms)} seconds from all over; the darkest is 4 times the median "
        f"of {usual:.3g} {signals.unit}."
    )
    return chart_with(title, chart(frame, title, marks), caption)


def _channels(signals: Signals) -> str:
    """What each channel was like for most of the seconds, and which ones are to be looked at."""
    seconds, unit = signals.seconds, signals.unit
    rms, peaks, mains = (
        np.median([getattr(second, name) for second in seconds], axis=0)
        for name in ("rms_uv", "peak_to_peak_uv", "line_uv")
    )
    flat, clipped = (
        np.mean([getattr(second, name) for second in seconds], axis=0)
        for name in ("flat", "clipped")
    )
    hz = float(np.median([second.line_hz for second in seconds]))
    usual = float(np.median(rms))
    rows, noticed = [], []
    for i, name in enumerate(signals.channels):
        values = (f"{one[i]:.3g}" for one in (rms, peaks, mains))
        often = [f"{one[i]:.0%}" if one[i] else "–" for one in (flat, clipped)]
        rows.append((name, *values, *often))
        told = [f"flat {often[0]}"] if flat[i] else []
        told += [f"clipped {often[1]}"] if clipped[i] else []
        told += [f"{rms[i]:.3g} {unit}"] if not usual / _ODD < rms[i] < usual * _ODD else []
        told += ["mostly mains"] if mains[i] > rms[i] / 2 else []
        noticed += [f"{name} ({', '.join(told)})"] if told else []
    line_hz = f"{hz:g} Hz" if hz else "not sampled"
    head = ("channel", f"rms ({unit})", f"peak to peak ({unit})", f"mains, {line_hz} ({unit})")
    return (
        note(f"To be looked at: {'; '.join(noticed) or 'no channel'}. Medians over the session.")
        + note(
            f"The median channel: {usual:.3g} {unit} rms, of it mains "
            f"{np.median(mains):.3g} {unit}."
        )
        + folded("Channel by channel", table((*head, "flat", "clipped"), rows, "numbers"))
    )
