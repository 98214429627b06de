"""The trials of some minutes before a session, cut as the session will."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from hvf_core.problem import Problem, needed
from stream.acquire.preprocess import Preprocessing
from stream.acquire.slices import Slice
from stream.acquire.trial_stream import TrialPlan, TrialStream
from stream.acquire.trials import Drop
from stream.acquire.watch.health import flat_and_clipped
from stream.pipeline.trials import trial_plan
from stream.pipeline.wire.config import SessionSettings
from stream.sources.cut_recording import run_through
from stream.sources.recording import Recording

_FEWEST_LIGHTS = 10


class Cut(NamedTuple):
    """The trials of a recording as a session cuts them, and what became of the others."""

    trials: np.ndarray
    """float32 (n, output channels, times), preprocessed."""
    stimuli: Sequence[str]
    dropped: Mapping[str, int]
    facts: Mapping[str, Any]
    """What a summary tells of the streams."""
    light_s: float | None = None
    """From marker to light, where a channel tells it."""
    flat: Sequence[str] = ()
    """Channels of the bundle that never move."""

    def sentence(self) -> str:
        dropped = ", ".join(f"{n} {reason}" for reason, n in self.dropped.items()) or "none"
        told = f"{len(self.trials)} trials of {len({*self.stimuli})} images, dropped: {dropped}"
        if self.light_s is None:
            return told
        check = self.facts["cross_check"]
        return (
            f"{told}; the light came {1e3 * self.light_s:.1f} ms after its marker (mean of "
            f"{check['matched']}, SD {check['offset_sd_ms']:.1f} ms)"
        )


def cut_today(recording: Recording, settings: SessionSettings, preprocessing: Preprocessing) -> Cut:
    """Cuts by the markers and, where a trigger channel tells when the light came, by that.

    Raises:
        Problem: the bundle cannot decode such a recording, or the channel tells too little.
    """
    recording.signal(preprocessing.settings.channels).check(preprocessing.signal, "the stream")
    plan = replace(trial_plan(settings), preprocessing=preprocessing)
    is_flat, _ = flat_and_clipped(recording.samples)
    still = {*compress(recording.channels, is_flat)}
    flat = [name for name in preprocessing.settings.channels if name in still]
    cut = _cut(recording, plan)._replace(flat=flat)
    if (check := cut.facts.get("cross_check")) is None:
        return cut
    if check["matched"] < _FEWEST_LIGHTS:
        raise Problem(
            f"the channel '{needed(settings.trigger).channel}' rose near {check['matched']} of "
            f"{len(recording.markers)} markers, {_FEWEST_LIGHTS} are needed to tell when the light "
            "comes: look at the photodiode, or leave --trigger out"
        )
    light_s = -check["offset_mean_ms"] / 1e3
    rule = plan.marker_rule
    shifted = rule.model_copy(update={"shift_s": rule.shift_s + light_s})
    again = _cut(recording, replace(plan, marker_rule=shifted))
    return again._replace(light_s=light_s, flat=flat)


def _cut(recording: Recording, plan: TrialPlan) -> Cut:
    stream = TrialStream(recording.channels, recording.rate_hz, plan, None, recording.kinds)
    trials, stimuli, dropped = list[np.ndarray](), list[str](), Counter[str]()
    for one in run_through(stream, recording):
        if isinstance(one, Slice):
            trials.append(one.array)
            stimuli.append(one.trial.event.stimulus)
        elif isinstance(one, Drop):
            dropped[one.reason] += 1
    return Cut(np.array(trials), stimuli, dropped, stream.acquisition.facts())
