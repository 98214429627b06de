"""The page that a session leaves: whole, small, and honest about what it shows."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from decoder.bundle import ImageEncoderRecord
from hvf_core.problem import Problem
from index.gallery import Gallery, save_gallery
from stream.pipeline.books.image_files import save_png
from stream.pipeline.books.ledger import Ledger
from stream.pipeline.books.summary import Tally
from stream.pipeline.report.page import MOST_TRIALS, write_report
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
            source=LiveSource(eeg="EEG", markers="m"),
            simulated=simulated,
            **(self.models(folder) | more),
        )
        self.tally = Tally(self.config, len(ids))
        self.ledger = Ledger(self.folder / "ledger.jsonl", self.tally.count)

    @staticmethod
    def models(folder: Path) -> dict:
        painting = PaintingSettings(prior=folder / "prior")
        return {"bundle": folder / "bundle", "gallery": folder / "gallery", "painting": painting}

    def decoded(self, trial: int, stimulus: str, best: str, n_repeats: int = 1) -> None:
        self.ledger.announce(trial, stimulus=stimulus, group=f"group of {stimulus}")
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
        self.ledger.settle(trial, "decoded", **facts)

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

    void = ("meta", "img", "br", "link")

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += " " + data


def test_seen_retrieved_and_painted_are_side_by_side(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.decoded(1, "id-0", "id-0")
    session.painted(1)
    session.decoded(2, "id-1", "id-2")
    session.ledger.note("painting", of_trial=2, state="cancelled", detail="a newer trial came")
    session.decoded(3, "unknown", "id-2")
    page = session.report()
    seen = Reader(page)
    assert [t for t, _ in seen.tags].count("article") == 3
    (painted,) = [a for t, a in seen.tags if t == "img"]
    assert painted["alt"] == "painted in trial 1"
    shown = [a["class"] for t, a in seen.tags if t == "span" and a.get("role") == "img"]
    assert shown == ["p g0", "p g0", "p g1", "p g2", "p g2"]
    for row in (0, 1, 2):  # each is in the page once
        assert page.count(f".g{row}{{background-image:url(data:image/webp;base64,") == 1
    assert ".g3{" not in page
    for text in (
        "Label 0",
        "Label 2",
        "seed 41",
        "cancelled: a newer trial came",
        "not in the gallery",
    ):
        assert text in seen.text
    assert "62% sure" in seen.text
    assert "1 painted, 1 cancelled, 1 superseded" in seen.text
    assert "top-1" in seen.text
    assert [a["class"] for t, a in seen.tags if t == "article"] == [
        "card right",
        "card wrong",
        "card wrong",
    ]


def test_the_repeats_of_an_image_are_together(tmp_path: Path) -> None:
    session = Session(tmp_path)
    for trial, (stimulus, n_repeats) in enumerate([("id-0", 1), ("id-1", 1), ("id-0", 2)], 1):
        session.decoded(trial, stimulus, "id-0", n_repeats)
    said = Reader(session.report()).text
    places = [said.index(text) for text in ("trial 1 ", "trial 3 ", "trial 2 ")]
    assert places == sorted(places)
    assert said.index("group of id-0") < places[0] < places[1] < said.index("group of id-1")


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.decoded(1, "<b>&'", "<b>&'")
    session.painted(1)
    page = session.report()
    seen = Reader(page)
    tags = {tag for tag, _ in seen.tags}
    assert not tags & {"script", "link", "iframe", "b"}
    assert "<script>alert(1)</script>" in seen.text
    sources = re.findall(r"url\(([^)]{0,12})", page)
    sources += [a["src"] for t, a in seen.tags if t == "img"]
    assert sources
    assert all(source.startswith("data:image") for source in sources)
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page


@pytest.mark.parametrize("simulated", [True, False])
def test_a_simulated_session_is_called_so(tmp_path: Path, simulated: bool) -> None:
    session = Session(tmp_path, simulated=simulated)
    session.decoded(1, "id-0", "id-0")
    assert ("Simulated subject" in Reader(session.report()).text) == simulated


def test_of_a_long_session_a_part_is_shown(tmp_path: Path) -> None:
    session = Session(tmp_path)
    n = 2 * MOST_TRIALS + 10
    for trial in range(1, n + 1):
        session.decoded(trial, f"id-{trial % 7}", f"id-{trial % 5}")
    session.painted(4)
    session.painted(n)
    seen = Reader(session.report())
    assert f"2 of {n} decoded trials" in seen.text  # those that are painted
    assert [t for t, _ in seen.tags].count("img") == 2


@pytest.mark.slow
def test_a_page_of_images_that_compress_badly_stays_below_ten_megabytes(tmp_path: Path) -> None:
    session = Session(tmp_path)
    n = MOST_TRIALS // 4
    for trial in range(1, n + 2):
        session.decoded(trial, "id-0", "id-0")
        session.painted(trial, px=256)
    page = session.report()
    assert len(page.encode()) / (n + 1) * MOST_TRIALS < 10e6


def test_a_session_that_paints_nothing_has_a_page_too(tmp_path: Path) -> None:
    session = Session(tmp_path, painting=None)
    session.decoded(1, "id-0", "id-1")
    seen = Reader(session.report())
    assert "painted" not in seen.text.lower()
    assert [t for t, _ in seen.tags].count("article") == 1


def test_a_session_that_only_cuts_has_its_numbers(tmp_path: Path) -> None:
    session = Session(tmp_path, painting=None, bundle=None, gallery=None)
    session.ledger.announce(1, stimulus="a", group="a")
    session.ledger.settle(1, "cut", residual_s=0.0, stamps={})
    seen = Reader(session.report())
    assert "1 = 1 cut" in seen.text
    assert "No trial was decoded." in seen.text


def test_a_gallery_without_images_and_an_image_that_was_removed_are_said(tmp_path: Path) -> None:
    session = Session(tmp_path, images=False)
    session.decoded(1, "id-0", "id-1")
    session.painted(1)
    (session.folder / "images" / "trial-00001.png").unlink()
    seen = Reader(session.report())
    assert "no image" in seen.text
    assert "images/trial-00001.png is missing" in seen.text


def test_a_report_is_made_although_the_gallery_has_lost_an_image(tmp_path: Path) -> None:
    session = Session(tmp_path)
    session.decoded(1, "id-0", "id-1")
    (tmp_path / "gallery" / "images" / "00001.png").unlink()
    assert Reader(session.report()).text.count("no image") == 1


def test_a_page_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    session = Session(tmp_path)
    (session.folder / "report.html").mkdir()
    with pytest.raises(Problem, match=r"report\.html' cannot be written"):
        session.report()
