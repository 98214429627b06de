"""From recordings to a trial set, by the code that cuts and preprocesses trials live.

`prepare` fits the preprocessing to the trials, which are to be trained on; `prepare_test` takes it
as it was fitted before.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hvf_core.problem import Problem
from offline_train.data.trial_set import TrialFormat, TrialSet, load_trial_set, write_trial_set
from stream.acquire.adaptation import Adaptation, AdaptationSettings
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import Preprocessing, PreprocessSettings, fit
from stream.acquire.reject import RejectSettings
from stream.acquire.trial_stream import TrialPlan
from stream.acquire.trials import Drop
from stream.sources.cut_recording import cut_trials
from stream.sources.recording import Recording

_BLOCK = 256  # trials


@dataclass
class Prepared:
    """What became of the markers: trials that were kept, and drops by reason."""

    n_trials: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def prepare(
    recordings: Iterable[tuple[str, Recording]],
    settings: PreprocessSettings,
    directory: Path,
    *,
    marker_rule: MarkerRule | None = None,
    keep: Callable[[str], bool] = lambda stimulus: True,
    reject: RejectSettings | None = None,
    provenance: dict | None = None,
    on_recording: Callable[[str, Prepared], None] = lambda name, so_far: None,
) -> TrialSet:
    """Cuts the trials of recordings, fits the preprocessing to all of them, and writes them.

    Only training recordings may come here: what is fitted goes into the bundle.

    Args:
        recordings: name of the session, and its recording.
        on_recording: called after each recording.

    Raises:
        Problem: no trial is left, or a recording does not fit the settings.
    """
    unfitted = Preprocessing(
        settings.model_copy(
            update={
                "output_channels": settings.channels,
                "whitening": "none",
                "scaling": "none",
            }
        )
    )
    plan = TrialPlan(
        unfitted,
        marker_rule=marker_rule or MarkerRule(),
        reject=reject or RejectSettings(),
        is_known=keep,
    )
    prepared = Prepared()
    stimuli: list[str] = []
    sessions: list[str] = []
    shape = (len(settings.channels), settings.n_times)
    with tempfile.TemporaryFile() as spool:
        for name, recording in recordings:
            for outcome in cut_trials(recording, plan):
                if isinstance(outcome, Drop):
                    prepared.dropped[outcome.reason] += 1
                    continue
                spool.write(outcome.trial.tobytes())
                stimuli.append(outcome.stimulus)
                sessions.append(name)
            prepared.n_trials = len(stimuli)
            on_recording(name, prepared)
        _refuse_none(prepared)
        spool.flush()
        trials = np.memmap(spool, np.float32, "r", shape=(len(stimuli), *shape))
        fitted = fit(settings, trials)
        spatial = fitted.spatial_matrix(settings.channels)
        trial_format = _format(settings, provenance)
        with write_trial_set(directory, trial_format, fitted.arrays) as writer:
            for start in range(0, len(stimuli), _BLOCK):
                rows = slice(start, start + _BLOCK)
                writer.append(spatial @ trials[rows], stimuli[rows], sessions[rows])
    return load_trial_set(directory)


def prepare_test(
    recordings: Iterable[tuple[str, Recording]],
    preprocessing: Preprocessing,
    directory: Path,
    *,
    marker_rule: MarkerRule | None = None,
    reject: RejectSettings | None = None,
    adaptation: AdaptationSettings | None = None,
    provenance: dict | None = None,
    on_recording: Callable[[str, Prepared], None] = lambda name, so_far: None,
) -> TrialSet:
    """Cuts the trials of recordings as a live session with a bundle does, and writes them.

    Args:
        recordings: name of the session, and its recording.
        preprocessing: of the bundle, as it was fitted in training.
        adaptation: adapts every recording on its own, from its own earlier trials.
        on_recording: called after each recording.

    Raises:
        Problem: no trial is left, or a recording does not fit the bundle.
    """
    plan = TrialPlan(
        preprocessing, marker_rule=marker_rule or MarkerRule(), reject=reject or RejectSettings()
    )
    prepared = Prepared()
    trial_format = _format(preprocessing.settings, provenance)
    with write_trial_set(directory, trial_format, preprocessing.arrays) as writer:
        for name, recording in recordings:
            adapted = Adaptation(preprocessing, adaptation) if adaptation is not None else None
            for outcome in cut_trials(recording, plan, adapted):
                if isinstance(outcome, Drop):
                    prepared.dropped[outcome.reason] += 1
                else:
                    writer.append(outcome.trial[None], [outcome.stimulus], [name])
            prepared.n_trials = len(writer.stimuli)
            on_recording(name, prepared)
        _refuse_none(prepared)
    return load_trial_set(directory)


def _format(settings: PreprocessSettings, provenance: dict | None) -> TrialFormat:
    return TrialFormat(
        channels=settings.output_channels,
        rate_hz=settings.rate_hz,
        tmin_s=settings.tmin_s,
        tmax_s=settings.tmax_s,
        preprocessing=settings.model_dump(mode="json"),
        provenance=provenance or {},
    )


def _refuse_none(prepared: Prepared) -> None:
    if not prepared.n_trials:
        dropped = ", ".join(f"{n} {reason}" for reason, n in prepared.dropped.items())
        raise Problem(
            f"no trial was left of the recordings (dropped: {dropped or 'no marker fits'}); "
            "check the markers, the window and --stimuli"
        )
