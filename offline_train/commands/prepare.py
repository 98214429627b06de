"""From recordings to trial sets: prepare, for training, and prepare-test, as a session cuts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import JsonValue
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from hvf_core.options import Asked, Step, onward, with_settings
from hvf_core.problem import Problem
from hvf_core.provenance import command_line, provenance
from hvf_core.settings import Given
from hvf_core.text import some_of
from offline_train.commands.options import BundleFolder, Out, beside, console
from offline_train.data.settings import PrepareSettings, PrepareTestSettings, RecordingPart

if TYPE_CHECKING:
    from offline_train.data.prepare import Prepared
    from offline_train.data.study import CutTrials, Study
    from offline_train.data.trial_set import TrialSet
    from stream.sources.recording import Recording

Images = Annotated[
    Path | None, typer.Option(help="Folder of the images shown, to be named beside the trials")
]


@with_settings(PrepareSettings)
def prepare(
    files: Annotated[
        list[Path],
        typer.Argument(help="Recordings of training sessions, or a data set, or a subject of it"),
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

    study = _read(files, images, asked, out)
    line = {}
    if baseline_start is not None or baseline_stop is not None:
        ends_s = (-0.2 if baseline_start is None else baseline_start, baseline_stop or 0.0)
        line["preprocessing.baseline_s"] = Given(ends_s, "--baseline-start, --baseline-stop")
    kinds = {"highpass": highpass, "lowpass": lowpass, "notch": notch}
    if filters := [{"kind": k, "freq_hz": hz} for k, hz in kinds.items() if hz is not None]:
        line["preprocessing.filters"] = Given(filters, "--highpass, --lowpass, --notch")
    with console.status("looking at the recordings"):
        settings = _settings(asked.also(line), study)
    with _cutting(out) as tell:
        trial_set = prepare_trials(study, settings, out, provenance=_provenance(files), **tell)
    for sentence in _made(trial_set, settings.per_session):
        console.print(sentence, soft_wrap=True, highlight=False)
    console.print(f"{len(trial_set)} trials of {len(trial_set.items)} stimuli in '{out}'")
    console.print(onward("mbp", trials=out, images=images), soft_wrap=True)


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
    study, opened = _read(files, images, asked, out), load_bundle(bundle)
    made = _provenance(files)
    with _cutting(out) as tell:
        trial_set = prepare_test_trials(
            study, Preprocessing.of(opened), out, settings, provenance=made, **tell
        )
    console.print(f"{len(trial_set)} trials of {len(trial_set.items)} stimuli in '{out}'")
    step: Step = "evaluate" if opened.manifest.calibration is not None else "calibrate"
    told = onward(step, bundle=bundle, gallery=beside(bundle), trials=out)
    console.print(told, soft_wrap=True)


def _found(study: "Study") -> str:
    folders = [str(Path(source.name).absolute().parent) for source in study.sources]
    return f"{study.name}, found in '{os.path.commonpath(folders)}'" if folders else study.name


def _made(made: "TrialSet", per_session: bool) -> Iterator[str]:
    """Sentences on what is in a trial set."""

    said = {name: column.values for name, column in made.table.items()}
    none = [None] * len(made)
    subjects, sessions, runs, splits = (
        said.get(name, none) for name in ("subject", "session", "run", "split")
    )
    n_subjects = len({*subjects})
    counts = {
        "subjects": n_subjects,
        "sessions": len({*zip(subjects, sessions, strict=True)}),
        "recordings": len({*zip(subjects, sessions, runs, strict=True)}),
    }
    yield ", ".join(f"{n} {name[: None if n > 1 else -1]}" for name, n in counts.items())
    form, whitening = made.format, made.format.preprocessing["whitening"]
    whose = "each session by itself" if per_session else "all sessions together"
    whitened = f"whitening {whitening}" + (f", {whose}" if whitening == "mvnn" else "")
    yield (
        f"{len(form.channels)} channels ({some_of(form.channels)}), {form.rate_hz:g} Hz, "
        f"{form.tmin_s:g} to {form.tmax_s:g} s, {whitened}"
    )
    for split in dict.fromkeys(splits):
        shown = [one for one, of in zip(made.stimuli, splits, strict=True) if of == split]
        name = "training" if split == "train" else split or "for training, as of no split"
        yield f"{name}: {len(shown)} trials of {len({*shown})} stimuli"
    if n_subjects > 1 and whitening == "mvnn" and not per_session:
        yield (
            f"{n_subjects} subjects share one whitening, which fits none of them: give "
            "--per-session, or prepare each subject apart"
        )


def _settings(asked: Asked[PrepareSettings], study: "Study") -> PrepareSettings:
    """What is not asked for is as the first of the recordings has it, or the usual.

    Channels of no brain, and those that are dead or wildly scaled in all recordings, are left out.
    """
    from offline_train.data.pieces.channel_sets import channels_of
    from offline_train.data.prepare import odd_everywhere

    names, true_rate = (asked.given(name) for name in ("channel_map", "true_rate_hz"))
    # What is of another kind is refused with all the rest.
    other_names = names.value if names is not None and isinstance(names.value, dict) else {}
    true_hz = true_rate.value if true_rate is not None else None
    true_hz = true_hz if isinstance(true_hz, float) else None
    given = {
        name: asked.given(f"preprocessing.{name}")
        for name in ("channels", "output_channels", "rate_hz")
    }
    first: Recording | None = None
    usual: dict[str, Any] = {}
    odds: list[dict[str, str]] = []
    for part in study.parts:
        recording = part.like.corrected(other_names, true_hz)
        if first is None:
            first, usual = replace(recording, samples=recording.samples[:0]), _usual(part.data)
        odds.append(recording.odd_channels(first.brain_channels))
        if given["channels"] is not None or not odd_everywhere(odds):
            break  # the others need not be read before they are cut
    if first is None:
        raise Problem(f"no recording of '{study.name}' shows an image: give those that do")
    brain, whose = first.brain_channels, first.name
    for name, one in given.items():
        value = one.value if one is not None else None
        if one is not None and isinstance(value, tuple | list):
            found = channels_of([str(word) for word in value], first.channels, brain, whose)
            asked = asked.also({f"preprocessing.{name}": replace(one, value=found)})
            usual[name] = found
        elif one is not None and name == "rate_hz" and value == 0:
            asked = asked.also({"preprocessing.rate_hz": replace(one, value=first.rate_hz)})
    if given["channels"] is None:
        odd = odd_everywhere(odds)
        if (reference := asked.given("preprocessing.reference")) is not None:
            odd.pop(str(reference.value), None)  # which may well be flat
        usual["channels"] = tuple(name for name in brain if name not in odd)
        beside = dict.fromkeys(set(first.channels) - set(brain), "no EEG or MEG")
        left_out = [f"{name} ({why})" for name, why in sorted((beside | odd).items())]
        if left_out:
            why = "" if not odd else "; numbers are how much they move, SD over a second"
            console.print(f"channels that are left out: {', '.join(left_out)}{why}")
    usual.setdefault("output_channels", usual["channels"])
    return asked.settings({f"preprocessing.{name}": value for name, value in usual.items()})


def _usual(data: "Recording | CutTrials") -> dict[str, Any]:
    """Rate and window that are usual; trials that are cut already keep theirs."""
    from offline_train.data.study import CutTrials

    if not isinstance(data, CutTrials):
        return {"rate_hz": 250.0, "tmin_s": 0.0, "tmax_s": 0.996}
    usual = {"rate_hz": data.rate_hz, "tmin_s": data.tmin_s, "tmax_s": data.tmax_s}
    return usual | {"baseline_s": None} | ({"whitening": "given"} if data.is_whitened else {})


def _read(files: list[Path], images: Path | None, asked: Asked[Any], out: Path) -> "Study":
    """The study of some files; not before it is known that `out` can be written."""
    from hvf_core.artifact import refuse_taken
    from offline_train.data.catalogue import DATA_SETS
    from offline_train.data.studies.find import study_of
    from offline_train.data.trial_set import MANIFEST

    refuse_taken(out, MANIFEST, "a trial set")
    known = {one.folder for one in DATA_SETS}
    for folder in (path for path in files if path.is_dir()):
        if len(sets := sorted(one.name for one in folder.iterdir() if one.name in known)) > 1:
            raise Problem(
                f"'{folder}' holds several data sets, {', '.join(sets)}: give one of them"
            )
    study = study_of(files, images, asked.section("recording", RecordingPart))
    for notice in (_found(study), *study.notices):
        console.print(notice, highlight=False, soft_wrap=True)
    return study


@contextmanager
def _cutting(out: Path) -> Iterator[dict[str, Any]]:
    """Shows how far the cutting is, and how long it will take; yields what is to be told of it."""
    from offline_train.data.pieces.work import folder_of

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeRemainingColumn(), TextColumn("left"), console=console) as progress:
        task = progress.add_task("cutting", total=1.0)
        begun = list[bool]()  # not where another process is at work there

        def share(done: float) -> None:
            begun[:] = [True]
            progress.update(task, completed=done)
            if done == 1:
                progress.update(task, description="writing")

        said: dict[str, Any] = {"on_recording": _tell, "on_share": share, "say": console.print}
        try:
            yield said
        except BaseException:
            if begun and (folder := folder_of(out)).is_dir():
                console.print(
                    f"what is cut already is kept in '{folder}': the same command goes on from "
                    "there; delete it to give up",
                    soft_wrap=True,
                )
            raise
        finally:
            progress.live.transient = not begun  # a bar that never moved says nothing


def _provenance(files: list[Path]) -> dict[str, JsonValue]:
    made = provenance(command_line(), "numpy", "mne")
    return {"files": [path.name for path in files], **made}


def _tell(name: str, so_far: "Prepared") -> None:
    """Says how far the cutting is."""
    for notice in so_far.notices:
        console.print(f"{name}: {notice}", highlight=False)
    dropped = ", ".join(f"{n} {reason}" for reason, n in so_far.dropped.items()) or "none"
    console.print(f"{name}: {so_far.n_trials} trials so far, dropped: {dropped}")
