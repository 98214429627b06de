"""A record as NeuralBench keeps one for each experiment, so that a result can stand beside its own.

Its keys, and what they mean, are those of NeuralBench 0.4: `build_results_df` reads a list of them.
Equal scores are counted as its metric does, `TopkAcc` of neuraltrain 0.4: by their middle rank, so
that a right image that shares the first place with one other is a hit. Of the two `evaluate`'s own
top-1 has one come first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle
from index.gallery import Gallery
from offline_train.data.trial_set import TrialSet
from offline_train.evaluate.answers import BATCH, embed, rows_of
from offline_train.evaluate.result import Evaluation

_TARGET, _WINDOW_S = "DINOv2-giant", (-0.2, 0.8)
_DATASETS = {
    "things-eeg2": "Gifford2022Large",
    "things-eeg1": "Grootswagers2022Human",
    "alljoined-1.6m": "Xu2025Alljoined",
}


@dataclass(frozen=True)
class SubjectRanks:
    """Where the right images of one subject lie, from 0, and in the middle of equal ones."""

    n_way: int
    of_trials: np.ndarray
    """By each trial alone, (n_trials,)."""
    of_images: np.ndarray
    """By the mean of the embeddings of all trials of an image, as they are: (n_images,)."""
    window_s: tuple[float, float]


def ranks_of(bundle: Bundle, trial_set: TrialSet, gallery: Gallery) -> SubjectRanks:
    """Ranks by the cosines of all of a subject's trials, whole."""
    brain, rows = load_brain_encoder(bundle), trial_set.rows
    z = np.concatenate(
        [embed(brain, trial_set.data[rows[i : i + BATCH]]) for i in range(0, len(rows), BATCH)]
    )
    right = gallery.rows.searchsorted(rows_of(gallery, trial_set.items))
    of_trial, means = np.empty(len(z), np.intp), []
    for row, trials in zip(right, trial_set.repeats.values(), strict=True):
        of_trial[trials] = row
        means.append(z[trials].mean(axis=0))
    manifest = bundle.manifest
    return SubjectRanks(
        n_way=len(gallery),
        of_trials=_ranks(z, gallery.counted, of_trial),
        of_images=_ranks(np.stack(means), gallery.counted, right),
        window_s=(manifest.tmin_s, manifest.tmax_s),
    )


def _ranks(z: np.ndarray, gallery: np.ndarray, right: np.ndarray) -> np.ndarray:
    found = np.empty(len(z))
    for start in range(0, len(z), BATCH):
        block = slice(start, start + BATCH)
        scores = z[block] @ gallery.T
        of_right = np.take_along_axis(scores, right[block, None], axis=1)
        above, equal = (scores > of_right).sum(axis=1), (scores == of_right).sum(axis=1)
        found[block] = above + (equal - 1) / 2
    return found


def record(
    subjects: Sequence[SubjectRanks], evaluations: Sequence[Evaluation], made: dict[str, JsonValue]
) -> list[dict[str, JsonValue]]:
    """What `neuralbench.json` holds: one experiment, of all subjects together.

    Args:
        evaluations: of the same subjects, which say what was decoded by what.
        made: the command and its versions.
    """
    origin, metrics = evaluations[0].origin, dict[str, JsonValue]()
    for suffix, parts in (
        ("", [(one.of_trials, one.n_way) for one in subjects]),
        ("_subject-agg", [(one.of_images, one.n_way) for one in subjects]),
    ):
        ranks = np.concatenate([rank for rank, _ in parts])
        relative = np.concatenate([1 - rank / max(1, n_way - 1) for rank, n_way in parts])
        found = {
            "inv_norm_rank_mean": relative.mean(),
            "inv_norm_rank_median": np.median(relative),
            "top1_acc": (ranks < 1).mean(),
            "top5_acc": (ranks < 5).mean(),
        }
        metrics |= {f"test/full_retrieval/{k}{suffix}": float(v) for k, v in found.items()}
    study = next((to for name, to in _DATASETS.items() if origin.study.startswith(name)), "")
    return [
        {
            "task_name": "image",
            "dataset_name": study or origin.study or "not said",
            "brain_model_name": origin.brain_encoder,
            "loss": {"name": "ClipLoss"},
            "seed": origin.training_seed,
            "eval_mode": "finetune",
            **metrics,
            "hvf_live": {
                "not_as_neuralbench": [*_differences(subjects, evaluations, bool(study))],
                "subjects": [one.subject for one in evaluations],
                "n_way": [one.n_way for one in subjects],
                "n_trials": [len(one.of_trials) for one in subjects],
                "image_encoders": [*origin.image_encoders],
                "origins": [one.origin.model_dump(mode="json") for one in evaluations],
                "made": made,
            },
        }
    ]


def _differences(
    subjects: Sequence[SubjectRanks], evaluations: Sequence[Evaluation], is_known: bool
) -> list[str]:
    """Sentences on what makes the numbers other ones than those of its published tables."""
    encoders = evaluations[0].origin.image_encoders
    target = "" if encoders == (_TARGET,) else f"{_TARGET} "
    windows = sorted({tuple(round(edge, 1) for edge in one.window_s) for one in subjects})
    seen = any(one.seen is None or one.seen.n_items for one in evaluations)
    told = {
        "the subject is simulated": any(one.simulated for one in evaluations),
        "the data set is none of NeuralBench's": not is_known,
        "it is not known that no image was trained on, or some were": seen,
        f"the target is {', '.join(encoders)} through a trained HVF, not {target}as it is": True,
        f"the window is {windows} s, not {_WINDOW_S}": windows != [_WINDOW_S],
        "the preprocessing and the training are this program's": True,
    }
    return [sentence for sentence, holds in told.items() if holds]
