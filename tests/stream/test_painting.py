"""What becomes of the trials that a painter is given, in virtual time: nothing piles up."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decoder.painting.step import Start, Step
from hvf_core.problem import Problem
from stream.pipeline.books.painting_tally import PaintingTally
from stream.pipeline.nodes.easel import Easel, OutOfMemory
from stream.pipeline.wire.bus import Listener
from stream.pipeline.wire.config import (
    DecodingSettings,
    Endpoints,
    LiveSource,
    PaintingSettings,
    SessionConfig,
)
from stream.pipeline.wire.frames import pack, unpack
from stream.pipeline.wire.mailbox import Mailbox
from stream.pipeline.wire.messages import Embedded, Message, Noted, Painted, PaintingState, Preview
from tests.memory import kept_memory
from tests.refs import about, answer

SOA_S = 0.2
JOB_S = 2.0
N_STEPS = 8
STEP_S = JOB_S / N_STEPS
FINAL_S = 1.0


class Post:
    """A latest-only socket in virtual time: of what has arrived, it holds the newest."""

    def __init__(self, world: "World"):
        self._world = world
        self._due: list[tuple[float, Embedded]] = []
        self._held: bytes | None = None

    def send(self, at_s: float, message: Embedded) -> None:
        self._due.append((at_s, message))
        self._due.sort(key=lambda entry: entry[0])

    def poll(self, wait_ms: int) -> bool:
        until_s = self._world.now_s + wait_ms / 1000
        self._deliver(self._world.now_s)
        if self._held is None:
            self._world.now_s = min(until_s, self._due[0][0]) if self._due else until_s
            self._deliver(self._world.now_s)
        return self._held is not None

    def recv(self) -> bytes:
        frame, self._held = self._held, None
        return frame

    def _deliver(self, now_s: float) -> None:
        while self._due and self._due[0][0] <= now_s:
            self._held = pack(self._due.pop(0)[1])


@dataclass
class FakePainter:
    """Takes STEP_S for every step; paints the trial's number, and what it was begun from."""

    world: "World"
    about: str = "fake"
    facts: dict = field(default_factory=lambda: {"base": "fake", "prior": "a1b2", "steps": 99})
    fault: Callable[[Embedded], Exception | None] = lambda job: None
    shows: bool = True
    n_decodes: int = 0
    adopted: list[SessionConfig] = field(default_factory=list)
    runs: list[tuple[int, int, Start | None]] = field(default_factory=list)

    def paint(
        self, job: Embedded, seed: int, on_step: Callable[[Step], bool], start: Start | None
    ) -> np.ndarray | None:
        self.runs.append((job.about.trial, seed, start))
        error = self.fault(job)
        if error is not None:
            raise error
        n_steps = N_STEPS if start is None else round(N_STEPS * start.strength)
        for i in range(n_steps):
            self.world.now_s += STEP_S
            pixels = np.full((1, 8, 8, 3), i, np.uint8) if self.shows else None
            if not on_step(Step(i, n_steps, job.about.trial + i / 100, lambda _, p=pixels: p)):
                return None
        self.n_decodes += 1
        return np.full((8, 8, 3), job.about.trial % 256, np.uint8)

    def adopt(self, config: SessionConfig) -> None:
        if config.painting.steps == 13:
            raise Problem("not in 13 steps")
        self.adopted.append(config)


