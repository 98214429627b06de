"""The simulated subject over LSL, in real time: it sees test images, one by one.

`python -m demo.live_subject --trials 60 --repeats 1 ...` plays the streams NAME and NAME-markers;
`python -m demo subject` plays its EEG while it sees what another program's markers say.
"""

import itertools
import platform
import time
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Annotated, Any

import numpy as np
import typer

from demo.head import CHANNELS
from demo.recordings import responses, simulate_recording
from demo.stimuli import gallery_stimuli, schedule
from demo.subject import SimulatedSubject, SubjectSettings
from hvf_core.options import Asked, with_settings
from hvf_core.problem import one_sentence
from stream.acquire.lsl import local_clock, pylsl
from stream.acquire.markers import Marker, MarkerReader, MarkerRule, marker_text
from stream.pipeline.wire.config import Presentation
from stream.sources.outlets import Outlets, eeg_outlet, sleep_until, wait_for_go
from stream.sources.replay import replay

SEED = 1  # of the brain that the demo's model was trained on
_CHUNK_S = 0.02
LAG_S = 0.1  # samples leave so long after their stamps: what begins in them is known by then


class Shown:
    """What the marker stream `name` of this machine says is shown; it may come, go and come again.

    It is heard in a thread of its own: to open a stream takes a while, and no sample may wait.
    """

    def __init__(self, name: str):
        self._there = pylsl.ContinuousResolver(prop="name", value=name)
        self._reader = MarkerReader(MarkerRule())
        self._came: SimpleQueue[Marker] = SimpleQueue()
        Thread(target=self._hear, daemon=True).start()

    def new(self) -> list[tuple[float, str]]:
        """Onsets on the LSL clock, with stimuli, that have come since the last call."""
        markers = [self._came.get() for _ in range(self._came.qsize())]
        events = [event for marker in markers if (event := self._reader.read(marker))]
        return [(event.onset_s, event.stimulus) for event in events]

    def _hear(self) -> None:
        last = ""
        while True:
            for info in self._there.results():
                if info.uid() != last:
                    last = info.uid()
                    self._take(pylsl.StreamInlet(info, recover=False))
            time.sleep(0.1)

    def _take(self, inlet: Any) -> None:
        with suppress(pylsl.util.LostError):  # its program has ended
            while True:
                values, stamp_s = inlet.pull_sample(1.0)
                if values is not None:
                    self._came.put(Marker(stamp_s, marker_text(values), local_clock()))


def watch(markers: str, name: str, amplitude: float, seed: int) -> None:
    """Plays the EEG stream `name` of the subject that sees what the stream `markers` says."""
    settings = SubjectSettings(seed=SEED, amplitude=amplitude)
    evoked = responses(settings, gallery_stimuli())
    subject, shown = SimulatedSubject(settings, recording_seed=20_000 + seed), Shown(markers)
    who = f"-{markers}-{platform.node()}"
    outlet = eeg_outlet(name, CHANNELS, settings.rate_hz, simulated=True, source=who)
    start_s, n_samples = local_clock(), round(_CHUNK_S * settings.rate_hz)
    for first in itertools.count(0, n_samples):
        stamps_s = start_s + np.arange(first, first + n_samples) / settings.rate_hz
        sleep_until(stamps_s[-1] + LAG_S)
        for onset_s, stimulus in shown.new():
            onset = round((onset_s - start_s) * settings.rate_hz)
            if stimulus in evoked and onset >= first:
                subject.present(onset, evoked[stimulus])
            else:
                why = "came too late" if stimulus in evoked else "is no test image of the demo"
                print(f"not seen: '{stimulus}' {why}", flush=True)
        outlet.push_chunk(subject.read(n_samples), stamps_s.tolist())


@with_settings(Presentation)
def main(
    asked: Asked[Presentation],
    subject_seed: Annotated[int, typer.Option(help="of the subject's brain")] = SEED,
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
    outlets = Outlets(name, CHANNELS, settings.rate_hz, simulated=True)
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
