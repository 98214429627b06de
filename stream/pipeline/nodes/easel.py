"""The easel: one image at a time, always of the newest trial in the painter's mailbox.

A trial gives way to a newer one within one denoising step. Of two in a row only the first does: if
trials come faster than images can be painted, every second one that is begun is still finished.
Nothing here knows torch; what paints is handed in.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from decoder.painting.step import Start, Step
from hvf_core.problem import Problem, needed
from stream.acquire.lsl import local_clock
from stream.pipeline.books.image_files import encoded, save_png
from stream.pipeline.wire.config import SessionConfig
from stream.pipeline.wire.fields import Fate
from stream.pipeline.wire.flat import flat
from stream.pipeline.wire.mailbox import Mailbox
from stream.pipeline.wire.messages import (
    Embedded,
    Message,
    Noted,
    Painted,
    PaintingState,
    Preview,
)
from stream.pipeline.wire.nodes import PAINT
from stream.pipeline.wire.orders import changed


class OutOfMemory(Exception):
    """The painter ran out of memory: it ends, and is started again."""


class Painter(Protocol):
    """Paints one embedding at a time."""

    about: str
    """What it is and how it paints, for the person."""
    facts: dict[str, Any]
    """The same, for the summary and for the images."""

    def paint(
        self, job: Embedded, seed: int, on_step: Callable[[Step], bool], start: Start | None
    ) -> np.ndarray | None:
        """Paints an image, uint8 (height, width, 3), in steps of a batch of one.

        It ends with None as soon as `on_step`, which is asked after each step, says False. Without
        a `start` it begins as the session's settings say.

        Raises:
            Problem: this embedding cannot be painted.
            OutOfMemory: the memory does not suffice.
        """

    def adopt(self, config: SessionConfig) -> None:
        """Paints from now on as the session's settings, which have changed, say.

        Raises:
            Problem: they ask for what there is not; it paints on as before.
        """


class Easel:
    """Paints what comes into the mailbox, and tells what becomes of it.

    Args:
        config: of the session, with its painting.
        painter: what paints.
        mailbox: where embeddings come in.
        send: takes the messages for the results node.
        stopped: whether the image in hand is to be left as it is.
        clock: seconds, that of all stamps.
    """

    def __init__(
        self,
        config: SessionConfig,
        painter: Painter,
        mailbox: Mailbox,
        send: Callable[[Message], object],
        stopped: Callable[[], bool],
        clock: Callable[[], float] = local_clock,
    ):
        self._config = config
        self._painter = painter
        self._mailbox = mailbox
        self._send = send
        self._stopped = stopped
        self._clock = clock
        self._trial: int | None = None
        self._is_spared = False  # the trial before was cancelled, so this one is not
        self._step: Step | None = None  # the last one of the trial
        self._last_told = ""
        self._software = f"hvf-live {version('hvf-live')}"  # once: it reads all that is installed

    def obey(self, verb: str, argument: str) -> None:
        """Does what the session orders between two images."""
        config = changed(self._config, verb, argument)
        try:
            self._painter.adopt(config)
        except Problem as problem:
            self._tell("the painter goes on as before", str(problem))
            return
        self._config = config

    def paint_next(self, wait_ms: int) -> bool:
        """Paints the newest embedding; False if none comes in time.

        Raises:
            OutOfMemory: what became of the embedding has been reported.
        """
        job = self._mailbox.take(wait_ms)
        if job is None:
            return False
        if job.about.trial != self._trial:
            self._trial, self._step = job.about.trial, None
            self._say(job, "begun", "")
        stamps = dict(job.stamps) | {"taken": self._clock()}
        settings, start = needed(self._config.painting), None
        if self._step is not None and settings.refine:
            start = Start(self._step.estimate, settings.refine_strength)
        seed = settings.seed + job.about.trial
        try:
            pixels = self._painter.paint(
                job, seed, lambda step: self._on_step(job, step, stamps), start
            )
        except (Problem, OutOfMemory) as error:
            self._say(job, "failed", str(error))
            if isinstance(error, OutOfMemory):
                raise
            self._tell(f"trial {job.about.trial} is not painted", str(error))
            return True
        if pixels is not None:
            self._is_spared = False
            strength = start.strength if start is not None else settings.from_top
            self._deliver(job, pixels, seed, strength or 1.0, stamps)
        elif self._stopped():
            self._say(job, "cancelled", "the session ends")
        elif not self._is_updated(job):
            self._is_spared = True
            self._say(job, "cancelled", "a newer trial came")
        return True

    def _on_step(self, job: Embedded, step: Step, stamps: dict[str, float]) -> bool:
        self._step = step
        if self._stopped() or self._is_updated(job):
            return False
        if self._mailbox.peek() is not None and not self._is_spared:
            return False
        pictures = step.preview()
        if pictures is not None:
            stamps["previewed"] = self._clock()
            stamps.setdefault("first_preview", stamps["previewed"])
            preview = Preview(
                about=job.about,
                answer=job.answer,
                step=step.index + 1,
                n_steps=step.n_steps,
                image_format="jpeg",
                image=encoded(pictures[0], "jpeg"),
                stamps=dict(stamps),
            )
            self._send(preview)
        return True

    def _is_updated(self, job: Embedded) -> bool:
        """Whether more is known of the trial by now."""
        newer = self._mailbox.peek()
        return newer is not None and newer.about.trial == job.about.trial

    def _deliver(
        self,
        job: Embedded,
        pixels: np.ndarray,
        seed: int,
        strength: float,
        stamps: dict[str, float],
    ) -> None:
        stamps["painted"] = self._clock()
        stamps.pop("previewed", None)
        early = f"-{job.answer.tmax_s:.3f}s" if job.answer.provisional else ""
        message = Painted(
            about=job.about,
            answer=job.answer,
            seed=seed,
            ip_scale=needed(self._config.painting).ip_scale,
            steps=needed(self._step).n_steps,
            size_px=max(pixels.shape[:2]),
            strength=strength,
            file=f"images/trial-{job.about.trial:05d}{early}.png",
            image_format="webp",
            image=encoded(pixels, "webp"),
            stamps=stamps,
        )
        self._send(message)  # before the file: it is what people wait for
        path = self._config.folder / message.file
        try:
            save_png(path, pixels, self._texts(message))
        except OSError as error:
            why = f"'{path}' cannot be written ({error.strerror}); make room on the disk"
            self._tell("an image is not saved", why)

    def _texts(self, message: Painted) -> dict[str, object]:
        """What a PNG says of itself."""
        names = ["session", "trial", "stimulus", "n_repeats", "tmax_s", "provisional", "seed"]
        names += ["ip_scale", "steps", "size_px", "strength"]
        fields = flat(message)
        texts = dict(self._painter.facts) | {name: fields[name] for name in names}
        if self._config.simulated:
            texts["simulated"] = True
        return texts | {"Software": self._software}

    def _say(self, job: Embedded, state: Fate, detail: str) -> None:
        self._send(PaintingState(trial=job.about.trial, state=state, detail=detail))

    def _tell(self, what: str, why: str) -> None:
        """Tells a person, once until something else goes wrong."""
        if why != self._last_told:
            self._last_told = why
            self._send(Noted(node=PAINT, text=f"{what}: {why}", facts={}))
