"""evaluate: accuracy and calibration on held-out trials, or a live session decoded again."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hvf_core.options import Asked, with_settings
from hvf_core.problem import Problem, WrongUsage
from offline_train.commands.options import bar, console, test_trials
from offline_train.evaluate.settings import EvaluateSettings

RESULTS = "evaluation.json"
_TOLD = 5
"""Trials that a sentence names."""

if TYPE_CHECKING:
    from decoder.bundle import Bundle
    from index.gallery import Gallery
    from offline_train.data.trial_set import TrialSet
    from offline_train.evaluate.record import SubjectRanks
    from offline_train.evaluate.result import Evaluation, Results


@with_settings(EvaluateSettings)
def evaluate(
    asked: Asked[EvaluateSettings],
    bundle: Annotated[
        list[Path] | None, typer.Option(help="Folder of the bundle; or one for each of --trials")
    ] = None,
    gallery: Annotated[
        list[Path] | None, typer.Option(help="Folder of the gallery; or one for each of --trials")
    ] = None,
    trials: Annotated[
        list[Path] | None,
        typer.Option(
            help="Trial set of held-out stimuli, of one subject or several; again for more"
        ),
    ] = None,
    session: Annotated[Path | None, typer.Option(help="Folder of a session instead")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="An evaluation.json, to be paired with image by image")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for JSON, pictures and report")] = None,
) -> None:
    """Accuracy and calibration on held-out trials; or a live session, decoded again.

    Example: python -m offline_train evaluate --bundle b --gallery g --trials held_out --repeats 1,4
    """
    settings = asked.settings()
    if session is not None:
        if bundle or gallery or trials or compare or out:
            raise WrongUsage("--session has its own bundle, gallery and trials, and no --out")
        _decode_again(session)
        return
    if not (bundle and gallery and trials):
        raise WrongUsage("give --session, or --bundle, --gallery and --trials")
    for option, given in (("--bundle", bundle), ("--gallery", gallery)):
        if len(given) not in (1, len(trials)):
            raise WrongUsage(
                f"{option} is given {len(given)} times and --trials {len(trials)} times: give one "
                "for all, or one for each"
            )
    if out is not None:
        from hvf_core.artifact import refuse_other_results

        refuse_other_results(out, RESULTS)
    from decoder.bundle import open_bundle
    from offline_train.evaluate.answers import window_ends
    from offline_train.evaluate.compare import paired, read_results
    from offline_train.evaluate.record import ranks_of
    from offline_train.evaluate.retrieval import evaluate_ways, questions_of

    if compare is not None:  # before anything large is read, as is what follows
        read_results(compare)
    for folder in bundle:
        window_ends(open_bundle(folder).manifest, settings.tmax_s or None)
    cases = _cases(bundle, gallery, trials, settings)
    if compare is not None:
        questions = [
            question
            for opened, trial_set, images, subject in cases
            for question in questions_of(opened, trial_set, images, settings, subject)
        ]
        paired(questions, read_results(compare), compare)
    found: list[Evaluation] = []
    records: list[SubjectRanks] = []
    for opened, trial_set, images, subject in cases:
        with bar(f"evaluating {subject}".rstrip()) as tell:
            found += evaluate_ways(opened, trial_set, images, settings, subject, tell)
        if out is not None:
            records.append(ranks_of(opened, trial_set, images))
    show_results(found, out, compare, records)


class _Case(NamedTuple):
    """A subject's trials, with the bundle and the gallery that are given for them."""

    bundle: "Bundle"
    trial_set: "TrialSet"
    gallery: "Gallery"
    subject: str


