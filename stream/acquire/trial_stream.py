"""A stream's trials: samples and markers go in; announcements, slices, trials and drops come out.

Live, in virtual time and in training it is the same: the last stop of the trial's way.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from stream.acquire.acquisition import Acquisition
from stream.acquire.adaptation import Adaptation
from stream.acquire.channels import brain_channels
from stream.acquire.chunk import Chunk, StreamKind
from stream.acquire.markers import Event, MarkerRule
from stream.acquire.preprocess import Preprocessing
from stream.acquire.reject import Rejection, RejectSettings
from stream.acquire.slices import Slice, Slicer
from stream.acquire.trials import Cutting, Drop, Opened, Reason, Trial, Window
from stream.acquire.triggers import TriggerSettings, trigger_reader


@dataclass(frozen=True)
class TrialPlan:
    """How trials are made, whatever the stream.

    Attributes:
        preprocessing: what slices are made with; None: trials are cut, and there are no slices.
        window_s: tmin and tmax of trials where there is no preprocessing.
        marks: numbers of times (samples of a preprocessed trial) after which somebody waits for a
            slice; None gives each trial as one slice, at its end.
        trigger: a channel of the EEG that opens trials; with `cross_check` it is compared with
            the markers instead.
        is_known, history_s, no_data_after_s, first_number, is_left_out: see `Cutting`.
    """

    preprocessing: Preprocessing | None = None
    window_s: tuple[float, float] = (-0.2, 1.0)
    marks: tuple[int, ...] | None = None
    marker_rule: MarkerRule = field(default_factory=MarkerRule)
    reject: RejectSettings = field(default_factory=RejectSettings)
    trigger: TriggerSettings | None = None
    cross_check: bool = False
    is_known: Callable[[str], bool] = lambda stimulus: True
    history_s: float = Cutting.history_s
    no_data_after_s: float = Cutting.no_data_after_s
    first_number: int = 1
    is_left_out: Callable[[Event], bool] = lambda event: False


class TrialStream:
    """The trials of one stream.

    Args:
        channels: labels of the EEG stream, as the plan's settings call them.
        rate_hz: its nominal rate.
        adaptation: what earlier trials say about the session; it goes on from where it is.
        kinds: what each channel records, in the stream's words, where it says so.

    Attributes:
        window: the samples of a trial, counted from its onset sample.
        acquisition: the way to trials: what it has seen, and what it waits for.

    Raises:
        Problem: the stream lacks a channel, or is too slow.
    """

    def __init__(
        self,
        channels: Sequence[str],
        rate_hz: float,
        plan: TrialPlan,
        adaptation: Adaptation | None = None,
        kinds: Sequence[str] = (),
    ):
        self._channels = tuple(channels)
        brain = set(brain_channels(channels, kinds))
        if plan.trigger is not None:
            brain.discard(plan.trigger.channel)
        self._beside = set(channels) - brain
        self._judged = [column for column, name in enumerate(channels) if name in brain]
        self.window = Window.of(*plan.window_s, rate_hz)
        self._slicer, stream_filter = None, None
        if plan.preprocessing is not None:
            transform = plan.preprocessing.prepare(channels, rate_hz)
            self.window, self._judged = transform.window, transform.columns
            stream_filter = transform.stream_filter
            self._slicer = Slicer(transform, plan.marks or (), adaptation)
        slicer = self._slicer if plan.marks is not None else None
        cutting = Cutting(
            self.window,
            rate_hz,
            stops=slicer.stops if slicer is not None else (),
            urgent=slicer.urgent if slicer is not None else (),
            history_s=plan.history_s,
            no_data_after_s=plan.no_data_after_s,
            is_known=plan.is_known,
            first_number=plan.first_number,
            is_left_out=plan.is_left_out,
        )
        self.acquisition = Acquisition(
            len(channels),
            cutting,
            marker_rule=plan.marker_rule,
            stream_filter=stream_filter,
            triggers=trigger_reader(plan.trigger, channels) if plan.trigger is not None else None,
            cross_check=plan.cross_check,
        )
        self.reject(plan.reject)

    def add(self, stream: StreamKind, chunk: Chunk) -> list[Opened | Drop]:
        """Takes what arrived; announces trials, each followed by its drop if it ended at once."""
        if stream == "eeg":
            return self.acquisition.add_eeg(chunk)
        return self.acquisition.add_markers(chunk)

    def due(self, now_s: float) -> Iterator[Slice | Trial | Drop]:
        """What is there now: slices of trials, and how trials ended, a whole one after its slices.

        Take all of it before anything is added: its samples are views of a ring. What a slice
        needs is done before it is given, and what can wait until it was sent, after.

        Args:
            now_s: the time on the clock of `readable_s`.
        """
        for one in self.acquisition.due(now_s):
            if isinstance(one, Trial) and self._slicer is not None:
                yield self._slicer.take(one)
                if not one.is_whole:
                    continue
                self._slicer.learn(one)
            elif self._slicer is not None:
                self._slicer.forget(one.number)
            yield one

    def end(self, reason: Reason, detail: str) -> list[Drop]:
        """Drops what is still open."""
        return self.acquisition.end(reason, detail)

    def pause(self) -> None:
        """Markers open no trials from now on, and end as `paused`; open trials go on."""
        self.acquisition.cutter.is_paused = True

    def resume(self) -> None:
        """Markers open trials again."""
        self.acquisition.cutter.is_paused = False

    def know(self, is_known: Callable[[str], bool]) -> None:
        """Changes which stimuli may open trials from now on."""
        self.acquisition.cutter.is_known = is_known

    def reject(self, settings: RejectSettings) -> None:
        """Changes the limits by which trials are refused from now on."""
        self.acquisition.cutter.rejection = None
        if self._judged:
            told = (self._judged, self._channels, self._beside)
            self.acquisition.cutter.rejection = Rejection(settings, *told)
        self.acquisition.cutter.keeps_bad = settings.keep_bad
