"""From recordings to trial sets: prepare, for training, and prepare-test, as a session cuts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import JsonValue
from rich.progress import track

from hvf_core.options import Asked, with_settings
from hvf_core.provenance import command_line, provenance
from hvf_core.settings import Given
from offline_train.commands.options import TRAIN, BundleFolder, Out, console
from offline_train.data.settings import PrepareSettings, PrepareTestSettings, RecordingPart

if TYPE_CHECKING:
    from offline_train.data.prepare import Prepared
    from offline_train.data.study import CutTrials, Study, StudyPart
    from stream.sources.recording import Recording

Images = Annotated[
    Path | None, typer.Option(help="Folder of the images shown, to be named beside the trials")
]


@with_settings(PrepareSettings)
def prepare(
    files: Annotated[
        list[Path], typer.Argument(help="Recordings of training sessions, or a data set")
    ],
    out: Out,
    asked: Asked[PrepareSettings],
    images: Images = None,
    baseline_start: Annotated[float | None, typer.Option(help="-0.2 s by default")] = None,
    baseline_stop: Annotated[float | None, typer.Option(help="0 s by default")] = None,
    highpass: Annotated[float | None, typer.Option(help="Causal Butterworth, Hz")] = None,
    lowpass: Annotated[float | None, typer.Option(help="Causal Butterworth, Hz")] = None,
    notch: Annotated[float | None, typer.Option(help="Of the mains, Hz")] = None,
) -> None:
    """Cuts and preprocesses the trials of recordings, or of a data set, into a trial set.

    All channels of EEG or MEG are taken by default, 0 to 0.996 s at 250 Hz; --rate 0 keeps the
    file's rate. Trials that others have cut keep their rate and window, and are not whitened twice.

    Example: python -m offline_train prepare s1.vhdr s2.vhdr --out trials
    """
    from offline_train.data.prepare import prepare as prepare_trials
    from offline_train.data.study import Study

    study = _read(files, images, asked, out)
    line = {}
    if baseline_start is not None or baseline_stop is not None:
        ends_s = (-0.2 if baseline_start is None else baseline_start, baseline_stop or 0.0)
        line["preprocessing.baseline_s"] = Given(ends_s, "--baseline-start, --baseline-stop")
    kinds = {"highpass": highpass, "lowpass": lowpass, "notch": notch}
    if filters := [{"kind": k, "freq_hz": hz} for k, hz in kinds.items() if hz is not None]:
        line["preprocessing.filters"] = Given(filters, "--highpass, --lowpass, --notch")
    parts = iter(study.parts)
    looked_at = list(parts) if study.name == "recordings" else [next(parts)]
    study = Study.of_parts(study.name, chain(looked_at, parts), images=study.images)
    settings = _settings(asked.also(line), [part.data for part in looked_at])
    del looked_at  # a part may be large
    trial_set = prepare_trials(
        study, settings, out, provenance=_provenance(files), on_recording=_tell
    )
    console.print(f"{len(trial_set)} trials of {len(trial_set.items)} stimuli in '{out}'")
    console.print(f"next: {TRAIN} mbp {out} --images FOLDER --encoders FILE ...", soft_wrap=True)


@with_settings(PrepareTestSettings)
def prepare_test(
    files: Annotated[list[Path], typer.Argument(help="Recordings that were not trained on")],
    bundle: BundleFolder,
    out: Out,
    asked: Asked[PrepareTestSettings],
    images: Images = None,
) -> None:
    """Cuts recordings as a session with a bundle does: trials to evaluate or calibrate it on.

    Example: python -m offline_train prepare-test test.vhdr --bundle b --out held_out
    """
    from decoder.bundle import load_bundle
    from offline_train.data.prepare import prepare_test as prepare_test_trials
    from stream.acquire.preprocess import Preprocessing

    settings = asked.settings()
    trial_set = prepare_test_trials(
        _read(files, images, asked, out),
        Preprocessing.of(load_bundle(bundle)),
        out,
        settings,
        provenance=_provenance(files),
        on_recording=_tell,
    )
    console.print(f"{len(trial_set)} trials of {len(trial_set.items)} stimuli in '{out}'")
    console.print(
        f"next: {TRAIN} evaluate --bundle {bundle} --trials {out} --gallery ...", soft_wrap=True
    )


def _settings(
    asked: Asked[PrepareSettings], parts: "Sequence[Recording | CutTrials]"
) -> PrepareSettings:
    """What is not asked for is as the first of these has it, or the usual.

    Channels of no brain, and those that are dead or wildly scaled in all recordings, are left out.
    """
    from offline_train.data.prepare import odd_everywhere
    from offline_train.data.study import CutTrials

    usual: dict[str, Any] = {"rate_hz": 250.0, "tmin_s": 0.0, "tmax_s": 0.996}
    if isinstance(cut := parts[0], CutTrials):
        usual = {"rate_hz": cut.rate_hz, "tmin_s": cut.tmin_s, "tmax_s": cut.tmax_s}
        usual |= {"baseline_s": None} | ({"whitening": "given"} if cut.is_whitened else {})
    recordings = [part.some() if isinstance(part, CutTrials) else part for part in parts]
    names, true_rate = (asked.given(name) for name in ("channel_map", "true_rate_hz"))
    # What is of another kind is refused with all the rest.
    other_names = names.value if names is not None and isinstance(names.value, dict) else {}
    true_hz = true_rate.value if true_rate is not None else None
    true_hz = true_hz if isinstance(true_hz, float) else None
    corrected = [recording.corrected(other_names, true_hz) for recording in recordings]
    first = corrected[0]
    channels, rate = (asked.given(f"preprocessing.{name}") for name in ("channels", "rate_hz"))
    if rate is not None and rate.value == 0:
        asked = asked.also({"preprocessing.rate_hz": replace(rate, value=first.rate_hz)})
    usual["channels"] = brain = first.brain_channels
    if channels is None:
        odd = odd_everywhere([recording.odd_channels(brain) for recording in corrected])
        if (reference := asked.given("preprocessing.reference")) is not None:
            odd.pop(str(reference.value), None)  # which may well be flat
        usual["channels"] = tuple(name for name in brain if name not in odd)
        beside = dict.fromkeys(set(first.channels) - set(brain), "no EEG or MEG")
        left_out = [f"{name} ({why})" for name, why in sorted((beside | odd).items())]
        if left_out:
            why = "" if not odd else "; numbers are how much they move, SD over a second"
            console.print(f"channels that are left out: {', '.join(left_out)}{why}")
    usual["output_channels"] = usual["channels"] if channels is None else channels.value
    return asked.settings({f"preprocessing.{name}": value for name, value in usual.items()})


def _read(files: list[Path], images: Path | None, asked: Asked[Any], out: Path) -> "Study":
    """The study of some files; not before it is known that `out` can be written."""
    from hvf_core.artifact import refuse_foreign
    from offline_train.data.studies.find import study_of
    from offline_train.data.study import Study
    from offline_train.data.trial_set import MANIFEST

    refuse_foreign(out, MANIFEST)
    study = study_of(files, images, asked.section("recording", RecordingPart))
    if study.name != "recordings":
        return Study.of_parts(study.name, _told(study.parts), images=study.images)
    read = list(track(_told(study.parts), "reading", len(study.sources), console=console))
    return Study.of_parts(study.name, read, images=study.images)


def _told(parts: "Iterable[StudyPart]") -> "Iterator[StudyPart]":
    """The parts; of each recording, what a person should hear is said."""
    from stream.sources.recording import Recording

    for part in parts:
        for notice in part.data.notices if isinstance(part.data, Recording) else ():
            console.print(f"{part.facts.name}: {notice}", highlight=False)
        yield part


def _provenance(files: list[Path]) -> dict[str, JsonValue]:
    made = provenance(command_line(), "numpy", "mne")
    return {"files": [path.name for path in files], **made}


def _tell(name: str, so_far: "Prepared") -> None:
    """Says how far the cutting is."""
    for notice in so_far.notices:
        console.print(f"{name}: {notice}", highlight=False)
    dropped = ", ".join(f"{n} {reason}" for reason, n in so_far.dropped.items()) or "none"
    console.print(f"{name}: {so_far.n_trials} trials so far, dropped: {dropped}")
