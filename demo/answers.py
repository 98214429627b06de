"""Answers of the shipped model, recorded when it was made: later code is held against them."""

from pathlib import Path

from decoder.brain.registry import load_brain_encoder
from decoder.bundle import load_bundle
from decoder.calibration import Evidence, log_softmax
from decoder.evidence import Weights
from demo.evaluation import simulated_tests
from demo.model import DemoModel
from demo.stimuli import gallery_stimuli
from index.gallery import load_gallery
from offline_train.evaluate.answers import Answerer, rows_of, window_ends

ANSWERS = "answers.json"
_IMAGES = 20
_ASKED: tuple[tuple[Evidence, int], ...] = (
    *(("mean", 1), ("mean", 2), ("mean", 4), ("mean", 8)),  # as many as the demo has
    ("added", 8),
)


def answers_of(model: DemoModel, directory: Path) -> list[dict[str, object]]:
    """What the model says to each of some test images (simulated), after 1 to 8 repeats.

    Simulating, cutting, preprocessing, embedding, looking up and calibrating all have their part.

    Args:
        model: the demo's.
        directory: where the trial set is written.

    Returns:
        For each image and number of repeats, its natural log-probability, the answer, and its own;
        for the first image those of the whole gallery too, in its order.
    """
    bundle, gallery = load_bundle(model.bundle), load_gallery(model.gallery)
    most = max(n_repeats for _, n_repeats in _ASKED)
    trials = simulated_tests(bundle, directory, most, shown=gallery_stimuli()[:_IMAGES])
    manifest = bundle.manifest
    encoder, right = load_brain_encoder(bundle), rows_of(gallery, trials.items)
    answers: list[dict[str, object]] = []
    for evidence, n_repeats in _ASKED:
        weights = Weights(evidence, manifest.logit_scale, manifest.calibration)
        answerer = Answerer(encoder, gallery.embeddings, weights, manifest.tmax_s)
        seen = [repeats[:n_repeats] for repeats in trials.repeats.values()]
        temperature = weights.temperature(manifest.tmax_s, n_repeats)
        for _, block, found in answerer.log_likelihoods(trials, seen, window_ends(manifest)):
            for row, log_p in zip(right[block], log_softmax(found, 1 / temperature), strict=True):
                best = int(log_p.argmax())
                answer = {
                    "shown": gallery.ids[row],
                    "evidence": evidence,
                    "repeats": n_repeats,
                    "log_p": round(float(log_p[row]), 4),
                    "answer": gallery.ids[best],
                    "log_p_of_answer": round(float(log_p[best]), 4),
                }
                if not answers:
                    answer["log_p_of_all"] = [round(float(one), 4) for one in log_p]
                answers.append(answer)
    return answers
