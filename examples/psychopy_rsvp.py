"""Images in quick succession (RSVP) with PsychoPy, each with an LSL marker stamped at its flip.

    python psychopy_rsvp.py --images stimuli/ --soa 0.2 --repeats 4
    python psychopy_rsvp.py --images stimuli/ --check        # without PsychoPy: markers only

A marker's text is the image's id, its file name without the ending. It begins when the session is
READY: told by hvf-live's client (stream/client.py, which may be copied beside this file), or else
by the LSL stream `hvf-live-results`. Needs pylsl and PsychoPy. Escape or Ctrl-C ends it: end one
that still runs before the next, as two of a name are refused.
"""

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pylsl

FOUND_S = 6.0  # within which a session that ran before has found this program's markers
KINDS = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


class Screen:
    """PsychoPy's window; `n_dropped` frames came late."""

    def __init__(self, files: list[Path]):
        try:
            from psychopy import event, visual  # type: ignore[import-not-found]
        except ModuleNotFoundError as error:
            raise SystemExit(
                f"PsychoPy is not installed (no module '{error.name}'): install it with "
                "`pip install psychopy`, or give --check, which needs none and shows nothing"
            ) from None

        self.event = event
        self.window = visual.Window(fullscr=True, color="grey", units="height", waitBlanking=True)
        self.window.mouseVisible = False
        self.images = {f: visual.ImageStim(self.window, str(f), size=0.5) for f in files}
        if not (rate_hz := self.window.getActualFrameRate()):  # flips do not wait for the screen
            raise SystemExit(
                "no frame rate could be measured: switch on the screen's vertical sync"
            )
        self.rate_hz = float(rate_hz)
        self.window.recordFrameIntervals = True

    def frame(self, file: Path | None, at_flip: Callable[[], None] | None = None) -> None:
        """Shows an image, or grey, for a frame; `at_flip` is called when it is on the screen."""
        if file is not None:
            self.images[file].draw()
        if at_flip is not None:
            self.window.callOnFlip(at_flip)
        self.window.flip()
        if self.event.getKeys(["escape"]):
            raise KeyboardInterrupt

    @property
    def n_dropped(self) -> int:
        return int(self.window.nDroppedFrames)


class NoScreen:
    """In its place with --check: nothing is shown, at 60 frames a second."""

    rate_hz, n_dropped = 60.0, 0

    def __init__(self) -> None:
        self.flip_s = pylsl.local_clock()

    def frame(self, file: Path | None, at_flip: Callable[[], None] | None = None) -> None:
        self.flip_s += 1 / self.rate_hz
        late_s = pylsl.local_clock() - self.flip_s
        if late_s > 1 / self.rate_hz:
            self.n_dropped, self.flip_s = self.n_dropped + 1, self.flip_s + late_s
        time.sleep(max(0.0, -late_s))
        if at_flip is not None:
            at_flip()


def wait_until_ready(session: str, markers: pylsl.StreamInfo, wait_s: float) -> None:
    """Waits until markers count, in `session`, or in the one here that hears these markers."""
    try:
        from stream import client
    except ImportError:
        try:
            import client  # type: ignore[import-not-found, no-redef]
        except ImportError:
            hear_ready(session, time.monotonic() + wait_s)
            return
    until_s = time.monotonic() + wait_s
    while (left_s := until_s - time.monotonic()) > 0:
        ours = [one.session for one in client.discover() if hears(one.folder, markers)]
        if found := session or next(iter(ours), ""):
            try:
                with client.connect(found, wait_s=left_s) as running:
                    running.wait_ready(deadline_s=max(0.0, until_s - time.monotonic()))
                    return
            except client.SessionEnded as end:
                print(f"{end}; waiting for the next session", flush=True)
            except client.ClientError as error:
                raise SystemExit(str(error)) from None
        time.sleep(0.2)
    raise SystemExit(f"no session that hears '{markers.name()}' became ready within {wait_s:g} s")


def hears(folder: str, markers: pylsl.StreamInfo) -> bool:
    """Whether a session hears this marker stream, or none, as where codes are in the EEG."""
    try:
        source = json.loads((Path(folder) / "config.json").read_bytes())["source"]
    except (OSError, ValueError, KeyError):  # it is about to write it
        return False
    chosen = (None, markers.source_id(), markers.hostname(), markers.uid())
    is_ours = source.get("markers") == markers.name() and source.get("marker_source_id") in chosen
    return "eeg" in source and (is_ours or source.get("markers") is None)


