"""Plays a recording as LSL outlets at its recorded timing, or faster.

`python -m stream.sources.replay FILE [--speed S] [--start S] [--duration S] [--name NAME]`
"""

from pathlib import Path
from typing import Annotated

import typer

from hvf_core.options import Asked, with_settings
from hvf_core.problem import WrongUsage, one_sentence
from hvf_core.text import printable
from stream.acquire.lsl import local_clock
from stream.sources.outlets import Outlets, sleep_until, wait_for_go
from stream.sources.read import read_recording
from stream.sources.recording import Recording
from stream.sources.settings import NOTICE, ReplaySettings
from stream.sources.virtual_time import play

CHUNK_S = 0.02


def replay(recording: Recording, outlets: Outlets, speed: float) -> None:
    """Pushes a recording; stamps keep their recorded spacing at any speed.

    At speed 1 a sample is pushed when the clock shows its stamp. Faster, stamps begin in the past,
    slower, they lag: they never lead the clock, so no latency looks better than it is.
    """
    now_s = local_clock()
    chunks = list(play(recording, max(1, round(CHUNK_S * recording.rate_hz))))
    first_s, last_s = chunks[0][1].readable_s, chunks[-1][1].readable_s
    lag_s = max(0.0, (last_s - first_s) * (1 - 1 / speed))
    for stream, chunk in chunks:
        sleep_until(now_s + (chunk.readable_s - first_s) / speed)
        stamps_s = now_s - lag_s + chunk.raw_s + chunk.offset_s - first_s
        if stream == "eeg":
            outlets.push_eeg(chunk.samples, stamps_s)
        else:
            for row, stamp_s in zip(chunk.samples, stamps_s.tolist(), strict=True):
                outlets.push_marker(str(row[0]), stamp_s)


@with_settings(ReplaySettings)
def main(
    path: Path,
    asked: Asked[ReplaySettings],
    name: Annotated[str, typer.Option(help="of the EEG stream")] = "hvf-replay",
    wait_for_go_line: Annotated[bool, typer.Option("--wait-for-go", hidden=True)] = False,
) -> None:
    """Plays FILE as the LSL streams NAME and NAME-markers."""
    played = asked.settings()
    if played.speed == "max":
        raise WrongUsage("--speed max needs no streams: give it to `run_realtime.py replay`")
    recording = read_recording(path, played, played.stop_s)
    for notice in recording.notices:
        print(f"{NOTICE}{printable(notice)}", flush=True)
    signal = recording.signal(recording.channels)
    outlets = Outlets(name, recording.channels, recording.rate_hz, signal, recording.simulated)
    if wait_for_go_line:
        wait_for_go()
    outlets.wait_for_consumers()
    replay(recording, outlets, played.speed)
    outlets.linger()


if __name__ == "__main__":
    with one_sentence():
        typer.run(main)
