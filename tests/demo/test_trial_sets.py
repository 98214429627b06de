"""Trial sets of simulated subjects say who saw what, and keep training and test apart."""

from pathlib import Path

import numpy as np

from demo.evaluation import shown_images, simulated_trial_set
from demo.settings import VISUAL_CHANNELS
from demo.stimuli import gallery_stimuli, render, stimuli, training_concepts


def test_a_trial_set_has_subjects_splits_and_concepts(tmp_path: Path) -> None:
    learnt, asked = stimuli(training_concepts()[:6], 1), gallery_stimuli()[:3]
    pictures = {stimulus: render(stimulus, 32) for stimulus in (*learnt, *asked)}
    made = simulated_trial_set(tmp_path / "t", pictures, n_subjects=2, sessions=3, test_sessions=2)
    assert made.format.channels == VISUAL_CHANNELS
    assert made.format.provenance["subject"] == "simulated"
    assert len(made) == 2 * (3 * 6 + 2 * 3)
    for subject in ("01", "02"):
        own = made.select([subject], "subject")
        for split, shown, sessions in (("train", learnt, 3), ("test", asked, 2)):
            part = own.select([split], "split")
            assert {*part.items} == {stimulus.id for stimulus in shown}
            assert {len(trials) for trials in part.repeats.values()} == {sessions}
    first, second = (made.select([name], "subject") for name in ("01", "02"))
    trials = [one.mean([one.repeats[learnt[0].id]]) for one in (first, second)]
    assert not np.allclose(*trials)
    assert {*made.concepts} == {f"category {one.concept.name}" for one in (*learnt, *asked)}


def test_it_shows_all_that_a_table_is_of() -> None:
    shown = shown_images(5)
    assert len(shown) == 5 + len(gallery_stimuli())
    assert {*shown[5:]} == {*gallery_stimuli()}
