"""From recordings to a trial set, by the code that cuts and preprocesses trials live."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from decoder.problem import Problem
from offline_train.trial_set import TrialFormat, TrialSet, load_trial_set, write_trial_set
from stream.acquire.acquisition import Acquisition
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import Preprocessing, PreprocessSettings, fit
from stream.acquire.reject import Rejection, RejectSettings
from stream.acquire.trials import Drop, Trial
from stream.sources.recording import Recording
from stream.sources.virtual_time import play

_BLOCK = 256  # trials


@dataclass(frozen=True)
class CutTrial:
    """A preprocessed trial, (output channels, times) float32."""

    number: int
    stimulus: str
    trial: np.ndarray


@dataclass
class Prepared:
    """What became of the markers: trials that were kept, and drops by reason."""

    n_trials: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def cut_trials(
    recording: Recording,
    preprocessing: Preprocessing,
    marker_rule: MarkerRule | None = None,
    *,
    keep: Callable[[str], bool] = lambda stimulus: True,
    reject: RejectSettings | None = None,
) -> Iterator[CutTrial | Drop]:
    """Cuts a recording in virtual time, in the order of the onsets.

    Args:
        keep: whether trials of a stimulus are wanted; others are passed over.
        reject: limits; trials that hold NaN are rejected in any case.

    Raises:
        Problem: the recording lacks a channel, or its rate is too low.
    """
    transform = preprocessing.prepare(recording.channels, recording.rate_hz)
    acquisition = Acquisition(
        len(recording.channels),
        recording.rate_hz,
        transform.window,
        marker_rule=marker_rule,
        stream_filter=preprocessing.stream_filter(recording.rate_hz, transform.columns),
        rejection=Rejection(reject or RejectSettings(), transform.columns, recording.channels),
    )

    def outcomes(due: Iterable[Trial | Drop]) -> Iterator[CutTrial | Drop]:
        for outcome in due:
            stimulus = outcome.event.stimulus
            if not keep(stimulus):
                continue
            if isinstance(outcome, Drop):
                yield outcome
            else:
                yield CutTrial(outcome.number, stimulus, transform(outcome.samples))

    for stream, chunk in play(recording):
        if stream == "eeg":
            acquisition.add_eeg(chunk)
        else:
            opened = acquisition.add_markers(chunk)
            yield from outcomes(entry.drop for entry in opened if entry.drop is not None)
        yield from outcomes(acquisition.due(chunk.readable_s))
    yield from outcomes(acquisition.end("no_data", "the recording ended"))


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
    prepared = Prepared()
    stimuli: list[str] = []
    sessions: list[str] = []
    shape = (len(settings.channels), settings.n_times)
    with tempfile.TemporaryFile() as spool:
        for name, recording in recordings:
            for outcome in cut_trials(recording, unfitted, marker_rule, keep=keep, reject=reject):
                if isinstance(outcome, Drop):
                    prepared.dropped[outcome.reason] += 1
                    continue
                spool.write(outcome.trial.tobytes())
                stimuli.append(outcome.stimulus)
                sessions.append(name)
            prepared.n_trials = len(stimuli)
            on_recording(name, prepared)
        if not stimuli:
            dropped = ", ".join(f"{n} {reason}" for reason, n in prepared.dropped.items())
            raise Problem(
                f"no trial was left of the recordings (dropped: {dropped or 'no marker fits'}); "
                "check the markers, the window and --stimuli"
            )
        spool.flush()
        trials = np.memmap(spool, np.float32, "r", shape=(len(stimuli), *shape))
        fitted = fit(settings, trials)
        spatial = fitted.spatial_matrix(settings.channels)
        trial_format = TrialFormat(
            channels=settings.output_channels,
            rate_hz=settings.rate_hz,
            tmin_s=settings.tmin_s,
            tmax_s=settings.tmax_s,
            preprocessing=settings.model_dump(mode="json"),
            provenance=provenance or {},
        )
        with write_trial_set(directory, trial_format, fitted.arrays) as writer:
            for start in range(0, len(stimuli), _BLOCK):
                rows = slice(start, start + _BLOCK)
                writer.append(spatial @ trials[rows], stimuli[rows], sessions[rows])
    return load_trial_set(directory)
