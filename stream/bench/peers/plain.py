"""A plain loop of pylsl and NumPy, as labs write it: `python -m stream.bench.peers.plain JOB`.

Inlets with the flags of pylsl's own example (`ReceiveAndPlot`), looked at every millisecond; the
last seconds in an array that is rolled; an epoch is cut once its last stamp is there.
"""

import sys
import time
from pathlib import Path

import numpy as np

from stream.acquire.lsl import pylsl
from stream.bench.peers.job import READY, Job, message
from stream.bench.peers.lab import Lab

_BUFFER_S = 4.0
_POLL_S = 0.001
_WAIT_S = 10.0
_FLAGS = pylsl.proc_clocksync | pylsl.proc_dejitter


def answer(job: Job) -> None:
    lab = Lab.of(job)
    outlet = pylsl.StreamOutlet(
        pylsl.StreamInfo(job.answers, "Answers", 1, 0, "string", job.answers)
    )
    eeg, markers = (
        pylsl.StreamInlet(
            pylsl.resolve_byprop("name", name, timeout=_WAIT_S)[0], processing_flags=_FLAGS
        )
        for name in (job.eeg, job.markers)
    )
    eeg.open_stream(_WAIT_S)
    markers.open_stream(_WAIT_S)
    samples = np.zeros((round(_BUFFER_S * job.rate_hz), len(job.channels)), np.float32)
    stamps_s = np.zeros(len(samples))
    pending: list[tuple[str, float]] = []
    print(READY, flush=True)
    while True:
        chunk, times_s = eeg.pull_chunk(timeout=0.0)
        if times_s:
            n = len(times_s)
            samples, stamps_s = np.roll(samples, -n, axis=0), np.roll(stamps_s, -n)
            samples[-n:], stamps_s[-n:] = chunk[-len(samples) :], times_s[-len(samples) :]
        sample, onset_s = markers.pull_sample(timeout=0.0)
        if sample is not None:
            pending.append((lab.image(sample[0]), onset_s))
        for image, onset_s in list(pending):
            first = int(np.searchsorted(stamps_s, onset_s + lab.tmin_s))
            if first + lab.n_times <= len(samples):
                pending.remove((image, onset_s))
                ids, scores = lab.answer(samples[first : first + lab.n_times].T)
                outlet.push_sample([message(image, ids, scores)])
        time.sleep(_POLL_S)


if __name__ == "__main__":
    answer(Job.model_validate_json(Path(sys.argv[1]).read_text("utf-8")))