class World:
    """A session in virtual time, as far as the painter sees it."""

    def __init__(self, folder: Path, **painting: object):
        self.now_s = 0.0
        self.is_stopped = False
        self.told: list[Message] = []
        self.hear: Callable[[Message], None] = self.told.append
        self.post = Post(self)
        self.painter = FakePainter(self)
        self.config = SessionConfig(
            session="s",
            folder=folder,
            endpoints=Endpoints.local(),
            source=LiveSource(eeg="EEG", markers="m"),
            bundle=folder / "bundle",
            decoding=DecodingSettings(tmax_s=(0.3,)),
            painting=PaintingSettings(prior=folder / "prior", **painting),
        )
        self.easel = Easel(
            self.config,
            self.painter,
            Mailbox(Listener(self.post, "s", print)),
            send=lambda message: self.hear(unpack(pack(message))),
            stopped=lambda: self.is_stopped,
            clock=lambda: self.now_s,
        )

    def arrives(self, trial: int, at_s: float, tmax_s: float = FINAL_S) -> None:
        self.post.send(
            at_s,
            Embedded(
                about=about(trial, onset_s=at_s - tmax_s),
                answer=answer(tmax_s),
                top_id="top",
                stamps={"window_end": at_s, "readable": at_s},
                array=np.zeros(4, np.float32),
            ),
        )

    def run(self, until_s: float) -> None:
        while self.now_s < until_s:
            self.easel.paint_next(100)

    def all_of(self, kind: type) -> list:
        return [message for message in self.told if isinstance(message, kind)]

    @property
    def fates(self) -> list[tuple[int, str]]:
        """Trials and what became of them, in order."""
        found = []
        for message in self.told:
            if isinstance(message, PaintingState):
                found.append((message.trial, message.state))
            elif isinstance(message, Painted):
                found.append((message.about.trial, "painted"))
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_trial_is_painted_with_previews_and_all_that_its_answer_said(world: World) -> None:
    world.arrives(7, at_s=1.0)
    world.run(4)
    assert world.fates == [(7, "begun"), (7, "painted")]
    previews = world.all_of(Preview)
    assert [(p.step, p.n_steps) for p in previews] == [(i + 1, N_STEPS) for i in range(N_STEPS)]
    assert previews[0].image.startswith(b"\xff\xd8")
    (image,) = world.all_of(Painted)
    assert image.image[:4] == b"RIFF"
    assert (image.about, image.answer) == (about(7, onset_s=0.0), answer(FINAL_S))
    assert (image.steps, image.strength) == (N_STEPS, 1.0)
    moments = {"window_end": 1, "readable": 1, "taken": 1}
    moments |= {"first_preview": 1 + STEP_S, "painted": 1 + JOB_S}
    assert image.stamps == pytest.approx(moments)


def test_a_stale_trial_is_given_up_within_a_step_without_a_decode(world: World) -> None:
    world.arrives(1, at_s=0.0)
    world.arrives(2, at_s=2.5 * STEP_S)
    world.run(JOB_S + 1)
    assert world.fates == [(1, "begun"), (1, "cancelled"), (2, "begun"), (2, "painted")]
    assert world.painter.n_decodes == 1
    (image,) = world.all_of(Painted)
    assert image.stamps["taken"] == pytest.approx(3 * STEP_S)  # the step that was going on
    # No preview is made of a step after which the trial is given up.
    assert [p.step for p in world.all_of(Preview) if p.about.trial == 1] == [1, 2]


def test_a_thousand_trials_at_five_per_second_for_a_painter_that_needs_two_seconds(world) -> None:
    world.painter.shows = False
    n = 1000
    for trial in range(1, n + 1):
        world.arrives(trial, at_s=trial * SOA_S)
    world.run(n * SOA_S + 2 * JOB_S + 1)
    images = world.all_of(Painted)
    # A finished image is of a trial that was the newest one job ago, give or take a step ...
    ages_s = [image.stamps["painted"] - image.stamps["readable"] for image in images]
    assert max(ages_s[:-1]) <= JOB_S + STEP_S
    # ... but for the last, which nothing newer gets out of the way of the one before it.
    assert ages_s[-1] <= 2 * JOB_S
    finished_s = [image.stamps["painted"] for image in images]
    assert np.diff(finished_s).max() <= JOB_S + SOA_S + 2 * STEP_S  # and they never cease
    assert images[-1].about.trial == n
    trials = [image.about.trial for image in images]
    assert trials == sorted(set(trials))
    assert world.painter.n_decodes == len(images)
    states = [state for _, state in world.fates]
    ends = [state for state in states if state != "begun"]
    assert ("cancelled", "cancelled") not in set(pairwise(ends))
    counts = Counter(states)
    assert counts["begun"] == counts["painted"] + counts["cancelled"]


@pytest.mark.slow
def test_the_memory_of_a_long_session_is_flat(world: World) -> None:
    world.hear = lambda message: None
    world.painter.runs = Dropped()
    used = []
    with kept_memory() as kept:
        for n in range(1, 5):
            for trial in range(50 * (n - 1) + 1, 50 * n + 1):
                world.arrives(trial, at_s=trial * SOA_S)
            world.run(50 * n * SOA_S)
            used.append(kept())
    # An entry of a list is 8 bytes, and there were 100 further trials.
    assert max(used[2:]) - used[1] < 100 * 8


