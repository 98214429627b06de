"""From a study to a trial set, by the code that cuts and preprocesses trials live.

`prepare` fits the preprocessing to the trials, which are to be trained on; `prepare_test` takes it
as it was fitted before.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from hvf_core.problem import Problem
from offline_train.data.pieces.piece import Cut, CutPart, HowCut, told_odd
from offline_train.data.pieces.work import Telling, cut_study
from offline_train.data.settings import PrepareSettings, PrepareTestSettings
from offline_train.data.study import Facts, Study
from offline_train.data.trial_set import (
    ADAPTED,
    TrialFormat,
    TrialSet,
    TrialSetWriter,
    load_trial_set,
    write_trial_set,
)
from offline_train.data.trial_table import check_splits
from stream.acquire.preprocess import Preprocessing, fit
from stream.acquire.settings import PreprocessSettings
from stream.acquire.units import Signal

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


OnRecording = Callable[[str, Prepared], object]
"""Is called after each part of a study, in its order, with the part's name."""
OnShare = Callable[[float], object]
"""Is called now and then with the share of a study that is cut."""


def prepare(
    study: Study,
    settings: PrepareSettings,
    directory: Path,
    *,
    provenance: Mapping[str, JsonValue] | None = None,
    on_recording: OnRecording = lambda name, so_far: None,
    on_share: OnShare = lambda share: None,
    say: Callable[[str], object] = lambda sentence: None,
) -> TrialSet:
    """Cuts the trials of a study, fits the preprocessing to them, and writes them.

    It is fitted to the trials whose split is `train`, or not known; with `per_session`, to those
    of each session alone. A bundle takes over what is fitted to all of these together also then: a
    live session is none of them. Where it is killed, the same call goes on from there.

    Raises:
        Problem: no trial is left, or none to fit to, or a part does not fit the settings.
    """
    asked = settings.preprocessing
    unfitted = {"output_channels": asked.channels, "whitening": "none", "scaling": "none"}
    plain = Preprocessing(asked.model_copy(update=unfitted))
    how = HowCut(plain, settings, sums_noise=asked.whitening == "mvnn")
    telling = Telling(_Hearing(on_recording), on_share, say)
    with cut_study(study, how, directory, telling) as cuts:
        _check_channels([cut.part.odd for cut in cuts], asked)
        if not settings.classes:
            check_splits(_shown(study, cuts))
        learnt = [cut for cut in cuts if cut.part.facts.is_learnt]
        fitted = _fit(asked, learnt, "the study")
        fits = {}
        keys = dict.fromkeys(cut.part.facts.session_key for cut in cuts if len(cut))
        for key in keys if settings.per_session else ():
            own = [cut for cut in learnt if cut.part.facts.session_key == key]
            fits[key] = _fit(asked, own, f"the session '{Facts(*key).name}'")
        trial_format = _format(asked, cuts[0].part.signal, study, provenance)
        arrays = {key: fit.arrays for key, fit in fits.items()}
        with write_trial_set(directory, trial_format, fitted.arrays, arrays) as writer:
            for cut in cuts:
                own_fit = fits.get(cut.part.facts.session_key, fitted)
                _write(writer, cut, study, own_fit.spatial_matrix(asked.channels))
    return load_trial_set(directory)


def prepare_test(
    study: Study,
    preprocessing: Preprocessing,
    directory: Path,
    settings: PrepareTestSettings,
    *,
    provenance: Mapping[str, JsonValue] | None = None,
    on_recording: OnRecording = lambda name, so_far: None,
    on_share: OnShare = lambda share: None,
    say: Callable[[str], object] = lambda sentence: None,
) -> TrialSet:
    """Cuts the trials of a study as a live session with a bundle does, and writes them.

    Args:
        preprocessing: of the bundle, as it was fitted in training.
        settings: with `adaptation`, every part is adapted on its own, from its own earlier trials.

    Raises:
        Problem: no trial is left, or a part does not fit the bundle.
    """
    how = HowCut(preprocessing, settings, settings.adaptation)
    told = dict(provenance or {})
    if settings.adaptation is not None:
        told[ADAPTED] = settings.adaptation.model_dump(mode="json")
    trial_format = _format(preprocessing.settings, preprocessing.signal, study, told)
    telling = Telling(_Hearing(on_recording, preprocessing.signal), on_share, say)
    with (
        cut_study(study, how, directory, telling) as cuts,
        write_trial_set(directory, trial_format, preprocessing.arrays) as writer,
    ):
        for cut in cuts:
            _write(writer, cut, study)
    return load_trial_set(directory)


@dataclass
class _Hearing:
    """Hears of part after part: all must record what the first does, or this signal."""

    on_recording: OnRecording
    signal: Signal | None = None
    prepared: Prepared = field(default_factory=Prepared)
    sizes: dict[str, float] = field(default_factory=dict)

    def __call__(self, part: CutPart) -> None:
        name, prepared = part.facts.name, self.prepared
        self.signal = self.signal or part.signal
        part.signal.check(self.signal, f"'{name}'")
        self.sizes[name] = part.size
        _check_sizes(self.sizes)
        prepared.n_trials += len(part.stimuli)
        prepared.dropped.update(part.dropped)
        prepared.notices = part.notices
        self.on_recording(name, prepared)


def _write(
    writer: TrialSetWriter, cut: Cut, study: Study, spatial: np.ndarray | None = None
) -> None:
    stimuli = iter(cut.part.stimuli)
    for trials in cut.blocks(_BLOCK):
        made = trials if spatial is None else spatial @ trials
        columns = _columns(study, cut.part.facts, [*islice(stimuli, len(trials))])
        writer.append(made, **columns)


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


def _check_channels(found: Sequence[Mapping[str, str]], settings: PreprocessSettings) -> None:
    """Refuses channels that whitening would take for quiet or loud ones, and live ones drown."""
    odd = odd_everywhere(found)
    odd.pop(settings.reference, None)  # which is flat where it is recorded at all
    if odd:
        raise Problem(
            f"{told_odd(odd)}, in all of the recordings, so that a model would learn nothing of "
            "them and break down where they are well: leave them out of the channels"
        )


@dataclass(frozen=True)
class _Trials:
    """The trials of some parts, which stay on disk."""

    cuts: Sequence[Cut]

    def __len__(self) -> int:
        return sum(map(len, self.cuts))

    def __iter__(self) -> Iterator[np.ndarray]:
        return (trial for cut in self.cuts for block in cut.blocks(_BLOCK) for trial in block)


def _fit(settings: PreprocessSettings, cuts: Sequence[Cut], whose: str) -> Preprocessing:
    """Fits to the trials of these parts."""
    trials = _Trials(cuts)
    if not len(trials):
        raise Problem(
            f"{whose} has no training trial to fit the preprocessing to: give it some, of the "
            "split `train` or of none"
        )
    summed = [cut.noise for cut in cuts if cut.noise is not None]
    return fit(settings, trials, np.sum(summed, axis=0) / len(trials) if summed else None)


def _shown(study: Study, cuts: Sequence[Cut]) -> dict[str | None, dict[str, str]]:
    """The concept of each stimulus of each split."""
    shown: dict[str | None, dict[str, str]] = {}
    for cut in cuts:
        of_split = shown.setdefault(cut.part.facts.split, {})
        for stimulus in cut.part.stimuli:
            image = study.images.get(stimulus)
            of_split[stimulus] = (image and image.category) or stimulus
    return shown


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
