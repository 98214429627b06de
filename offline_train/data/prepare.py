"""From a study to a trial set, by the code that cuts and preprocesses trials live.

`prepare` fits the preprocessing to the trials, which are to be trained on; `prepare_test` takes it
as it was fitted before.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from hvf_core.artifact import space_needed
from hvf_core.problem import Problem, needed
from offline_train.data.cut import outcomes
from offline_train.data.settings import CutSettings, PrepareSettings, PrepareTestSettings
from offline_train.data.study import Facts, Study
from offline_train.data.trial_set import TrialFormat, TrialSet, load_trial_set, write_trial_set
from stream.acquire.adaptation import Adaptation
from stream.acquire.preprocess import Preprocessing, fit
from stream.acquire.settings import PreprocessSettings
from stream.acquire.trial_stream import TrialPlan
from stream.acquire.units import Signal
from stream.sources.recording import Recording

_BLOCK = 256  # trials
_SAME_UNIT = 30.0  # caps and persons differ by a few times, units by 1000


@dataclass
class Prepared:
    """What became of the markers: trials that were kept, and drops by reason.

    `notices` are sentences that a person should hear of the part that was cut last.
    """

    n_trials: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notices: tuple[str, ...] = ()


def prepare(
    study: Study,
    settings: PrepareSettings,
    directory: Path,
    *,
    provenance: Mapping[str, JsonValue] | None = None,
    on_recording: Callable[[str, Prepared], None] = lambda name, so_far: None,
) -> TrialSet:
    """Cuts the trials of a study, fits the preprocessing to them, and writes them.

    It is fitted to the trials whose split is `train`, or not known; with `per_session`, to those
    of each session alone. A bundle takes over what is fitted to all of these together also then: a
    live session is none of them.

    Args:
        on_recording: called after each part of the study, with its name.

    Raises:
        Problem: no trial is left, or none to fit to, or a part does not fit the settings.
    """
    asked = settings.preprocessing
    unfitted = {"output_channels": asked.channels, "whitening": "none", "scaling": "none"}
    plan = TrialPlan(
        Preprocessing(asked.model_copy(update=unfitted)),
        marker_rule=settings.markers,
        reject=settings.reject,
    )
    signals: list[Signal] = []
    odd: list[dict[str, str]] = []
    rows: list[tuple[Facts, str]] = []
    spool_at = Path(tempfile.gettempdir())
    with space_needed(spool_at), tempfile.TemporaryFile(dir=spool_at) as spool:
        for facts, stimulus, trial in _trials(study, plan, settings, signals, odd, on_recording):
            spool.write(trial.tobytes())
            rows.append((facts, stimulus))
        spool.flush()
        _check_channels(odd, asked)
        shape = (len(rows), len(asked.channels), asked.n_times)
        trials = np.memmap(spool, np.float32, "r", shape=shape)
        learnt = np.array([facts.split in ("train", None) for facts, _ in rows])
        fitted = _fit(asked, trials, learnt, "the study")
        fits = {}
        for key in {facts.session_key for facts, _ in rows} if settings.per_session else ():
            own = learnt & [facts.session_key == key for facts, _ in rows]
            fits[key] = _fit(asked, trials, own, f"the session '{Facts(*key).name}'")
        trial_format = _format(asked, signals[0], study, provenance)
        arrays = {key: fit.arrays for key, fit in fits.items()}
        with write_trial_set(directory, trial_format, fitted.arrays, arrays) as writer:
            start = 0
            for facts, of_part in groupby(rows, key=itemgetter(0)):
                spatial = fits.get(facts.session_key, fitted).spatial_matrix(asked.channels)
                while block := [stimulus for _, stimulus in islice(of_part, _BLOCK)]:
                    made = spatial @ trials[start : start + len(block)]
                    writer.append(made, **_columns(study, facts, block))
                    start += len(block)
    return load_trial_set(directory)


def prepare_test(
    study: Study,
    preprocessing: Preprocessing,
    directory: Path,
    settings: PrepareTestSettings,
    *,
    provenance: Mapping[str, JsonValue] | None = None,
    on_recording: Callable[[str, Prepared], None] = lambda name, so_far: None,
) -> TrialSet:
    """Cuts the trials of a study as a live session with a bundle does, and writes them.

    Args:
        preprocessing: of the bundle, as it was fitted in training.
        settings: with `adaptation`, every part is adapted on its own, from its own earlier trials.
        on_recording: called after each part of the study, with its name.

    Raises:
        Problem: no trial is left, or a part does not fit the bundle.
    """
    plan = TrialPlan(preprocessing, marker_rule=settings.markers, reject=settings.reject)
    signal = preprocessing.signal
    trial_format = _format(preprocessing.settings, signal, study, provenance)
    with write_trial_set(directory, trial_format, preprocessing.arrays) as writer:
        cut = _trials(study, plan, settings, [signal], [], on_recording)
        for facts, stimulus, trial in cut:
            writer.append(trial[None], **_columns(study, facts, [stimulus]))
    return load_trial_set(directory)


def _trials(
    study: Study,
    plan: TrialPlan,
    settings: CutSettings,
    signals: list[Signal],
    odd: list[dict[str, str]],
    on_recording: Callable[[str, Prepared], None],
) -> Iterator[tuple[Facts, str, np.ndarray]]:
    """The trials of a study that are left, with their facts and stimuli; the first signal holds.

    `signals` and `odd` take what the parts record, and which of their channels are odd.
    """
    prepared, preprocessing = Prepared(), needed(plan.preprocessing)
    sizes: dict[str, float] = {}
    adaptation = settings.adaptation if isinstance(settings, PrepareTestSettings) else None
    for data, facts in study.parts:
        recording = data if isinstance(data, Recording) else data.some()
        recording = recording.corrected(settings.channel_map, settings.true_rate_hz)
        signals.append(recording.signal(preprocessing.settings.channels))
        signals[-1].check(signals[0], f"'{facts.name}'")
        sizes[facts.name] = recording.size(preprocessing.settings.channels)
        _check_sizes(sizes)
        adapted = Adaptation(preprocessing, adaptation) if adaptation is not None else None
        odd.append(recording.odd_channels(preprocessing.settings.channels))
        notices = [_told(odd[-1])] if odd[-1] else []
        named = replace(data, channels=recording.channels, rate_hz=recording.rate_hz)
        for outcome in outcomes(named, plan, adapted, notices.append):
            if isinstance(outcome, str):
                prepared.dropped[outcome] += 1
            else:
                prepared.n_trials += 1
                yield facts, *outcome
        prepared.notices = tuple(notices)
        on_recording(facts.name, prepared)
    if not prepared.n_trials:
        dropped = ", ".join(f"{n} {reason}" for reason, n in prepared.dropped.items())
        raise Problem(
            f"no trial was left of the recordings (dropped: {dropped or 'no marker fits'}); "
            "check the markers, the window and --stimuli"
        )


def _check_sizes(sizes: Mapping[str, float]) -> None:
    """Refuses recordings that are of one unit by name, and by their values are not."""
    moving = {name: size for name, size in sizes.items() if size > 0}
    if not moving:
        return
    small, large = (choose(moving, key=moving.__getitem__) for choose in (min, max))
    if moving[large] > _SAME_UNIT * moving[small]:
        raise Problem(
            f"the channels of '{large}' move by {moving[large]:.3g} and those of '{small}' by "
            f"{moving[small]:.3g} (SD over a second), so one of them is in another unit than its "
            "file says: correct the unit in the file, or leave the recording out"
        )


def odd_everywhere(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Channels that are odd in all of some recordings, as `Recording.odd_channels` finds them."""
    names = [{name.casefold() for name in odd} for odd in found]
    common = set.intersection(*names) if names else set()
    return {name: text for name, text in (found or [{}])[0].items() if name.casefold() in common}


