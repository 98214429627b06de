"""A closed loop: an image is shown again and again until its answer is sure, then comes the next.

    python run_realtime.py live --eeg EEG --markers closed-loop --bundle BUNDLE --evidence added
    python examples/closed_loop.py --images stimuli/ --confidence 0.95 --most 16

The session, of the first line, adds up the evidence of repeats: averaged EEG looks sure too often
where nobody looks (docs/closed_loop.md). It goes on when all images were shown; Ctrl-C ends it.
`show` only pushes the marker: a program with a screen flips it there, as psychopy_rsvp.py does.
With --compare it goes on where it would have moved on, up to --most: what fixed schedules would
have come to is then known from the same presentations. Needs pylsl, numpy and hvf-live's client
(stream/client.py, which may be copied beside this file).
"""

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pylsl

try:
    from stream.client import ClientError, Session, TimeOut, connect
except ImportError:  # on a stimulus PC
    from client import ClientError, Session, TimeOut, connect  # type: ignore[import-not-found, no-redef]

PAUSE_S = 0.2  # from an answer to the next image

Answers = list[tuple[str, float]]
"""What was answered after each presentation, and how probable it was; "" where it was dropped."""


def present(
    session: Session, show: Callable[[str], float], image: str, most: int, until: float
) -> Answers:
    """Shows an image up to `most` times, until an answer is as probable as `until`."""
    answers: Answers = []
    unheard = 0
    session.reset_group(image)  # what was seen of it before does not count
    while len(answers) < most and (not answers or answers[-1][1] < until):
        try:
            end = session.wait_for(image, show(image), deadline_s=5)
            answers.append((end.answer.ids[0], end.answer.confidence) if end.answer else ("", 0.0))
        except TimeOut:  # a session that goes on takes some seconds to find a new program
            unheard += 1
            if unheard == 5:
                raise
        time.sleep(PAUSE_S)
    return answers


def told(image: str, answers: Answers, confidence: float) -> str:
    """What an image came to, in a line."""
    answer, probability = answers[-1]
    if not answer:
        return f"shown {image}, no answer to the last of {len(answers)}"
    verdict = "right" if answer == image else "wrong"
    sure = "sure" if probability >= confidence else "not sure"
    what = f"shown {image}, answered {answer} ({verdict}, {probability:.2f})"
    return f"{what} after {len(answers)}, {sure}"


def share(hits: np.ndarray) -> str:
    """How many of them, with the 95 % interval of Wilson."""
    k, n, z = int(hits.sum()), len(hits), 1.96
    if n == 0:
        return "0 of 0"
    middle, half = k + z**2 / 2, z * np.sqrt(k * (n - k) / n + z**2 / 4)
    low, high = (100 * (middle + side * half) / (n + z**2) for side in (-1, 1))
    return f"{k} of {n}, {100 * k / n:.1f} % ({low:.1f} to {high:.1f})"


def estimate(made_of: Callable[[np.ndarray], float], images: Sequence[str]) -> str:
    """What is made of rows, one for each of `images`, with its 95 % interval.

    The bootstrap draws images, with all rows of each: they are alike.
    """
    random, (_, image) = np.random.default_rng(0), np.unique(images, return_inverse=True)
    rows = [np.flatnonzero(image == i) for i in range(image.max() + 1)]
    drawn = random.integers(len(rows), size=(1000, len(rows)))
    draws = [made_of(np.concatenate([rows[i] for i in draw])) for draw in drawn]
    low, high = np.percentile(draws, (2.5, 97.5))
    return f"{made_of(np.arange(len(image))):.2f} ({low:.2f} to {high:.2f})"


def as_accurate(right: np.ndarray, accuracy: float) -> float:
    """How many presentations a fixed schedule needs to be so accurate, by `right` (images, most).

    Between two numbers it is interpolated; where the most do not suffice it is the most.
    """
    curve = np.maximum.accumulate(right.mean(axis=0))
    rises = np.diff(curve, prepend=-1.0) > 0
    return float(np.interp(accuracy, curve[rises], np.flatnonzero(rises) + 1))


def report(images: Sequence[str], answers: Sequence[Answers], confidence: float) -> list[str]:
    """What the loop came to and, where it went on to the end, what fixed schedules would have."""
    most = max(map(len, answers))
    sure_at = [[p >= confidence for _, p in own] for own in answers]
    sure = np.array([any(at) for at in sure_at])
    used = np.array([at.index(True) + 1 if any(at) else len(at) for at in sure_at])
    right = [[id == image for id, _ in own] for image, own in zip(images, answers, strict=True)]
    last = np.array([own[k - 1] for own, k in zip(right, used, strict=True)])
    lines = [
        f"presentations an image: {estimate(lambda i: used[i].mean(), images)}",
        f"right: {share(last)}",
        f"sure: {share(sure)}; right where it was sure: {share(last[sure])}",
    ]
    if sure.any() and all(len(own) == most for own in right):
        all_ = np.array(right)
        more = estimate(lambda i: 100 * (all_[i, -1].mean() - last[i].mean()), images)
        equal = estimate(lambda i: as_accurate(all_[i], last[i].mean()), images)
        saved = estimate(lambda i: as_accurate(all_[i], last[i].mean()) - used[i].mean(), images)
        lines += [
            f"each {most} times: right {share(all_[:, -1])}; {more} points more than the loop",
            f"each as often, for the loop's accuracy: {equal}; {saved} more than the loop",
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Shows images until the answers are sure.")
    parser.add_argument("--images", type=Path, required=True, help="folder; file names are ids")
    parser.add_argument("--n", type=int, help="how many of them, drawn; else all")
    parser.add_argument("--session", default="", help="id of the session, where several run")
    parser.add_argument(
        "--markers", default="closed-loop", help="name of the marker stream (default %(default)s)"
    )
    parser.add_argument(
        "--confidence", type=float, default=0.95, help="sure from here on (default %(default)s)"
    )
    parser.add_argument(
        "--most", type=int, default=16, help="presentations of an image (default %(default)s)"
    )
    parser.add_argument("--compare", action="store_true", help="with fixed schedules")
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        help="for the session and READY, in s (default %(default)s)",
    )
    asked = parser.parse_args()
    if not asked.images.is_dir():
        parser.error(f"--images '{asked.images}' is no folder; give the folder of your images")
    ids = sorted(file.stem for file in asked.images.iterdir())
    if not ids:
        parser.error(f"no image is in '{asked.images}'")
    images = np.random.default_rng(0).permutation(ids)[: asked.n].tolist()
    source_id = f"{asked.markers}-{platform.node()}"  # the same each time: so LSL finds it again
    info = pylsl.StreamInfo(asked.markers, "Markers", 1, 0, "string", source_id)
    outlet = pylsl.StreamOutlet(info)

    def show(image: str) -> float:
        stamp_s = float(pylsl.local_clock())  # with a screen: at the flip
        outlet.push_sample([image], stamp_s)
        return stamp_s

    answers: list[Answers] = []
    try:
        with connect(asked.session, wait_s=asked.wait) as session:
            session.wait_ready(deadline_s=asked.wait)
            for i, image in enumerate(images, 1):
                until = np.inf if asked.compare else asked.confidence
                answers.append(present(session, show, image, asked.most, until))
                line = told(image, answers[-1], asked.confidence)
                print(f"{i}/{len(images)} {line}", flush=True)
    except KeyboardInterrupt:
        print("ended by Ctrl-C")
    except ClientError as error:
        raise SystemExit(str(error)) from None
    if answers:
        print(*report(images[: len(answers)], answers, asked.confidence), sep="\n")


if __name__ == "__main__":
    main()
