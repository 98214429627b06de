"""The page that a session leaves: whole, small, and honest about what it shows."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from hvf_core.problem import Problem
from stream.pipeline.report.cards import AT_A_GLANCE
from stream.pipeline.report.thumbnails import MOST_PICTURES
from tests.report_page import Reader, Session


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
    assert "1 painted, 2 left out" in seen.text
    assert seen.text.count("a newer trial came first") == 1
    assert seen.text.lower().count("not painted") == 2  # its card, and what that means
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
    tags = [tag for tag, _ in seen.tags]
    assert not set(tags) & {"link", "iframe", "b"}
    assert "<script>alert(1)</script>" in seen.text
    assert not [name for _, given in seen.tags for name in given if name.startswith("on")]
    # The one script is the program's, and the only one that the policy lets run.
    assert tags.count("script") == 1
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for t, a in seen.tags if a.get("http-equiv")]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
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


def test_of_a_long_session_all_trials_are_shown_and_some_paintings_lie_beside_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.pipeline.report.cards.MOST_PICTURES", 8)
    session = Session(tmp_path)
    for trial in range(1, 41):
        session.decoded(trial, f"id-{trial % 7}", f"id-{trial % 5}")
        if trial % 2:
            session.painted(trial)
    page = session.report()
    seen = Reader(page)
    assert "All 40 trials" in seen.text
    assert [t for t, _ in seen.tags].count("article") == 40 + AT_A_GLANCE
    # Near the top, of the six images that came last, what was last painted.
    glance = page[page.index('id="glance"') : page.index('id="accuracy"')]
    assert re.findall(r"painted in trial (\d+)", glance) == ["35", "29", "37", "31", "39", "33"]
    sources = {a["src"] for t, a in seen.tags if t == "img"}
    assert all(a["loading"] == "lazy" for t, a in seen.tags if t == "img")
    beside = [source for source in sources if not source.startswith("data:image/")]
    assert len(sources) == 20
    assert 4 <= len(sources) - len(beside) <= 8
    assert all((session.folder / source).is_file() for source in beside)


def test_of_many_images_of_a_gallery_no_more_are_in_the_page_than_load_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.pipeline.report.thumbnails.MOST_PICTURES", 2)
    session = Session(tmp_path)
    for trial in range(1, 8):
        session.decoded(trial, f"id-{trial - 1}", f"id-{trial - 1}")
    page = session.report()
    assert page.count("{background-image:url(") == 4
    assert Reader(page).text.count("not in the page") == 2 * (2 * 3)  # at the top too


@pytest.mark.slow
def test_a_page_of_images_that_compress_badly_stays_below_ten_megabytes(tmp_path: Path) -> None:
    session = Session(tmp_path)
    n = MOST_PICTURES // 4
    for trial in range(1, n + 2):
        session.decoded(trial, "id-0", "id-0")
        session.painted(trial, px=256)
    page = session.report()
    assert len(page.encode()) / (n + 1) * MOST_PICTURES < 10e6


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