def _told(odd: Mapping[str, str]) -> str:
    listed = ", ".join(f"{name} ({text})" for name, text in odd.items())
    return f"channels that move far less or more than the others (SD over a second): {listed}"


def _check_channels(found: Sequence[Mapping[str, str]], settings: PreprocessSettings) -> None:
    """Refuses channels that whitening would take for quiet or loud ones, and live ones drown."""
    odd = odd_everywhere(found)
    odd.pop(settings.reference, None)  # which is flat where it is recorded at all
    if odd:
        raise Problem(
            f"{_told(odd)}, in all of the recordings, so that a model would learn nothing of them "
            "and break down where they are well: leave them out of the channels"
        )


def _fit(
    settings: PreprocessSettings, trials: np.ndarray, chosen: np.ndarray, whose: str
) -> Preprocessing:
    """Fits to the chosen trials (bool, (n,)), without a copy where they lie side by side."""
    rows = np.flatnonzero(chosen)
    if not len(rows):
        raise Problem(
            f"{whose} has no training trial to fit the preprocessing to: give it some, of the "
            "split `train` or of none"
        )
    side_by_side = rows[-1] - rows[0] == len(rows) - 1
    return fit(settings, trials[rows[0] : rows[-1] + 1] if side_by_side else trials[rows])


def _columns(study: Study, facts: Facts, stimuli: Sequence[str]) -> dict[str, Any]:
    columns = asdict(facts) | {"stimulus": stimuli}
    if study.images:
        shown = [study.images.get(stimulus) for stimulus in stimuli]
        columns["image"] = [image and image.path for image in shown]
        columns["category"] = [image and image.category for image in shown]
    return columns


def _format(
    settings: PreprocessSettings,
    signal: Signal,
    study: Study,
    provenance: Mapping[str, JsonValue] | None,
) -> TrialFormat:
    return TrialFormat(
        channels=settings.output_channels,
        kind=signal.kind,
        unit=signal.unit,
        rate_hz=settings.rate_hz,
        tmin_s=settings.tmin_s,
        tmax_s=settings.tmax_s,
        preprocessing=settings.model_dump(mode="json"),
        provenance={"study": study.name, **(provenance or {})},
    )
