"""mne-lsl's EpochsStream, as its documentation shows it: `... mne_lsl_epochs JOB`.

All flags, which it asks for where events come from another stream; its own acquisition at its
default of a millisecond; looked at as often, as it has no call that waits.
"""

import sys
import time
from pathlib import Path

from mne_lsl.lsl import StreamInfo, StreamOutlet
from mne_lsl.stream import EpochsStream, StreamLSL

from stream.bench.peers.job import READY, Job, message
from stream.bench.peers.lab import Lab

_BUFFER_S = 4.0
_N_EVENTS, _N_EPOCHS = 100, 20
_POLL_S = 0.001
_WAIT_S = 10.0


def answer(job: Job) -> None:
    lab = Lab.of(job)
    outlet = StreamOutlet(StreamInfo(job.answers, "Answers", 1, 0, "string", job.answers))
    eeg = StreamLSL(_BUFFER_S, name=job.eeg).connect(processing_flags="all", timeout=_WAIT_S)
    events = StreamLSL(_N_EVENTS, name=job.markers)
    events.connect(processing_flags="all", timeout=_WAIT_S)
    epochs = EpochsStream(
        eeg,
        bufsize=_N_EPOCHS,
        event_id={name: code for code, name in enumerate(lab.ids, 1)},
        event_channels="stimulus",
        event_stream=events,
        tmin=lab.tmin_s,
        tmax=lab.tmin_s + lab.n_times / job.rate_hz,  # which it leaves out
        baseline=None,  # `Lab` has it, as for everybody
        picks=list(job.channels),
    ).connect()
    print(READY, flush=True)
    while True:
        n_new = epochs.n_new_epochs
        if n_new == 0:
            time.sleep(_POLL_S)
            continue
        codes, data = epochs.events[-n_new:], epochs.get_data(n_new)
        for code, epoch in zip(codes.tolist(), data, strict=True):
            ids, scores = lab.answer(epoch)
            outlet.push_sample([message(lab.image(code), ids, scores)])


if __name__ == "__main__":
    answer(Job.model_validate_json(Path(sys.argv[1]).read_text("utf-8")))