class Dropped(list):
    """Keeps nothing."""

    def append(self, item: object) -> None:
        pass


def test_trials_that_come_slowly_are_all_painted(world: World) -> None:
    for trial in range(1, 6):
        world.arrives(trial, at_s=trial * (JOB_S + 0.5))
    world.run(6 * (JOB_S + 0.5))
    assert [f for f in world.fates if f[1] != "begun"] == [(n, "painted") for n in range(1, 6)]


def test_a_trial_has_the_seed_of_the_session_plus_its_number(tmp_path: Path) -> None:
    world = World(tmp_path, seed=100)
    world.arrives(7, at_s=0.0)
    world.run(JOB_S)
    assert world.painter.runs == [(7, 107, None)]
    assert world.all_of(Painted)[0].seed == 107


# --- refinement ----------------------------------------------------------------------------------


@pytest.fixture
def refining(tmp_path: Path) -> World:
    return World(tmp_path, refine=True, refine_strength=0.5)


def test_a_final_embedding_goes_on_from_the_estimate_of_the_provisional_one(refining) -> None:
    refining.arrives(3, at_s=0.0, tmax_s=0.3)
    refining.arrives(3, at_s=2.5 * STEP_S)
    refining.run(JOB_S + 1)
    assert refining.fates == [(3, "begun"), (3, "painted")]
    first, second = refining.painter.runs
    assert first == (3, 3, None)
    assert second == (3, 3, Start(latents=3.02, strength=0.5))  # as it was after three steps
    (image,) = refining.all_of(Painted)
    assert (image.answer.provisional, image.strength, image.steps) == (False, 0.5, N_STEPS // 2)
    assert [p.answer.provisional for p in refining.all_of(Preview)] == [True] * 2 + [False] * 4
    assert refining.painter.n_decodes == 1


def test_a_provisional_image_that_was_finished_is_refined_too(refining: World) -> None:
    refining.arrives(3, at_s=0.0, tmax_s=0.3)
    refining.arrives(3, at_s=JOB_S + 1)
    refining.run(2 * JOB_S + 2)
    early, final = refining.all_of(Painted)
    assert (early.answer.provisional, final.answer.provisional) == (True, False)
    assert (early.file, final.file) == ("images/trial-00003-0.300s.png", "images/trial-00003.png")
    assert refining.painter.runs[1][2] == Start(latents=3.07, strength=0.5)


def test_a_newer_trial_is_not_begun_from_the_estimate_of_an_older_one(refining: World) -> None:
    refining.arrives(3, at_s=0.0, tmax_s=0.3)
    refining.arrives(4, at_s=2.5 * STEP_S, tmax_s=0.3)
    refining.arrives(3, at_s=4.5 * STEP_S)  # the final answer to a trial that was given up
    refining.run(JOB_S + 2)
    assert refining.fates == [(3, "begun"), (3, "cancelled"), (4, "begun"), (4, "painted")]
    assert refining.painter.runs == [(3, 3, None), (4, 4, None)]


def test_an_image_begun_with_the_first_of_the_answer_says_how_much_was_replaced(tmp_path) -> None:
    world = World(tmp_path, from_top=0.4)
    world.arrives(3, at_s=0.0)
    world.run(JOB_S)
    assert world.all_of(Painted)[0].strength == 0.4
    assert world.painter.runs == [(3, 3, None)]


# --- what can go wrong ---------------------------------------------------------------------------


def test_a_trial_that_cannot_be_painted_is_said_once_and_the_next_is_painted(world: World) -> None:
    world.painter.fault = lambda job: Problem("it is not finite") if job.about.trial < 4 else None
    for trial in (1, 2, 3, 4):
        world.arrives(trial, at_s=trial * 3.0)
    world.run(4 * 3.0 + JOB_S)
    ends = [fate for fate in world.fates if fate[1] != "begun"]
    assert ends == [(1, "failed"), (2, "failed"), (3, "failed"), (4, "painted")]
    assert {p.detail for p in world.all_of(PaintingState)} == {"", "it is not finite"}
    (noted,) = world.all_of(Noted)
    assert (noted.node, noted.text) == (
        "paint",
        "trial 1 is not painted: it is not finite",
    )


def test_out_of_memory_ends_the_painter_and_the_trial_has_failed(world: World) -> None:
    world.painter.fault = lambda job: OutOfMemory("12 GiB")
    world.arrives(1, at_s=0.0)
    with pytest.raises(OutOfMemory, match="12 GiB"):
        world.run(1)
    assert world.fates == [(1, "begun"), (1, "failed")]


def test_a_session_that_is_stopped_leaves_the_image_as_it_is(world: World) -> None:
    world.arrives(1, at_s=0.0)
    world.painter.fault = lambda job: setattr(world, "is_stopped", True)
    world.run(2 * STEP_S)
    assert world.fates == [(1, "begun"), (1, "cancelled")]
    assert world.now_s < JOB_S
    assert world.painter.n_decodes == 0


def test_an_image_that_cannot_be_saved_is_shown_all_the_same(world: World) -> None:
    (world.config.folder / "images").write_text("in the way")
    world.arrives(1, at_s=0.0)
    world.arrives(2, at_s=3.0)
    world.run(3.0 + JOB_S)
    assert [trial for trial, state in world.fates if state == "painted"] == [1, 2]
    noted = world.all_of(Noted)[0].text
    assert noted.startswith("an image is not saved: ")
    assert "trial-00001.png" in noted


# --- what is left --------------------------------------------------------------------------------


def test_images_say_how_they_were_made(tmp_path: Path) -> None:
    world = World(tmp_path, seed=40, ip_scale=0.8)
    world.config = world.config.model_copy(update={"simulated": True})
    world.arrives(2, at_s=0.0)
    world.run(JOB_S)
    (image,) = world.all_of(Painted)
    assert image.file == "images/trial-00002.png"
    with Image.open(tmp_path / image.file) as picture:
        assert (np.asarray(picture) == 2).all()
        texts = picture.text
    assert {name: texts[name] for name in ("session", "trial", "stimulus", "seed", "ip_scale")} == {
        "session": "s",
        "trial": "2",
        "stimulus": "stimulus 2",
        "seed": "42",
        "ip_scale": "0.8",
    }
    assert (texts["prior"], texts["base"], texts["steps"]) == ("a1b2", "fake", "8")
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["trial-00002.png"]


def test_the_counts_of_a_session_add_up_to_its_answers() -> None:
    tally = PaintingTally()
    stamps = {
        "window_end": 1.0,
        "taken": 1.1,
        "first_preview": 1.3,
        "painted": 2.0,
        "published": 2.5,
    }
    for trial, states in enumerate(
        (["begun"], ["begun", "cancelled"], ["begun", "failed"], ["begun", "cancelled", "begun"])
    ):
        for state in states:
            tally.add(trial, state)
    for trial, provisional in ((10, True), (10, False), (11, True)):
        tally.add(trial, "begun")
        tally.add_image(trial, {"provisional": provisional, "stamps": stamps})
    tally.add(11, "cancelled")  # its refinement, not its image
    told = tally.summary(20, {"base": "tiny"})
    counts = {name: told[name] for name in ("painted", "cancelled", "failed", "superseded")}
    assert counts == {"painted": 2, "cancelled": 2, "failed": 2, "superseded": 14}
    assert sum(counts.values()) == 20
    assert told["first_preview_ms"]["p50"] == pytest.approx(300)
    assert told["image_ms"]["p50"] == pytest.approx(1500)
    assert told["paint_ms"]["max"] == pytest.approx(900)
    assert told["base"] == "tiny"


def test_changes_come_between_two_images_and_what_cannot_be_is_said_and_left(tmp_path) -> None:
    world = World(tmp_path)
    world.easel.obey("set", "painting.ip_scale 0.5")
    world.easel.obey("set", "painting.steps 13")
    world.arrives(1, at_s=0.0)
    world.run(10.0)
    (image,) = world.all_of(Painted)
    assert image.ip_scale == 0.5
    assert [config.painting.ip_scale for config in world.painter.adopted] == [0.5]
    assert [note.text for note in world.all_of(Noted)] == [
        "the painter goes on as before: not in 13 steps"
    ]
