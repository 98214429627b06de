"""evaluate: accuracy and calibration on held-out trials, or a live session decoded again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvf_core.options import Asked, with_settings
from hvf_core.problem import Problem, WrongUsage
from offline_train.commands.options import console, test_trials
from offline_train.evaluate.settings import EvaluateSettings

if TYPE_CHECKING:
    from offline_train.evaluate.result import Evaluation


@with_settings(EvaluateSettings)
def evaluate(
    asked: Asked[EvaluateSettings],
    bundle: Annotated[Path | None, typer.Option(help="Folder of the bundle")] = None,
    gallery: Annotated[Path | None, typer.Option(help="Folder of the gallery")] = None,
    trials: Annotated[Path | None, typer.Option(help="Trial set of held-out stimuli")] = None,
    session: Annotated[Path | None, typer.Option(help="Folder of a session instead")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the JSON and the pictures")] = None,
) -> None:
    """Accuracy and calibration on held-out trials; or a live session, decoded again.

    Example: python -m offline_train evaluate --session sessions/20261122-101500-ab12
    """
    settings = asked.settings()
    if session is not None:
        if bundle or gallery or trials or out:
            raise WrongUsage("--session has its own bundle, gallery and trials, and no --out")
        _decode_again(session)
        return
    if bundle is None or gallery is None or trials is None:
        raise WrongUsage("give --session, or --bundle, --gallery and --trials")
    if out is not None:
        from hvf_core.artifact import refuse_unwritable

        refuse_unwritable(out)
    from decoder.bundle import load_bundle
    from index.gallery import load_gallery
    from offline_train.evaluate.retrieval import evaluate as evaluate_trials

    opened = load_bundle(bundle)
    found = evaluate_trials(
        opened,
        test_trials(trials),
        load_gallery(gallery),
        settings.repeats,
        seed=settings.seed,
        tmax_s=[*settings.tmax_s, opened.manifest.tmax_s],
        evidence=settings.evidence,
        seen=settings.seen,
    )
    show_evaluation(found, out)


def _decode_again(session: Path) -> None:
    from offline_train.evaluate.session import evaluate_session

    replayed = evaluate_session(session)
    if replayed.damage:
        console.print(replayed.damage, markup=False)
    console.print(
        f"{replayed.n_live} trials decoded live, {replayed.n_offline} offline from the recording, "
        f"{replayed.n_equal} with the same list of answers"
    )
    if not replayed.agrees and replayed.orders:
        told = ", ".join(f"'{order}'" for order in replayed.orders)
        raise Problem(
            f"live and offline answers of '{session}' differ: it was told {told} while it ran, and "
            "is decoded again as it began"
        )
    if not replayed.agrees:
        raise Problem(
            f"live and offline answers of '{session}' differ; keep the folder and report it"
        )


def show_evaluation(evaluation: "Evaluation", out: Path | None) -> None:
    """Prints an evaluation and, into a folder, writes it as JSON and pictures."""
    console.print(evaluation.table())
    console.print(evaluation.selective_table())
    if out is not None:
        from hvf_core.artifact import write_manifest
        from offline_train.evaluate.pictures import write_pictures

        pictures = write_pictures(evaluation, out)
        write_manifest(out / "evaluation.json", evaluation)
        console.print(f"in '{out}': evaluation.json, {', '.join(p.name for p in pictures)}")
