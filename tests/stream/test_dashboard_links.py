"""What a page leaves of its links, where its folder takes none, and where it was killed."""

import json
import os
from pathlib import Path

import pytest

from stream.dashboard.links import kept, links_in

LINKS = {"control": ["http://127.0.0.1:1/?token=c"]}
DEAD = json.dumps({"links": LINKS | {"look": ["of a dead page"]}})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_a_page_is_served_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "page-link-full.html"
    file.touch()
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr("tempfile.mkstemp", lambda *_: (full, str(file)))
    with kept(tmp_path, LINKS):
        assert "No space left" in caplog.text
        assert not file.exists()


def test_what_a_killed_page_left_is_no_page_and_is_taken_away_where_that_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page-link-whole.html").write_text(DEAD)
    half = tmp_path / "page-link-half.html"
    half.write_text('{"control"')
    with monkeypatch.context() as read_only, kept(tmp_path, LINKS):
        read_only.setattr(Path, "unlink", lambda _: (_ for _ in ()).throw(PermissionError()))
        (tmp_path / "page-link-other.html").write_text(DEAD)
        assert [*links_in(tmp_path).values()] == [LINKS]
    assert links_in(tmp_path) == {}
    assert half.exists()  # it may be just being written
    os.utime(half, (0, 0))
    assert links_in(tmp_path) == {}
    assert not [*tmp_path.iterdir()]
