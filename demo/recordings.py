"""Recordings of the simulated subject."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from demo.head import CHANNELS
from demo.stimuli import Stimulus, render
from demo.subject import SimulatedSubject, SubjectSettings
from stream.sources.recording import RecordedMarker, Recording

SIMULATED = "simulated subject of the demo"


def responses(
    settings: SubjectSettings,
    shown: Iterable[Stimulus],
    picture: Callable[[Stimulus], np.ndarray] = render,
) -> dict[str, np.ndarray]:
    """What stimuli evoke in a subject, by id (`SimulatedSubject.evoked`); each is drawn once."""
    brain, stimuli = SimulatedSubject(settings, recording_seed=0), {s.id: s for s in shown}
    return {id: brain.evoked(picture(s), s.attributes) for id, s in stimuli.items()}


def simulate_recording(
    subject: SimulatedSubject,
    order: Sequence[Stimulus],
    evoked: Mapping[str, np.ndarray],
    soa_s: float,
    name: str,
) -> Recording:
    """One recording of a subject while it sees stimuli at a fixed pace, from 1 s on.

    `evoked` are its `responses`.
    """
    rate_hz = subject.settings.rate_hz
    onsets = [round((1.0 + i * soa_s) * rate_hz) for i in range(len(order))]
    for stimulus, onset in zip(order, onsets, strict=True):
        subject.present(onset, evoked[stimulus.id])
    n_samples = onsets[-1] + round(1.5 * rate_hz)
    return Recording(
        path=Path(name),
        name=name,
        channels=CHANNELS,
        units=("microvolts",) * len(CHANNELS),
        rate_hz=rate_hz,
        stamps_s=np.arange(n_samples) / rate_hz,
        samples=subject.read(n_samples),
        markers=tuple(
            RecordedMarker(onset / rate_hz, stimulus.id)
            for onset, stimulus in zip(onsets, order, strict=True)
        ),
        kinds=("eeg",) * len(CHANNELS),
    )


def simulate_sessions(
    settings: SubjectSettings,
    shown: Sequence[Stimulus],
    evoked: Mapping[str, np.ndarray],
    numbers: Iterable[int],
    soa_s: float,
) -> Iterator[Recording]:
    """Sessions in which every stimulus is shown once, each in an order of its own, by number."""
    for number in numbers:
        order = np.random.default_rng([settings.seed, number]).permutation(len(shown))
        subject = SimulatedSubject(settings, recording_seed=number)
        name = f"session-{number + 1}"
        in_order = [shown[i] for i in order]
        yield simulate_recording(subject, in_order, evoked, soa_s, name)


def with_gains(recording: Recording, gains: np.ndarray) -> Recording:
    """The recording as with another cap: every channel times a gain of its own (channels,)."""
    return replace(recording, samples=recording.samples * gains.astype(np.float32))