def hear_ready(session: str, deadline_s: float) -> None:
    """The same by LSL alone (docs/results.md)."""
    name, wait_s = "hvf-live-results", deadline_s - time.monotonic()
    if session:
        found = pylsl.resolve_byprop("source_id", f"{name}-{session}", 1, wait_s)
    else:
        pylsl.resolve_byprop("name", name, 1, wait_s)
        found = pylsl.resolve_byprop("name", name, 99, 1.0)  # all that there are within 1 s
    if len(found) != 1:
        there = ", ".join(info.source_id() for info in found) or "none"
        raise SystemExit(f"one session was expected, and there are: {there}; give --session ID")
    inlet = pylsl.StreamInlet(found[0])
    while time.monotonic() < deadline_s:
        text, _ = inlet.pull_sample(1.0)
        told = json.loads(text[0]) if text else {}
        if told.get("event") == "ready" or told.get("state") == "ready":
            return
    raise SystemExit("the session did not become ready in time: its screen says what it waits for")


def orders(files: list[Path], repeats: int) -> Iterator[list[Path]]:
    """All images in a random order, again and again, none twice in a row."""
    last = None
    for _ in range(repeats):
        order = random.sample(files, len(files))
        if order[0] == last:
            order.append(order.pop(0))
        yield order
        last = order[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="RSVP with LSL markers stamped at the flip. Escape or Ctrl-C ends it: end one "
        "that still runs before the next, as two marker streams of a name are refused."
    )
    parser.add_argument("--images", type=Path, required=True, help="folder; file names are ids")
    parser.add_argument(
        "--soa", type=float, default=0.2, help="onset to onset, in s (default %(default)s)"
    )
    parser.add_argument(
        "--on", type=float, default=0.1, help="how long each is there, in s (default %(default)s)"
    )
    parser.add_argument(
        "--iti", type=float, default=1.5, help="after each round, in s (default %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=4, help="rounds (default %(default)s)")
    parser.add_argument(
        "--markers", default="PsychoPy", help="of the marker stream (default %(default)s)"
    )
    parser.add_argument("--session", default="", help="id of the session, where several run")
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        help="for READY, in s (default %(default)s); 0: for nobody",
    )
    parser.add_argument("--check", action="store_true", help="without PsychoPy and a screen")
    asked = parser.parse_args()
    if not asked.images.is_dir():
        parser.error(f"--images '{asked.images}' is no folder; give the folder of your images")
    files = sorted(f for f in asked.images.iterdir() if f.suffix.lower() in KINDS)
    if not files:
        parser.error(f"no image is in '{asked.images}'")
    source_id = f"{asked.markers}-{platform.node()}"  # the same each time: so LSL finds it again
    info = pylsl.StreamInfo(asked.markers, "Markers", 1, 0, "string", source_id)
    outlet = pylsl.StreamOutlet(info)
    own = pylsl.resolve_byprop("source_id", info.source_id(), 1, 10)
    inlet = pylsl.StreamInlet(own[0], processing_flags=0)  # hears what others hear
    inlet.open_stream(10)
    screen = NoScreen() if asked.check else Screen(files)
    n_soa, n_on, n_iti = (round(s * screen.rate_hz) for s in (asked.soa, asked.on, asked.iti))
    if asked.wait:
        print(f"waiting for a session that hears '{asked.markers}' to be READY", flush=True)
        wait_until_ready(asked.session, own[0], asked.wait)
        time.sleep(FOUND_S)
    sent: list[tuple[str, float]] = []
    soas_ms: list[float] = []

    def mark(id: str) -> None:
        sent.append((id, pylsl.local_clock()))
        outlet.push_sample([id], sent[-1][1])

    try:
        for number, order in enumerate(orders(files, asked.repeats), 1):
            print(f"round {number} of {asked.repeats}, {len(order)} images", flush=True)
            for n, file in enumerate(order):
                screen.frame(file, partial(mark, file.stem))
                for i in range(1, n_soa):
                    screen.frame(file if i < n_on else None)
                if n > 0:
                    soas_ms.append(1000 * (sent[-1][1] - sent[-2][1]))
            for _ in range(n_iti):
                screen.frame(None)
    except KeyboardInterrupt:
        print("ended early")
    time.sleep(1)  # until whoever listens has the last one; this program waits for it longer
    texts, stamps_s = inlet.pull_chunk(10.0 * bool(sent), max_samples=max(1, len(sent)))
    n_heard = len({*zip((text[0] for text in texts), stamps_s, strict=True)} & {*sent})
    if asked.check:
        print("no display: timing of markers only")
    print(f"{len(sent)} markers, {n_heard} of them heard by this program too, with their stamps")
    if soas_ms:
        low, middle, high = min(soas_ms), statistics.median(soas_ms), max(soas_ms)
        soa = f"SOA {middle:.1f} ms ({low:.1f} to {high:.1f}), {1000 * asked.soa:.1f} asked for"
        print(soa if asked.check else f"{soa}; dropped frames: {screen.n_dropped}")


if __name__ == "__main__":
    main()
