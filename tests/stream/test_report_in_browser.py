"""The report's own script, run by a browser: trials are filtered and sorted."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report_page import Session

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed"),
]
# The script begins with what the form holds: a page that is loaded needs no clicks.


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    session = Session(tmp_path_factory.mktemp("report"))
    for trial, (seen, found, sure) in enumerate(
        [("id-0", "id-0", 0.2), ("id-1", "id-2", 0.9), ("id-2", "id-2", 0.5)], 1
    ):
        session.decoded(trial, seen, found, onset_s=10.0 + trial, probabilities=[sure])
    session.ledger.announce(4, stimulus="<b>&'", group="x", onset_s=15.0)
    session.ledger.settle(4, "dropped", reason="gap", detail="samples are missing")
    session.report()
    return session.folder / "report.html"


def shown(page: Path, folder: Path, *changes: tuple[str, str]) -> tuple[list[int], str]:
    """The trials that the page shows, in order, and how many it says these are."""
    text = page.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    changed = folder / "changed.html"
    changed.write_text(text, encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", changed.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    cards = re.findall(r"<article ([^>]*)><h4>trial (\d+)</h4>", dom)
    (told,) = re.findall(r'<output name="n">([^<]*)</output>', dom)
    return [int(n) for given, n in cards if "hidden" not in given], told


@pytest.mark.parametrize(("kind", "trials"), [("hit", [1, 3]), ("dropped:-gap", [4])])
def test_trials_are_filtered_by_what_became_of_them(
    page: Path, tmp_path: Path, kind: str, trials: list[int]
) -> None:
    option = f'<option value="{kind}"'
    assert shown(page, tmp_path, (option, f"{option} selected")) == (
        trials,
        f"{len(trials)} of 4",
    )


@pytest.mark.parametrize(("text", "trials"), [("90% LABEL", [2]), ("missing", [4])])
def test_trials_are_found_by_their_text(
    page: Path, tmp_path: Path, text: str, trials: list[int]
) -> None:
    field = 'name="text" type="search"'
    assert shown(page, tmp_path, (field, f'{field} value="{text}"'))[0] == trials


@pytest.mark.parametrize(
    ("order", "trials"),
    [("sure", [2, 3, 1, 4]), ("rank", [1, 3, 2, 4])],
)
def test_trials_are_sorted(page: Path, tmp_path: Path, order: str, trials: list[int]) -> None:
    usual, option = '<option value="time" selected>', f'<option value="{order}"'
    changes = ((usual, '<option value="time">'), (option, f"{option} selected"))
    assert shown(page, tmp_path, *changes)[0] == trials


def test_a_script_from_outside_does_not_run(page: Path, tmp_path: Path) -> None:
    put = "<script>document.getElementById('cards').remove()</script>"
    assert shown(page, tmp_path, ("</body>", f"{put}</body>"))[0] == [1, 2, 3, 4]
