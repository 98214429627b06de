"""The report's own script, run by a browser: trials are filtered and sorted."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report_page import Session

pytestmark = pytest.mark.slow
api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
if BROWSER is None:
    pytest.skip("no Chromium or Chrome is installed", allow_module_level=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    session = Session(tmp_path_factory.mktemp("report"))
    for trial, (seen, found, sure) in enumerate(
        [("id-0", "id-0", 0.2), ("id-1", "id-2", 0.9), ("id-2", "id-2", 0.5)], 1
    ):
        session.decoded(trial, seen, found, onset_s=10.0 + trial, probabilities=[sure])
    session.ledger.announce(4, stimulus="<b>&'", group="x", onset_s=15.0)
    session.ledger.settle(4, "dropped", reason="gap", detail="samples are missing")
    session.report()
    return session.folder / "report.html"


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    """A page of a browser, with nothing in it."""
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"]
        )
        window = browser.new_page()
        window.set_default_timeout(60_000)
        yield window
        browser.close()


@pytest.fixture
def page(window: Any, report: Path) -> Any:
    window.goto(report.as_uri())
    return window


def choose(page: Any, value: str) -> None:
    page.locator(f"select:has(option[value='{value}'])").select_option(value)


def shown(page: Any) -> tuple[list[int], str]:
    """The trials that the page shows, in order, and how many it says these are."""
    titles = page.evaluate(
        """[...document.querySelectorAll("article")].filter(card => card.checkVisibility())
          .map(card => card.querySelector("h4").textContent)"""
    )
    numbers = [int(title.removeprefix("trial ")) for title in titles]
    return numbers, page.locator("output[name=n]").inner_text()


@pytest.mark.parametrize(("kind", "trials"), [("right", [1, 3]), ("dropped:-gap", [4])])
def test_trials_are_filtered_by_what_became_of_them(
    page: Any, kind: str, trials: list[int]
) -> None:
    choose(page, kind)
    assert shown(page) == (trials, f"{len(trials)} of 4")


@pytest.mark.parametrize(("text", "trials"), [("90% LABEL", [2]), ("missing", [4])])
def test_trials_are_found_by_their_text(page: Any, text: str, trials: list[int]) -> None:
    page.locator("input[name=text]").fill(text)
    assert shown(page)[0] == trials


@pytest.mark.parametrize(
    ("order", "trials"),
    [("sure", [2, 3, 1, 4]), ("rank", [1, 3, 2, 4])],
)
def test_trials_are_sorted(page: Any, order: str, trials: list[int]) -> None:
    choose(page, order)
    assert shown(page)[0] == trials


def test_a_script_from_outside_does_not_run(window: Any, report: Path, tmp_path: Path) -> None:
    text, put = report.read_text("utf-8"), "<script>document.body.remove()</script>"
    assert "</body>" in text
    changed = tmp_path / "changed.html"
    changed.write_text(text.replace("</body>", f"{put}</body>"), encoding="utf-8")
    window.goto(changed.as_uri())
    assert shown(window)[0] == [1, 2, 3, 4]
