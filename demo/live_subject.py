"""The simulated subject as LSL outlets: it sees test images, one by one, in real time.

`python -m demo.live_subject --trials 60 --repeats 1 ...` plays the streams NAME and NAME-markers.
"""

from typing import Annotated

import numpy as np
import typer

from demo.head import CHANNELS
from demo.stimuli import Stimulus, gallery_stimuli, render
from demo.subject import SimulatedSubject, SubjectSettings
from hvf_core.options import Asked, with_settings
from hvf_core.problem import Problem, one_sentence
from stream.acquire.lsl import local_clock
from stream.pipeline.wire.config import Presentation
from stream.sources.outlets import Outlets, sleep_until, wait_for_go

CHUNK_S = 0.02  # as amplifiers send them
LEAD_S = 1.5  # of EEG before the first image, for its baseline
TAIL_S = 1.3  # after the last one, for its window


def schedule(n_trials: int, repeats: int, seed: int) -> list[Stimulus]:
    """As few test images as these repeats allow, in random order, all once before any comes again.

    Raises:
        Problem: there are not so many test images.
    """
    tests = gallery_stimuli()
    n_images = -(-n_trials // repeats)
    if n_images > len(tests):
        raise Problem(
            f"{n_trials} trials with {repeats} repeats need {n_images} images, the demo has "
            f"{len(tests)} test images; give fewer --trials or more --repeats"
        )
    rng = np.random.default_rng(seed)
    images = rng.permutation(len(tests))[:n_images]
    shown = [tests[i] for _ in range(repeats) for i in rng.permutation(images)]
    return shown[:n_trials]


def play(subject: SimulatedSubject, outlets: Outlets, shown: list[Stimulus], soa_s: float) -> None:
    """Sends EEG and markers in real time; a sample is sent when the clock shows its stamp."""
    rate_hz = subject.settings.rate_hz
    evoked = {s.id: subject.evoked(render(s), s.attributes) for s in shown}
    onsets = [round((LEAD_S + i * soa_s) * rate_hz) for i in range(len(shown))]
    for stimulus, onset in zip(shown, onsets, strict=True):
        subject.present(onset, evoked[stimulus.id])
    n_chunk = max(1, round(CHUNK_S * rate_hz))
    n_samples = onsets[-1] + round(TAIL_S * rate_hz)
    markers = list(zip(onsets, shown, strict=True))
    start_s = local_clock()
    for first in range(0, n_samples, n_chunk):
        stamps_s = start_s + np.arange(first, first + n_chunk) / rate_hz
        while markers and markers[0][0] < first + n_chunk:
            onset, stimulus = markers.pop(0)
            onset_s = start_s + onset / rate_hz
            sleep_until(onset_s)
            outlets.push_marker(stimulus.id, onset_s)
        sleep_until(stamps_s[-1])
        outlets.push_eeg(subject.read(n_chunk), stamps_s)


@with_settings(Presentation)
def main(
    asked: Asked[Presentation],
    subject_seed: Annotated[int, typer.Option(help="of the subject's brain")] = 1,
    name: str = "hvf-demo",
    wait_for_go_line: Annotated[bool, typer.Option("--wait-for-go", hidden=True)] = False,
) -> None:
    """Plays the simulated subject as the LSL streams NAME and NAME-markers."""
    settings = asked.settings()
    shown = schedule(settings.trials, settings.repeats, settings.seed)
    brain = SubjectSettings(
        rate_hz=settings.rate_hz, amplitude=settings.amplitude, seed=subject_seed
    )
    subject = SimulatedSubject(brain, recording_seed=10_000 + settings.seed)
    outlets = Outlets(name, CHANNELS, settings.rate_hz)
    if wait_for_go_line:
        wait_for_go()
    outlets.wait_for_consumers()
    play(subject, outlets, shown, settings.soa_s)
    outlets.linger()


if __name__ == "__main__":
    with one_sentence():
        typer.run(main)
