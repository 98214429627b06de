"""ezmsg: LSL inlets, its `Sampler`, and a unit that answers: `... ezmsg_units JOB`.

The inlets, the sampler and the network are in one process; the subscriber is a unit in another,
over ezmsg's own transport. A window ends at or before tmax: it is there once a stamp is behind it.
"""

import os
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import ezmsg.core as ez
from ezmsg.baseproc.util.message import SampleTriggerMessage
from ezmsg.lsl.inlet import LSLInfo, LSLInletSettings, LSLInletUnit
from ezmsg.sigproc.sampler import Sampler, SamplerSettings
from ezmsg.util.messages.axisarray import AxisArray

from stream.acquire.lsl import local_clock
from stream.bench.peers.job import READY, SUBSCRIBER, Job, heard, message
from stream.bench.peers.lab import Lab
from stream.bench.processes import KILL, end_with

_BUFFER_S = 4.0


class JobSettings(ez.Settings):  # type: ignore[misc, unused-ignore]
    job: Job


class Triggers(ez.Unit):  # type: ignore[misc, unused-ignore]
    """Markers as the sampler takes them."""

    INPUT = ez.InputStream(AxisArray)
    OUTPUT = ez.OutputStream(SampleTriggerMessage)

    @ez.subscriber(INPUT)  # type: ignore[untyped-decorator, unused-ignore]
    @ez.publisher(OUTPUT)  # type: ignore[untyped-decorator, unused-ignore]
    async def on_markers(self, markers: Any) -> AsyncGenerator[Any, None]:
        for row, stamp_s in zip(markers.data, markers.axes["time"].data, strict=True):
            yield self.OUTPUT, SampleTriggerMessage(timestamp=float(stamp_s), value=row[0])


class Decoder(ez.Unit):  # type: ignore[misc, unused-ignore]
    """Epochs in, answers out."""

    SETTINGS = JobSettings
    INPUT = ez.InputStream(AxisArray)
    OUTPUT = ez.OutputStream(str)

    async def initialize(self) -> None:
        self.lab = Lab.of(self.SETTINGS.job)
        print(READY, flush=True)

    @ez.subscriber(INPUT, zero_copy=True)  # type: ignore[untyped-decorator, unused-ignore]
    @ez.publisher(OUTPUT)  # type: ignore[untyped-decorator, unused-ignore]
    async def on_epoch(self, epoch: Any) -> AsyncGenerator[Any, None]:
        image = self.lab.image(epoch.attrs["trigger"].value)
        ids, scores = self.lab.answer(epoch.data.T)
        yield self.OUTPUT, message(image, ids, scores)


class Subscriber(ez.Unit):  # type: ignore[misc, unused-ignore]
    """Writes answers down."""

    SETTINGS = JobSettings
    INPUT = ez.InputStream(str)

    async def initialize(self) -> None:
        self.said = self.SETTINGS.job.said.open("a", buffering=1, encoding="utf-8")
        end_with(os.getppid(), KILL)
        print(SUBSCRIBER, os.getpid(), flush=True)

    @ez.subscriber(INPUT)  # type: ignore[untyped-decorator, unused-ignore]
    async def on_answer(self, text: str) -> None:
        self.said.write(heard(text, local_clock()))


def answer(job: Job) -> None:
    lab, settings = Lab.of(job), JobSettings(job)
    inlets = [
        LSLInletUnit(LSLInletSettings(info=LSLInfo(name=name), use_lsl_clock=True))
        for name in (job.eeg, job.markers)
    ]
    # From the first sample after the one end to the last one at or before the other.
    period_s = (lab.tmin_s - 1 / job.rate_hz, lab.tmin_s + (lab.n_times - 1) / job.rate_hz)
    parts = {
        "EEG": inlets[0],
        "MARKERS": inlets[1],
        "TRIGGERS": Triggers(),
        "SAMPLER": Sampler(SamplerSettings(buffer_dur=_BUFFER_S, period=period_s)),
        "DECODER": Decoder(settings),
        "SUBSCRIBER": Subscriber(settings),
    }
    with socket.socket() as free:  # for its server of names, whose usual port may be taken
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    ez.run(
        parts,
        connections=(
            (parts["EEG"].OUTPUT_SIGNAL, parts["SAMPLER"].INPUT_SIGNAL),
            (parts["MARKERS"].OUTPUT_SIGNAL, parts["TRIGGERS"].INPUT),
            (parts["TRIGGERS"].OUTPUT, parts["SAMPLER"].INPUT_TRIGGER),
            (parts["SAMPLER"].OUTPUT_SIGNAL, parts["DECODER"].INPUT),
            (parts["DECODER"].OUTPUT, parts["SUBSCRIBER"].INPUT),
        ),
        process_components=(parts["SUBSCRIBER"],),
        graph_address=address,
        auto_start=True,
    )


if __name__ == "__main__":
    answer(Job.model_validate_json(Path(sys.argv[1]).read_text("utf-8")))
