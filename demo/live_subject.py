"""The simulated subject as LSL outlets: it sees test images, one by one, in real time.

`python -m demo.live_subject --trials 60 --repeats 1 ...` plays the streams NAME and NAME-markers.
"""

from typing import Annotated

import numpy as np
import typer

from demo.head import CHANNELS
from demo.recordings import responses, simulate_recording
from demo.stimuli import Stimulus, gallery_stimuli
from demo.subject import SimulatedSubject, SubjectSettings
from hvf_core.options import Asked, with_settings
from hvf_core.problem import Problem, one_sentence
from stream.pipeline.wire.config import Presentation
from stream.sources.outlets import Outlets, wait_for_go
from stream.sources.replay import replay


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
    recording = simulate_recording(subject, shown, responses(brain, shown), settings.soa_s, name)
    # A session that plays it for itself knows what it is, and says so everywhere.
    outlets = Outlets(name, CHANNELS, settings.rate_hz, simulated=not wait_for_go_line)
    if wait_for_go_line:
        wait_for_go()
    else:
        print(f"a simulated subject: streams '{name}' and '{name}-markers' wait to be heard")
    outlets.wait_for_consumers()
    replay(recording, outlets, 1.0)
    outlets.linger()


if __name__ == "__main__":
    with one_sentence():
        typer.run(main)
