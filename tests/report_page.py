"""A session folder as a test wants it, and what a reader of its report sees."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from decoder.bundle import ImageEncoderRecord
from index.gallery import Gallery, save_gallery
from stream.pipeline.books.image_files import save_png
from stream.pipeline.books.ledger import Ledger
from stream.pipeline.books.summary import Tally
from stream.pipeline.report.page import write_report
from stream.pipeline.wire.config import Endpoints, LiveSource, PaintingSettings, SessionConfig

ENCODERS = (ImageEncoderRecord(name="toy", dim=3, checksum="none"),)
RNG = np.random.default_rng(0)


def noise(px: int) -> np.ndarray:
    return RNG.integers(0, 256, (px, px, 3), np.uint8)


class Session:
    """A session folder, and what a reader of its report sees."""

    def __init__(self, folder: Path, *, images: bool = True, simulated: bool = False, **more):
        self.folder = folder / "session"
        self.folder.mkdir()
        eye = np.eye(8, dtype=np.float32)
        ids = (*(f"id-{n}" for n in range(7)), "<b>&'")
        labels = (*(f"Label {n}" for n in range(7)), '"><script>alert(1)</script>')
        gallery = Gallery(ids, labels, eye, "space", ENCODERS, "test")
        pictures = [noise(64) for _ in ids] if images else None
        save_gallery(folder / "gallery", gallery, pictures)
        (folder / "bundle").mkdir()
        (folder / "bundle" / "bundle.json").write_text("{}")
        self.config = SessionConfig(
            session="20261122-101500-ab12",
            folder=self.folder,
            endpoints=Endpoints.local(),
            simulated=simulated,
            **(self.usual(folder) | more),
        )
        self.tally = Tally(self.config, len(ids))
        self.ledger = Ledger(self.folder / "ledger.jsonl", self.tally.count)

    @staticmethod
    def usual(folder: Path) -> dict:
        source = LiveSource(eeg="EEG", markers="m")
        models = {"bundle": folder / "bundle", "gallery": folder / "gallery"}
        return models | {"source": source, "painting": PaintingSettings(prior=folder / "prior")}

    def decoded(
        self, trial: int, stimulus: str, best: str, n_repeats: int = 1, onset_s: float = 0.0, **more
    ) -> None:
        group, when = f"group of {stimulus}", {"onset_s": onset_s, "readable_s": onset_s}
        self.ledger.announce(trial, stimulus=stimulus, group=group, **when)
        facts = {
            "stimulus": stimulus,
            "n_repeats": n_repeats,
            "tmax_s": 1.0,
            "rank": 1 if stimulus == best else 2,
            "ids": [best],
            "scores": [0.5],
            "probabilities": [0.625],
            "calibrated": True,
            "abstain": False,
            "stamps": {"window_end": 1.0, "published": 1.003},
        }
        self.ledger.settle(trial, "decoded", **facts | more)

    def painted(self, trial: int, px: int = 64) -> None:
        file = f"images/trial-{trial:05d}.png"
        save_png(self.folder / file, noise(px), {})
        stamps = {"window_end": 1.0, "taken": 1.0, "painted": 3.0, "published": 3.0}
        image = {"provisional": False, "tmax_s": 1.0, "seed": 40 + trial, "file": file}
        self.ledger.note("painted", of_trial=trial, **image, stamps=stamps)

    def report(self) -> str:
        self.ledger.close()
        path = write_report(self.config, self.tally.summary(self.ledger, "finish"))
        assert path == self.folder / "report.html"
        return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """What is on a page, and what it would fetch."""

    void = ("meta", "img", "br", "link", "input")

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.rows: list[list[str]] = []  # of all tables
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += " " + data
            if self.open[-1] in ("th", "td"):
                self.rows[-1][-1] += data
