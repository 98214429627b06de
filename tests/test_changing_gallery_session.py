"""A session whose gallery grows while it runs: what everybody is told of it."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from index.gallery import MANIFEST, Gallery, open_gallery, save_gallery
from index.gallery.changes import Row, add_images
from stream.pipeline.books.ledger import read_ledger
from tests.calling import call
from tests.sessions import (
    check_accounted,
    finish,
    node_pid,
    start,
    trials_of,
    wait_for_decoded,
    wait_for_ledger,
)
from tests.test_steered_session import Caller
from tests.tiny_bundle import hvf_of
from tests.tiny_painting import DIM, ENCODERS, write_bundle, write_models, write_recording

pytestmark = pytest.mark.slow


def told(folder: Path, outcome: str) -> list[dict]:
    """What the session says by itself of its gallery."""
    records = read_ledger(folder / "ledger.jsonl")
    return [r for r in records if (r.get("by"), r.get("outcome")) == ("session", outcome)]


def add(folder: Path, *ids: str) -> None:
    z = np.eye(DIM, dtype=np.float32)[len(open_gallery(folder)) :][: len(ids)]
    add_images(folder, [([Row(id_, f"picture of {id_}") for id_ in ids], z)], "test")


def test_images_that_are_added_are_in_the_answers_and_what_is_damaged_is_not(tmp_path) -> None:
    models, folder = write_models(tmp_path), tmp_path / "session"
    gallery = models / "gallery"
    recording = write_recording(tmp_path / "toy_raw.fif", 90 * "abcdez")
    options = ("--bundle", models / "bundle", "--headless", "--out", folder)
    process = start("replay", recording, *options)

    wait_for_decoded(folder, 4)
    add(gallery, "e", "f")
    wait_for_ledger(folder, lambda _: told(folder, "done"))
    wait_for_ledger(folder, lambda _: "e" in stimuli_of(folder, "decoded"))
    caller = Caller(folder)
    assert caller.ask("like", "1 f")[1].startswith('[["e", "picture of e", ')

    whole = (gallery / MANIFEST).read_bytes()
    (gallery / MANIFEST).write_bytes(whole[:50])
    wait_for_ledger(folder, lambda _: told(folder, "refused"))
    os.kill(node_pid(folder, "decode"), signal.SIGKILL)  # another opens what was accepted
    wait_for_decoded(folder, len(trials_of(folder, "decoded")) + 6)
    (gallery / MANIFEST).write_bytes(whole)
    assert caller.ask("stop")[0] == "done"
    done = finish(process)
    caller.close()
    assert done.code == 0, done.err

    summary = check_accounted(folder)
    assert summary["n_way"] == 6
    (record,) = told(folder, "done")
    assert (record["facts"]["n_old"], record["facts"]["n_new"]) == (4, 6)
    (refused,) = told(folder, "refused")
    assert "is not JSON" in refused["text"]
    line = f"session: gallery {gallery} (answers are now among the 6 images of '{gallery}', before"
    assert line in done.out
    decoded = trials_of(folder, "decoded")
    n_ids = [len(one["ids"]) for one in decoded]
    n_before = n_ids.count(4)
    assert n_ids == [4] * n_before + [5] * (len(n_ids) - n_before)  # from one answer to the next
    assert n_before >= 4
    assert {"e", "f"} <= {id_ for one in decoded[n_before:] for id_ in one["ids"]}
    assert "z" not in stimuli_of(folder, "decoded")
    assert "picture of e" in (folder / "report.html").read_text()
    again = call("evaluate", "--session", folder, module="offline_train")
    assert f"told 'gallery {gallery}' while it ran" in again.one_sentence()


def stimuli_of(folder: Path, event: str) -> set[str]:
    return {record["stimulus"] for record in trials_of(folder, event)}


def test_a_session_is_among_the_images_of_a_file(tmp_path) -> None:
    models, folder, ids = write_models(tmp_path), tmp_path / "session", tmp_path / "ids.txt"
    recording = write_recording(tmp_path / "toy_raw.fif", 6 * "abcd")
    options = ("--bundle", models / "bundle", "--headless", "--speed", "max", "--out", folder)
    ids.write_text("a\nc\nwho\n")
    refused = start("replay", recording, *options, "--among", ids)
    assert "has 2, and not that of line 3" in finish(refused).one_sentence()
    ids.write_text("a\nc\n")
    done = finish(start("replay", recording, *options, "--among", ids))
    assert done.code == 0, done.err
    assert "the search of 2 images is exact" in done.out
    ids.write_text("b\n")  # which is too late
    summary = check_accounted(folder)
    assert (summary["n_way"], summary["chance"], summary["decoded"]) == (2, 0.5, 12)
    assert summary["dropped"] == {"unknown_stimulus": 12}
    assert (summary["decoder"]["search"], summary["decoder"]["is_exact"]) == ("exact", True)
    for record in trials_of(folder, "decoded"):
        assert set(record["ids"]) == {"a", "c"}
        assert sum(record["probabilities"]) == pytest.approx(1, abs=1e-6)
        assert record["rank"] == 1 + record["ids"].index(record["stimulus"])
    again = call("evaluate", "--session", folder, module="offline_train")
    assert again.code == 0, again.err


def memory_mb(folder: Path) -> tuple[float, float]:
    """Of all processes of a session: what is theirs alone, and how much of that is a copy of what
    they map of a gallery."""
    own_kb = copied_kb = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() not in (process / "cmdline").read_bytes():
                continue
            lines = (process / "smaps").read_text().splitlines()
        except OSError:  # it has ended, or is nobody's
            continue
        is_gallery = False
        for line in lines:
            name, value, *rest = line.split()
            if not name.endswith(":"):  # a mapping begins
                is_gallery = "embeddings" in (rest or [""])[-1]
                continue
            own_kb += int(value) if name == "Anonymous:" else 0
            copied_kb += int(value) if name == "Private_Dirty:" and is_gallery else 0
    return own_kb / 1024, copied_kb / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_session_has_no_copy_of_its_gallery(tmp_path) -> None:
    """It goes over from three images to 80 MB of them: what its processes have for themselves does
    not grow by half of that, whoever looks at the images."""
    dim, n = 1024, 20_000
    space = write_bundle(tmp_path / "bundle", hvf_of(ENCODERS, dim, 8), dim)
    rng, folder = np.random.default_rng(0), tmp_path / "session"
    for name, n_images in (("gallery", 3), ("large", n)):
        ids = (*"abc", *map(str, range(3, n_images)))
        z = rng.standard_normal((n_images, dim), np.float32)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        save_gallery(tmp_path / name, Gallery(ids, ids, z, space, ENCODERS, "test"))
    recording = write_recording(tmp_path / "toy_raw.fif", 90 * "abc")
    options = ("--bundle", tmp_path / "bundle", "--blind", "--out", folder)
    process = start("replay", recording, *options)
    wait_for_decoded(folder, 4)
    caller = Caller(folder)
    assert caller.ask("like", "1 a")[0] == "done"
    before_mb, _ = memory_mb(folder)
    assert caller.ask("gallery", str(tmp_path / "large"))[0] == "done"
    wait_for_decoded(folder, len(trials_of(folder, "decoded")) + 4)
    assert caller.ask("like", "1 a")[0] == "done"
    after_mb, copied_mb = memory_mb(folder)
    assert caller.ask("stop")[0] == "done"
    caller.close()
    assert finish(process).code == 0
    # Whoever asks what is alike leaves no trace, and is answered in a blind session too.
    assert [record["verb"] for record in trials_of(folder, "control")] == ["gallery", "stop"]
    size_mb = 4 * n * dim / 2**20
    assert copied_mb == 0
    assert after_mb - before_mb < size_mb / 2