def _cases(
    bundle: list[Path], gallery: list[Path], trials: list[Path], settings: EvaluateSettings
) -> list[_Case]:
    """All subjects of all trial sets; what cannot be decoded is refused before all else is read."""
    from decoder.bundle import load_bundle
    from index.gallery import load_gallery
    from offline_train.evaluate.answers import check_repeats
    from offline_train.evaluate.result import refuse_twice
    from offline_train.evaluate.retrieval import subjects_of

    n = len(trials)
    names = [folder.name if n > 1 else "" for folder in trials]
    names = [str(folder) for folder in trials] if len({*names}) < n else names
    sets = [
        subjects_of(test_trials(folder), name) for folder, name in zip(trials, names, strict=True)
    ]
    refuse_twice([*chain.from_iterable(sets)])
    for trial_set in chain.from_iterable(subjects.values() for subjects in sets):
        check_repeats(trial_set, settings.repeats)
    bundles, galleries = bundle * (n // len(bundle)), gallery * (n // len(gallery))
    return [
        _Case(opened, trial_set, images, subject)
        for opened, images, subjects in zip(
            map(load_bundle, bundles), map(load_gallery, galleries), sets, strict=True
        )
        for subject, trial_set in subjects.items()
    ]


def _decode_again(session: Path) -> None:
    from offline_train.evaluate.session import evaluate_session

    replayed = evaluate_session(session)
    if replayed.damage:
        console.print(replayed.damage, markup=False)
    console.print(
        f"{replayed.n_live} trials decoded live, {replayed.n_offline} offline from the recording, "
        f"{replayed.n_equal} with the same list of answers"
    )
    if replayed.agrees:
        return
    numbers = ", ".join(map(str, replayed.different[:_TOLD]))
    more = ", ..." * (len(replayed.different) > _TOLD)
    differ = f"live and offline answers of '{session}' differ (trials {numbers}{more})"
    if replayed.orders:
        told = ", ".join(f"'{order}'" for order in replayed.orders)
        raise Problem(
            f"{differ}: it was told {told} while it ran, and is decoded again as it began"
        )
    if replayed.has_holes:
        raise Problem(
            f"{differ}: its reader or recorder died while it ran, and EEG of then is in no "
            "recording, so that trials are missing, and repeats and adaptation after them differ"
        )
    raise Problem(f"{differ}; keep the folder and report it")


def show_results(
    evaluations: "Sequence[Evaluation]",
    out: Path | None,
    other: Path | None = None,
    records: "Sequence[SubjectRanks]" = (),
) -> None:
    """Prints evaluations and, into a folder, writes them as JSON, pictures and a page.

    Args:
        evaluations: of one subject or several, in one way of decoding or several.
        other: an `evaluation.json` to compare them with.
        records: ranks of the same subjects, of which NeuralBench's record is made.
    """
    from hvf_core.provenance import command_line, provenance
    from offline_train.evaluate.compare import compare
    from offline_train.evaluate.result import Results, over_subjects
    from offline_train.evaluate.tables import compared, tables

    made = provenance(command_line(), "hvf-live", "torch", "numpy", "scipy")
    results = Results(evaluations=tuple(evaluations), made=made)
    summed = (over_subjects(*pair) for pair in results.by_method.items() if len(pair[1]) > 1)
    results = results.model_copy(update={"over_subjects": tuple(summed)})
    if other is not None:
        results = results.model_copy(update={"comparisons": compare(results, other)})
    for table in tables(results):
        console.print(table)
    for one in results.comparisons:
        console.print(compared(one), markup=False)
    if out is not None:
        _write(results, out, records)


def _write(results: "Results", out: Path, records: "Sequence[SubjectRanks]") -> None:
    from hvf_core.artifact import whole_files, write_manifest
    from offline_train.evaluate.page import write_page
    from offline_train.evaluate.pictures import write_pictures
    from offline_train.evaluate.record import record

    with whole_files(out) as draft:
        pictures = write_pictures(results, draft)
        write_manifest(draft / RESULTS, results)
        write_page(draft / "report.html", results, pictures)
        if records:
            found = record(records, next(iter(results.by_method.values())), results.made)
            text = json.dumps(found, indent=1)
            (draft / "neuralbench.json").write_text(text, encoding="utf-8")
        for drawn_before in [*out.glob("accuracy*.png"), *out.glob("reliability*.png")]:
            drawn_before.unlink()
        names = sorted((path.name for path in draft.iterdir()), key=lambda name: name[-4:])
    console.print(f"in '{out}': {', '.join(names[:6])}{' ...' * (len(names) > 6)}")
