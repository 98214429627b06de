"""A gallery that grows and shrinks while trials are answered: every answer is of one gallery."""

import shutil
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from decoder.bundle import open_bundle
from index.gallery import Gallery, load_gallery
from index.gallery.changes import Row, add_images, remove_images
from stream.pipeline.control import Control
from stream.pipeline.decoding import open_decoder
from stream.pipeline.galleries import accept, open_accepted
from stream.pipeline.nodes.decode import Decoder
from stream.pipeline.states import Event, Lifecycle
from stream.pipeline.wire.config import Endpoints, LiveSource, SessionConfig
from stream.pipeline.wire.messages import Retrieval, TrialSlice
from tests.refs import about
from tests.tiny_bundle import tiny_models
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the engine holds the gallery"),
]
N_TRIALS, N_NEW, AT_ONCE = 1000, 1000, 20


class Session:
    """A session's control and its decoder, without sockets between them."""

    def __init__(self, folder: Path, models: Path):
        (folder / "session").mkdir()
        shutil.copytree(models / "gallery", folder / "gallery")
        self.config = SessionConfig(
            session="s",
            folder=folder / "session",
            endpoints=Endpoints(**dict.fromkeys(Endpoints.model_fields, "ipc:///x")),
            source=LiveSource(eeg="eeg", markers="markers"),
            bundle=models / "bundle",
            gallery=folder / "gallery",
            decoding={"engine": "torch"},
        )
        accept(self.config, load_gallery(folder / "gallery"), None)
        self.now_s, life = 0.0, Lifecycle(0.0)
        life.on(Event.READY, 0.0)
        self.control = Control(self, life, lambda event: False, clock=lambda: self.now_s)
        self.start_decoder()

    def start_decoder(self) -> None:
        gallery, bundle = open_accepted(self.config), open_bundle(self.config.bundle)

        def say(text: str, facts: object) -> None:
            pass

        live = open_decoder(self.config, bundle, gallery, float, say)
        self.decoder = Decoder(self.config, live, gallery, say)
        self.accepted = {gallery.revision}

    def order(self, order: str, *names: str) -> None:
        verb, _, argument = order.partition(" ")
        self.decoder.obey(verb, argument)
        self.accepted.add(open_accepted(self.config).revision)

    @property
    def gallery(self) -> Gallery:
        """The one of which answers are by now."""
        gallery = self.decoder._gallery
        assert gallery.revision in self.accepted
        return gallery

    def look(self) -> None:
        """A second later."""
        self.now_s += 1.0
        self.control.look()
        self.decoder.look()
        assert {done.outcome for _, done in self.control.told} <= {"done"}, self.control.told


def answered(session: Session, trial: int) -> list[Retrieval]:
    """What is said to a trial of three slices, and is right."""
    samples = np.random.default_rng(trial).normal(size=(4, 20)).astype(np.float32)
    said = []
    for first, last in ((0, 8), (8, 14), (14, 20)):
        part = TrialSlice(
            about=about(trial, stimulus="a", group=f"{trial}"),
            first=first,
            corrects=0,
            final=last == 20,
            residual_s=0.0,
            stamps={"window_end": 0.0},
            array=samples[:, first:last],
        )
        for answer, z in session.decoder.take(part):
            check_answer(answer, z, session)
            said.append(answer)
        session.decoder.keep()
        if trial % 3 == 0:
            session.look()  # in the middle of a trial
    return said


def check_answer(answer: Retrieval, z: np.ndarray, session: Session) -> None:
    """Against a brute force over the gallery that the session had accepted when it was given."""
    gallery = session.gallery
    cosines = gallery.embeddings[gallery.rows].astype(float) @ z.astype(float)
    order = np.argsort(-cosines, kind="stable")
    best = gallery.rows[order[:5]].tolist()
    assert answer.ids == [gallery.ids[row] for row in best]
    assert answer.labels == [gallery.labels[row] for row in best]
    assert answer.labels == [f"label of {id_}" if len(id_) > 1 else id_ for id_ in answer.ids]
    assert answer.scores == pytest.approx(cosines[order[:5]], abs=1e-5)
    logits = cosines * np.exp(session.decoder.live.manifest.logit_scale)
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert answer.probabilities == pytest.approx(p[order[:5]], abs=1e-5)
    assert answer.rank == 1 + order.tolist().index(gallery.rows.tolist().index(0))  # that of "a"


def test_a_thousand_images_come_and_go_while_a_thousand_trials_are_answered(tmp_path: Path) -> None:
    session = Session(tmp_path, tiny_models(tmp_path / "models"))
    folder, n_first = session.config.gallery, len(session.gallery)

    def change() -> None:
        rng = np.random.default_rng(0)
        for start in range(0, N_NEW, AT_ONCE):
            assert permits.acquire(timeout=100)
            ids = [f"new {n}" for n in range(start, start + AT_ONCE)]
            z = rng.normal(size=(AT_ONCE, 8)).astype(np.float32)
            z /= np.linalg.norm(z, axis=1, keepdims=True)
            add_images(folder, [([Row(id_, f"label of {id_}") for id_ in ids], z)], "test")
            if start % (5 * AT_ONCE) == 0:
                remove_images(folder, ids[:2])

    permits = threading.Semaphore(0)
    changes = threading.Thread(target=change)
    changes.start()
    n_answers, sizes = Counter[int](), set()
    for trial in range(1, N_TRIALS + 1):
        (answer,) = answered(session, trial)  # one, though the gallery changed meanwhile
        n_answers[answer.about.trial] += 1
        if trial % AT_ONCE == 0:
            permits.release()  # images come all the time, as fast as the disk takes them
        session.look()
        if trial % 250 == 0:
            wait_until(lambda: session.look() or len(session.gallery) not in sizes)
            sizes.add(len(session.gallery))
            session.start_decoder()  # as one that died is started again
    changes.join()
    wait_until(lambda: session.look() or len(session.gallery) == n_first + N_NEW - 20)
    assert len(answered(session, N_TRIALS + 1)) == 1
    assert n_answers == Counter(range(1, N_TRIALS + 1))
    assert len(sizes) == 4  # as it changed while trials were answered
