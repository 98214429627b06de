"""Bundles, made whole: trained, calibrated where stimuli are held out for it, and tried."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from decoder.bundle import MANIFEST, Bundle, load_bundle
from decoder.calibration import CALIBRATE
from decoder.hvf import HVF
from hvf_core.artifact import sealed_directory, write_manifest
from hvf_core.problem import Problem
from index.gallery import Gallery
from offline_train.brain.calibrate import doubt, fit_calibration, save_calibration
from offline_train.brain.folds import Fold
from offline_train.brain.gallery import build_gallery
from offline_train.brain.settings import TrainSettings
from offline_train.brain.train import Progress, is_of, make_bundle, train
from offline_train.data.features import Features
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.result import Evaluation, Results
from offline_train.evaluate.retrieval import evaluate
from offline_train.together import Group

Follow = Callable[[Progress], None]


@dataclass(frozen=True)
class Making:
    """What all bundles of a command have in common."""

    features: Features
    """Of all their stimuli, those that they are tried on as well."""
    settings: TrainSettings
    command: str
    classes: bool
    """Whether stimuli are classes, of which none can be held out."""
    frozen_hvf: HVF | None
    checkpoints: Path
    board: Path | None
    """Where TensorBoard finds the losses."""
    group: Group
    """The processes that train together, of which the first does all else."""

    def folder(self, out: Path, fold: Fold) -> Path:
        """Where a fold's bundle belongs.

        Raises:
            Problem: the subject's name is no name of a folder.
        """
        if not fold.subject:
            return out
        if fold.subject in (".", "..") or {*fold.subject} & {*'/\\:*?"<>|'}:
            raise Problem(
                f"the subject {fold.subject!r} has a name that no folder can have: prepare the "
                "trials with another one"
            )
        (out / fold.subject).mkdir(parents=True, exist_ok=True)
        return out / fold.subject / "bundle"

    def bundle(self, folder: Path, fold: Fold, follow: Follow, say: Callable[[str], None]) -> str:
        """Trains and writes a bundle, and says what became of it, in the first process.

        Args:
            say: told what is done beside training.
        """
        learnt, settings = fold.learnt, self.settings
        given = (learnt, self.features, settings)
        is_there = fold.subject and (folder / MANIFEST).is_file()
        if is_there and not is_of(load_bundle(folder).manifest, *given):
            raise Problem(
                f"'{folder}' is a bundle of another training: name another --out, or remove it"
            )
        with _on_board(self.board if self.group.is_first else None, fold.subject, follow) as tell:
            models = train(*given, tell, self.checkpoints, self.frozen_hvf, self.group)
        if not self.group.is_first:
            return ""
        told = f"bundle in '{folder}', last loss {models.history[-1]['loss']:.3f}\n"
        if shares := models.hvf.shares:
            listed = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
            told += f"encoders weigh {listed}\n"
        with sealed_directory(folder, MANIFEST) as draft:
            bundle = make_bundle(draft, models, *given, self.command)
            if fold.held_out is not None:
                say("calibrating")
                return told + self._calibrate(bundle, fold.held_out)
        told += f"not calibrated, as no stimuli were held out: {CALIBRATE}"
        if settings.hold_out is None and not self.classes and len(learnt.items) >= 20:
            smallest = min(map(len, learnt.concepts.values()))
            told += f"; of concepts, which are held out whole, the smallest has {smallest}"
        return told

    def tried(self, folder: Path, trials: TrialSet, subject: str) -> Evaluation:
        """Looks trials up among their own images, alone and all repeats together.

        The result is written beside the bundle as `evaluation.json`.
        """
        most = min(map(len, trials.repeats.values()))
        bundle = load_bundle(folder)
        among = self._among(trials, bundle)
        found = evaluate(bundle, trials, among, sorted({1, most}), subject=subject)
        write_manifest(folder.with_name("evaluation.json"), Results(evaluations=(found,)))
        return found

    def _among(self, trials: TrialSet, bundle: Bundle) -> Gallery:
        return build_gallery(trials.items, trials.items, self.features, bundle, self.command)

    def _calibrate(self, bundle: Bundle, held_out: TrialSet) -> str:
        """Calibrates on what was held out, and says how often that is found, and what chance is."""
        among = self._among(held_out, bundle)
        found = fit_calibration(bundle, held_out, among)
        save_calibration(bundle, found)
        judged = evaluate(bundle, held_out, among, sorted({1, found.repeats[-1]}), seen=True)
        right = " and ".join(
            f"{100 * point.top1.value:.1f} % ({100 * point.top1.low:.1f} to "
            f"{100 * point.top1.high:.1f}) from {point.repeats} repeat{'s' * (point.repeats > 1)}"
            for point in judged.points
        )
        return (
            f"calibrated on {found.n_items} stimuli{doubt(found)}; of {judged.items} the right one "
            f"comes first in {right}, by chance in {100 * judged.chance_top1:.1f} %"
        )


@contextmanager
def _on_board(folder: Path | None, subject: str, follow: Follow) -> Iterator[Follow]:
    """Follows a training on TensorBoard too: `tensorboard --logdir FOLDER`."""
    if folder is None:
        yield follow
        return
    from torch.utils.tensorboard import SummaryWriter  # here: it takes a second

    with SummaryWriter(folder / subject) as writer:

        def tell(step: Progress) -> None:
            writer.add_scalar("loss", step.loss, step.step)
            writer.add_scalar("learning rate", step.lr, step.step)
            follow(step)

        yield tell
