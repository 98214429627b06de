"""The easel: one image at a time, always of the newest trial in the painter's mailbox.

A trial gives way to a newer one within one denoising step. Of two in a row only the first does: if
trials come faster than images can be painted, every second one that is begun is still finished.
Nothing here knows torch; what paints is handed in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from hvf_core.problem import Problem
from stream.acquire.lsl import local_clock
from stream.pipeline.nodes.pictures import encoded, save_png
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.mailbox import Mailbox
from stream.pipeline.wire.messages import (
    Embedded,
    Message,
    Noted,
    Painted,
    PaintingState,
    Preview,
    flat,
)

NODE = "paint"
IMAGES = "images"
"""The folder of the images, in the session folder."""


class OutOfMemory(Exception):
    """The painter ran out of memory: it ends, and is started again."""


class Step(Protocol):
    """A denoising step that was taken."""

    index: int
    """Counted from 0."""
    n_steps: int
    estimate: Any
    """What the image would be if it were finished now, for `Start`."""

    def preview(self) -> np.ndarray | None:
        """The estimate to look at, uint8 (height, width, 3); None where none is wanted."""


@dataclass(frozen=True)
class Start:
    """What an image is begun from: an estimate, and how much of it is replaced, up to 1."""

    estimate: Any
    strength: float


@dataclass(frozen=True)
class Picture:
    """A finished image, uint8 (height, width, 3), and in how many steps it came."""

    pixels: np.ndarray
    steps: int
    strength: float


class Painter(Protocol):
    """Paints one embedding at a time."""

    about: str
    """What it is and how it paints, for the person."""
    facts: Mapping[str, Any]
    """The same, for the summary and for the images."""

    def paint(
        self, job: Embedded, seed: int, on_step: Callable[[Step], bool], start: Start | None
    ) -> Picture | None:
        """Paints until `on_step` says False, which is asked after each step; then None.

        Raises:
            Problem: this embedding cannot be painted.
            OutOfMemory: the memory does not suffice.
        """


class Easel:
    """Paints what comes into the mailbox, and reports what becomes of it.

    Args:
        config: of the session, with its painting.
        painter: what paints.
        mailbox: where embeddings come in.
        report: takes the messages for the results node.
        stopped: whether the image in hand is to be left as it is.
        clock: seconds, that of all stamps.
    """

    def __init__(
        self,
        config: SessionConfig,
        painter: Painter,
        mailbox: Mailbox,
        report: Callable[[Message], None],
        stopped: Callable[[], bool],
        clock: Callable[[], float] = local_clock,
    ):
        self._config = config
        self._settings = config.painting
        self._painter = painter
        self._mailbox = mailbox
        self._report = report
        self._stopped = stopped
        self._clock = clock
        self._trial: int | None = None
        self._is_spared = False  # the trial before was cancelled, so this one is not
        self._estimate: Any = None  # how the trial's image stands
        self._last_told = ""

    def paint_next(self, wait_ms: int) -> bool:
        """Paints the newest embedding; False if none comes in time.

        Raises:
            OutOfMemory: what became of the embedding has been reported.
        """
        job = self._mailbox.take(wait_ms)
        if job is None:
            return False
        if job.about.trial != self._trial:
            self._trial, self._estimate = job.about.trial, None
            self._say(job, "begun", "")
        stamps = dict(job.stamps) | {"taken": self._clock()}
        try:
            picture = self._paint(job, stamps)
        except (Problem, OutOfMemory) as error:
            self._say(job, "failed", str(error))
            if isinstance(error, OutOfMemory):
                raise
            self._tell(f"trial {job.about.trial} is not painted", str(error))
            return True
        if picture is not None:
            self._is_spared = False
            self._deliver(job, picture, stamps)
        elif self._stopped():
            self._say(job, "cancelled", "the session ends")
        elif not self._is_updated(job):
            self._is_spared = True
            self._say(job, "cancelled", "a newer trial came")
        return True

    def _paint(self, job: Embedded, stamps: dict[str, float]) -> Picture | None:
        start = None
        if self._estimate is not None:
            start = Start(self._estimate, self._settings.refine_strength)
        seed = self._settings.seed + job.about.trial
        return self._painter.paint(job, seed, lambda step: self._on_step(job, step, stamps), start)

    def _on_step(self, job: Embedded, step: Step, stamps: dict[str, float]) -> bool:
        if self._settings.refine:
            self._estimate = step.estimate
        if self._stopped() or self._is_updated(job) or self._is_outrun():
            return False
        pixels = step.preview()
        if pixels is not None:
            stamps["previewed"] = self._clock()
            stamps.setdefault("first_preview", stamps["previewed"])
            self._report(_preview(job, step, pixels, stamps))
        return True

    def _is_updated(self, job: Embedded) -> bool:
        """Whether more is known of the trial by now."""
        newer = self._mailbox.peek()
        return newer is not None and newer.about.trial == job.about.trial

    def _is_outrun(self) -> bool:
        return self._mailbox.peek() is not None and not self._is_spared

    def _deliver(self, job: Embedded, picture: Picture, stamps: dict[str, float]) -> None:
        stamps["painted"] = self._clock()
        stamps.pop("previewed", None)
        early = f"-{job.answer.tmax_s:.3f}s" if job.answer.provisional else ""
        message = Painted(
            about=job.about,
            answer=job.answer,
            seed=self._settings.seed + job.about.trial,
            ip_scale=self._settings.ip_scale,
            steps=picture.steps,
            size_px=max(picture.pixels.shape[:2]),
            strength=picture.strength,
            file=f"{IMAGES}/trial-{job.about.trial:05d}{early}.png",
            image_format="webp",
            image=encoded(picture.pixels, "webp"),
            stamps=stamps,
        )
        self._report(message)  # before the file: it is what people wait for
        try:
            save_png(self._config.folder / message.file, picture.pixels, self._texts(message))
        except OSError as error:
            self._tell(
                "an image is not saved",
                f"'{self._config.folder / message.file}' cannot be written ({error.strerror}); "
                "make room on the disk",
            )

    def _texts(self, message: Painted) -> dict[str, object]:
        """What a PNG says of itself."""
        names = ("session", "trial", "stimulus", "n_repeats", "tmax_s", "provisional", "seed")
        names += ("ip_scale", "steps", "size_px", "strength")
        fields = flat(message)
        texts = dict(self._painter.facts) | {name: fields[name] for name in names}
        if self._config.simulated:
            texts["simulated"] = True
        return texts | {"Software": f"hvf-live {version('hvf-live')}"}

    def _say(self, job: Embedded, state: str, detail: str) -> None:
        about = job.about
        self._report(
            PaintingState(session=about.session, trial=about.trial, state=state, detail=detail)
        )

    def _tell(self, what: str, why: str) -> None:
        """Tells a person, once until something else goes wrong."""
        if why != self._last_told:
            self._last_told = why
            text = f"{what}: {why}"
            self._report(Noted(session=self._config.session, node=NODE, text=text, facts={}))


def _preview(job: Embedded, step: Step, pixels: np.ndarray, stamps: Mapping[str, float]) -> Preview:
    return Preview(
        about=job.about,
        answer=job.answer,
        step=step.index + 1,
        n_steps=step.n_steps,
        image_format="jpeg",
        image=encoded(pixels, "jpeg"),
        stamps=dict(stamps),
    )
