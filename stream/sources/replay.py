"""Plays a recording as LSL outlets at its recorded timing, or faster.

`python -m stream.sources.replay FILE [--speed S] [--start S] [--stop S] [--name NAME]`
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hvf_core.problem import one_sentence
from stream.acquire.lsl import local_clock
from stream.sources.outlets import Outlets, sleep_until, wait_for_go
from stream.sources.recording import Recording, read_recording
from stream.sources.virtual_time import play

CHUNK_S = 0.02


def replay(recording: Recording, outlets: Outlets, speed: float) -> None:
    """Pushes a recording; stamps keep their recorded spacing at any speed.

    At speed 1 a sample is pushed when the clock shows its stamp. Faster, stamps begin in the past,
    slower, they lag: they never lead the clock, so no latency looks better than it is.
    """
    now_s = local_clock()
    lag_s = max(0.0, recording.duration_s * (1 - 1 / speed))
    first_s = None
    for stream, chunk in play(recording, max(1, round(CHUNK_S * recording.rate_hz))):
        stamps_s = chunk.raw_s + chunk.offset_s
        if first_s is None:
            first_s = float(stamps_s[0])
        since_s = stamps_s - first_s
        sleep_until(now_s + float(since_s[-1]) / speed)
        stamps_s = now_s - lag_s + since_s
        if stream == "eeg":
            outlets.push_eeg(chunk.samples, stamps_s)
        else:
            outlets.push_marker(str(chunk.samples[0][0]), float(stamps_s[0]))


def main(
    path: Path,
    speed: Annotated[float, typer.Option(min=0.01)] = 1.0,
    start: Annotated[float, typer.Option(help="seconds from the recording's start")] = 0.0,
    stop: Annotated[float, typer.Option(help="seconds from the recording's start")] = np.inf,
    name: Annotated[str, typer.Option(help="of the EEG stream")] = "hvf-replay",
    stim_channel: Annotated[str | None, typer.Option(help="take markers from it")] = None,
    eeg_stream: Annotated[str | None, typer.Option(help="of an XDF file")] = None,
    marker_stream: Annotated[str | None, typer.Option(help="of an XDF file")] = None,
    wait_for_go_line: Annotated[bool, typer.Option("--wait-for-go", hidden=True)] = False,
) -> None:
    """Plays FILE as the LSL streams NAME and NAME-markers."""
    with one_sentence():
        recording = read_recording(
            path, stim_channel=stim_channel, eeg_stream=eeg_stream, marker_stream=marker_stream
        ).slice(start, stop)
        signal = recording.signal(recording.channels)
        outlets = Outlets(name, recording.channels, recording.rate_hz, signal)
        if wait_for_go_line:
            wait_for_go()
        outlets.wait_for_consumers()
        replay(recording, outlets, speed)
        outlets.linger()


if __name__ == "__main__":
    typer.run(main)
