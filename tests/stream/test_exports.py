"""What is exported is read back by other programs: the same trials, ids and samples."""

import errno
import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import mne
import numpy as np
import pytest
from PIL import Image

from decoder.bundle import ImageEncoderRecord
from hvf_core.lock import alone_in
from index.gallery import Gallery, save_gallery
from stream.acquire.markers import MarkerRule
from stream.acquire.triggers import TriggerSettings
from stream.exports.stimuli import write_stimuli
from stream.pipeline.books.about import AboutSettings
from stream.pipeline.lock import held
from stream.pipeline.wire.config import LiveSource
from tests.calling import ROOT, call
from tests.finished import LABELS, RATE_HZ, Piece, Session, finished, header, record

pandas = pytest.importorskip("pandas")
mne_bids = pytest.importorskip("mne_bids")
WITHOUT_BRAINDECODE = "braindecode is not installed: it requires torchaudio (docs/exports.md)"
FACTS = ("--subject", "01", "--task", "rsvp", "--line-freq", "50")
WHOLE = [Piece(100.0, 2500)]
GAP = [Piece(100.0, 1250), Piece(105.8, 1500)]
AGAIN = [Piece(100.0, 1250), Piece(109.0017, 1500)]  # the amplifier was off, and on again
OTHER_CLOCK = [Piece(100.0, 1250), Piece(109.0017, 1500, 90.0)]
PAUSE = [Piece(100.0, 1250), Piece(300.0017, 1250)]
MARKERS = [
    (99.0, "before"),
    *((101.0 + 0.4013 * i, f"cat_{i % 3:02}" if i % 2 else "Käse 猫") for i in range(12)),
    *((106.3, "in between"), (110.0, "cat_01"), (110.4, "-1"), (301.0, "late")),
]


def gallery(folder: Path, ids=("cat_00", "cat_01", "Käse 猫")) -> Path:
    """Of photographs that know where they were taken."""
    files = []
    for number, _ in enumerate(ids):
        exif = Image.Exif()
        exif[0x010E] = "SECRET PLACE"
        files.append(folder / f"{number}.jpg")
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(files[-1], exif=exif)
    eye, labels = np.eye(8, dtype=np.float32)[: len(ids)], tuple(f"a {id_}" for id_ in ids)
    toy = (ImageEncoderRecord(name="toy", dim=3, checksum="none"),)
    save_gallery(folder / "gallery", Gallery(ids, labels, eye, "space", toy, "test", tuple(files)))
    return folder / "gallery"


def exported(session: Session, root: Path, *more: object) -> list[str]:
    """The lines that are printed."""
    done = call("export", session.folder, "--bids", root, *FACTS, *more)
    assert done.code == 0, done.err
    return done.out.splitlines()


def read_runs(root: Path, subject: str = "01") -> list[mne.io.BaseRaw]:
    files = sorted(root.glob(f"sub-{subject}/**/*_eeg.vhdr"))
    paths = [mne_bids.get_bids_path_from_fname(file) for file in files]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a reader has nothing to complain of
        raws = [mne_bids.read_raw_bids(path, verbose="ERROR") for path in paths]
    return [raw.load_data(verbose="ERROR") for raw in raws]


def tsv(file: Path) -> list[dict[str, str]]:
    return pandas.read_csv(file, sep="\t", dtype=str, keep_default_na=False).to_dict("records")


def validated(root: Path) -> tuple[list[str], set[str]]:
    """Errors, and the codes of warnings, of a data set and those in its derivatives."""
    validator = shutil.which("bids-validator-deno", path=Path(sys.executable).parent)
    assert validator, "pip install -e '.[test]'"
    command = (validator, root, "--recursive", "--format", "json")
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    found = [told, *told["derivativesSummary"].values()]
    issues = [issue for one in found for issue in one["issues"]["issues"]]
    errors = [f"{i['code']} {i.get('location')}" for i in issues if i["severity"] == "error"]
    return errors, {i["code"] for i in issues if i["severity"] != "error"}


@pytest.mark.parametrize("pieces", [WHOLE, GAP, AGAIN, OTHER_CLOCK, PAUSE])
def test_bids_is_read_back_as_what_was_recorded(tmp_path: Path, pieces) -> None:
    session = finished(tmp_path / "s", pieces, MARKERS)
    said = exported(session, tmp_path / "ds")
    raws = read_runs(tmp_path / "ds")
    assert len(raws) == (2 if pieces is PAUSE else 1)
    texts = {n: text for n, (_, text) in enumerate(MARKERS, 1)}
    found, good, seen = [], set(), {}
    for raw in raws:
        assert raw.ch_names == list(LABELS)
        assert raw.get_channel_types() == ["eeg", "eeg", "eeg", "eog", "misc"]
        data = raw.get_data()
        data[:4] *= 1e6
        skipped = np.zeros(raw.n_times, bool)
        for one in raw.annotations:
            place = round(one["onset"] * RATE_HZ)
            if one["description"] == "BAD_ACQ_SKIP":
                skipped[place : place + round(one["duration"] * RATE_HZ)] = True
                continue
            extras = one["extras"]
            trial = int(extras["trial"])
            seen[trial] = extras
            assert texts[trial] == extras["stimulus"] == extras["marker"]
            if trial in session.trials:
                window = data[:, place - 25 : place + 76].T
                np.testing.assert_allclose(window, session.trials[trial], rtol=3e-7)
                assert abs(float(extras["residual_s"])) < 0.51 / RATE_HZ
        assert not data[:, skipped].any()
        found.append(data[:, ~skipped])
        events, codes = mne.events_from_annotations(raw, {"image": 1}, verbose="ERROR")
        epochs = mne.Epochs(
            *(raw, events, codes, -0.1, 0.3), baseline=None, preload=True, verbose="ERROR"
        )
        images = [one for one in raw.annotations if one["description"] == "image"]
        good |= {int(images[number]["extras"]["trial"]) for number in epochs.selection}
    # MNE, which passes over what is marked bad, makes epochs of the very trials that were cut.
    assert good == set(session.trials)
    samples = np.concatenate(found, axis=1).T
    assert len(session.samples) - 13 <= len(samples) <= len(session.samples)
    np.testing.assert_allclose(samples, session.samples[: len(samples)], rtol=3e-7)
    n_outside = len(MARKERS) - len(seen)
    assert n_outside
    outside = "outside of the recording: in the table of answers alone"
    assert f"{n_outside} markers lie {outside}" in said
    answers = [row for file in tmp_path.glob("ds/derivatives/**/*_events.tsv") for row in tsv(file)]
    assert sorted(int(row["trial"]) for row in answers) == [*range(1, len(MARKERS) + 1)]
    cut = {int(row["trial"]) for row in answers if row["fate"] == "cut"}
    assert cut == set(session.trials)


def test_channels_and_events_are_described_as_they_are(tmp_path: Path) -> None:
    others = [(101.5, "Response/R  1"), (102.5, json.dumps({"bad": "blink", "duration_s": 0.4}))]
    markers = sorted([(101.0, "a"), (102.7, "b"), (104.0, "tab\there"), *others])
    session = finished(tmp_path / "s", GAP, markers)
    exported(session, tmp_path / "ds", "--reference", "FCz", "--montage", "colin27_1020")
    folder = tmp_path / "ds" / "sub-01" / "eeg"
    channels = tsv(folder / "sub-01_task-rsvp_channels.tsv")
    assert [row["type"] for row in channels] == ["EEG", "EEG", "EEG", "EOG", "MISC"]
    assert [row["units"] for row in channels] == ["µV"] * 4 + ["g"]
    assert {row["low_cutoff"] for row in channels} == {row["status"] for row in channels} == {"n/a"}
    told = json.loads((folder / "sub-01_task-rsvp_eeg.json").read_text())
    known = {"EEGReference": "FCz", "PowerLineFrequency": 50.0, "RecordingType": "discontinuous"}
    assert known.items() <= told.items()
    coordinates = json.loads((folder / "sub-01_space-CapTrak_coordsystem.json").read_text())
    assert "not measured" in coordinates["EEGCoordinateSystemDescription"]
    events = tsv(folder / "sub-01_task-rsvp_events.tsv")
    found = [(row["trial_type"], row["marker"]) for row in events]
    expected = [("image", "a"), ("marker", "Response/R  1"), ("BAD_marked", "blink")]
    expected += [("image", "b"), ("image", "tab\\there"), ("BAD_ACQ_SKIP", "n/a")]
    assert found == expected
    bad = events[2]
    assert (float(bad["onset"]), float(bad["duration"])) == pytest.approx((2.5, 0.4))
    sidecar = json.loads((folder / "sub-01_task-rsvp_events.json").read_text())
    assert set(sidecar) == set(events[0])
    assert {one for one, _ in expected} == set(sidecar["trial_type"]["Levels"])
    (raw,) = read_runs(tmp_path / "ds")
    codes = mne.events_from_annotations(raw, {"image": 1}, verbose="ERROR")
    epochs = mne.Epochs(raw, *codes, -0.1, 0.3, baseline=None, preload=True, verbose="ERROR")
    assert len(epochs) == len(session.trials) == 2  # without the one that the blink is in


def test_channels_may_be_called_anything(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.finished.LABELS", ("Ω, 1;", "Cz", "Cz", "tab\there", ""))
    session = finished(tmp_path / "s", GAP, MARKERS)
    epochs = tmp_path / "t-epo.fif"
    exported(session, tmp_path / "ds", "--epochs", epochs)
    (raw,) = read_runs(tmp_path / "ds")
    assert raw.ch_names == ["Ω, 1;", "Cz-0", "Cz-1", "tab\\there", "5"]
    assert mne.read_epochs(epochs, verbose="ERROR").ch_names[0] == r"\u03a9, 1;"


def test_a_session_of_before_is_matched_by_its_stamps(tmp_path: Path) -> None:
    session = finished(tmp_path / "s", GAP, [*MARKERS, (302.0, "Response/R 1")])
    ledger = session.folder / "ledger.jsonl"
    records = [json.loads(line) for line in ledger.read_text().splitlines()]
    for one in records:
        for name in ("mark", "text", "sent_s", "block"):
            one.pop(name, None)
    ledger.write_text("".join(json.dumps(one) + "\n" for one in records))
    exported(session, tmp_path / "ds")
    events = tsv(tmp_path / "ds/sub-01/eeg/sub-01_task-rsvp_events.tsv")
    images = [row for row in events if row["trial_type"] == "image"]
    assert len(images) == len(MARKERS) - 2
    assert all(row["marker"] == row["stimulus"] for row in images)
    assert not [row for row in events if row["trial_type"] == "marker"]
    epochs = tmp_path / "t-epo.fif"
    assert call("export", session.folder, "--epochs", epochs).code == 0
    assert set(mne.read_epochs(epochs, verbose="ERROR").metadata["trial"]) == set(session.trials)


@pytest.mark.slow
def test_a_second_subject_joins_and_nothing_is_written_over(tmp_path: Path) -> None:
    images, root = gallery(tmp_path), tmp_path / "ds"
    session = finished(tmp_path / "s", WHOLE, MARKERS, gallery=images)
    other = finished(tmp_path / "o", GAP, MARKERS, simulated=True, gallery=images)
    exported(session, root, "--name", "Our study", "--authors", "A. Person")
    participants = root / "participants.tsv"
    participants.write_text(participants.read_text().replace("sub-01\tn/a", "sub-01\t33"))
    (root / "README").write_text("ours")
    before = {f: f.read_bytes() for f in root.glob("sub-01/**/*") if f.is_file()}
    done = call("export", session.folder, "--bids", root, *FACTS)
    assert done.code == 1
    assert "give another --run, or --overwrite" in done.one_sentence()

    done = call("export", other.folder, "--bids", root, "--subject", "02", *FACTS[2:])
    assert done.code == 0, done.err
    assert "simulated" in done.out
    rows = {row["participant_id"]: row for row in tsv(participants)}
    assert {name: row["simulated"] for name, row in rows.items()} == {
        "sub-01": "false",
        "sub-02": "true",
    }
    told = json.loads((root / "dataset_description.json").read_text())
    assert (told["Name"], told["Authors"]) == ("Our study", ["A. Person"])
    made_up = ["SIMULATED" in one["Description"] for one in told["GeneratedBy"]]
    assert made_up == [False, True]
    assert (root / "README").read_text() == "ours"
    stimuli = tsv(root / "stimuli" / "stimuli.tsv")
    assert (
        len(stimuli)
        == len({row["stimulus_id"] for row in stimuli})
        == len({*dict(MARKERS).values()})
    )

    exported(session, root, "--overwrite")
    exported(session, root, "--run", "2")
    assert len(read_runs(root)) == 2
    assert {row["age"] for row in tsv(participants)} == {"33", "n/a"}
    assert {f: f.read_bytes() for f in before if f.suffix != ".tsv" or "scans" not in f.name} == {
        f: data for f, data in before.items() if "scans" not in f.name
    }


def test_images_are_named_once_and_say_nothing_of_where_they_were_taken(tmp_path: Path) -> None:
    images = gallery(tmp_path)
    session = finished(tmp_path / "s", WHOLE, MARKERS, gallery=images)
    exported(session, tmp_path / "ds")
    folder = tmp_path / "ds" / "stimuli"
    rows = {row["original_id"]: row for row in tsv(folder / "stimuli.tsv")}
    assert rows["cat_01"]["stimulus_id"] == "stim-cat01"
    assert rows["cat_01"]["description"] == "a cat_01"
    there = {name: row["present"] for name, row in rows.items()}
    assert {name for name, told in there.items() if told == "true"} == {
        "cat_00",
        "cat_01",
        "Käse 猫",
    }
    for number, name in enumerate(("cat_00", "cat_01", "Käse 猫")):
        file = folder / f"{rows[name]['stimulus_id']}_image.png"
        with Image.open(file) as image, Image.open(tmp_path / f"{number}.jpg") as source:
            np.testing.assert_array_equal(np.asarray(image), np.asarray(source))
            assert not image.getexif()
        assert b"SECRET" not in file.read_bytes()
    events = tsv(tmp_path / "ds/sub-01/eeg/sub-01_task-rsvp_events.tsv")
    for row in events:
        assert row["stim_id"] == rows[row["stimulus"]]["stimulus_id"]
        file = rows[row["stimulus"]]["present"] == "true" and f"{row['stim_id']}_image.png"
        assert row["stim_file"] == (file or "n/a")
    file = folder / "stimuli.tsv"
    file.write_text(file.read_text().replace("a cat_00\ttrue\tn/a", "a cat_00\ttrue\thttps://x"))
    (folder / "stim-cat00_image.png").unlink()
    exported(session, tmp_path / "ds", "--overwrite")
    again = {row["original_id"]: row for row in tsv(file)}
    assert (again["cat_00"]["present"], again["cat_00"]["URL"]) == ("false", "https://x")
    assert {name: row for name, row in again.items() if name != "cat_00"} == {
        name: row for name, row in rows.items() if name != "cat_00"
    }
    shutil.rmtree(images)
    said = exported(session, tmp_path / "without")
    assert any(line.startswith("no images are copied, as the session's gallery") for line in said)


def test_labels_are_letters_and_digits_and_each_is_there_once(tmp_path: Path) -> None:
    ids = ["a_1", "a-1", "A1", "猫", "犬", "", "a_1"]
    first = write_stimuli(tmp_path, tmp_path, ids, None, print)
    assert first["a_1"].stim_id == "stim-a1"
    names = [one.stim_id for one in first.values()]
    assert all(name.isascii() and name.replace("-", "").isalnum() for name in names)
    assert len({name.lower() for name in names}) == len(names) == 6
    again = write_stimuli(tmp_path, tmp_path, ["x", *reversed(ids)], None, print)
    assert again.items() >= first.items()
    assert len(tsv(tmp_path / "stimuli" / "stimuli.tsv")) == 7


def test_any_text_has_a_stimulus_of_its_own_and_comes_back_as_the_columns_say(
    tmp_path: Path,
) -> None:
    kept = (
        "a",
        r"a\nb",
        "no\xa0break",
        "👩\u200d🔬",
        "1.5",
        *("x" * n for n in (300, 10_240, 10_239)),
    )
    changed = {"": "n/a", "n/a": "n/a", " a ": "a", "1,5": "1.5", "tab\there": r"tab\there"}
    changed |= {"a\nb": r"a\nb", "a\r\nb": r"a\r\nb", "a\u2028b": r"a\u2028b"}
    as_read = {text: text for text in kept} | changed
    markers = [(100.5 + 0.5 * number, text) for number, text in enumerate(as_read)]
    session = finished(tmp_path / "s", WHOLE, markers)
    root = tmp_path / "ds"
    exported(session, root)
    (raw,) = read_runs(root)
    told = [one["extras"] for one in raw.annotations]
    assert [one["stimulus"] for one in told] == [one["marker"] for one in told]
    assert [one["stimulus"] for one in told] == list(as_read.values())
    ids = [one["stim_id"] for one in told]
    assert len({one.lower() for one in ids}) == len(as_read)
    assert all(re.fullmatch("stim-[0-9A-Za-z]{1,60}", one) for one in ids)
    assert ids[0] == "stim-a"
    table = (root / "stimuli" / "stimuli.tsv").read_text(encoding="utf-8")
    assert "\n" + ids[len(kept) - 1] + "\timage\t" + "x" * 10_239 + "\t" in table
    later = finished(
        tmp_path / "o", WHOLE, list(zip(dict(markers), reversed(as_read), strict=True))
    )
    exported(later, root, "--subject", "02")
    (raw,) = read_runs(root, "02")
    assert [one["extras"]["stim_id"] for one in raw.annotations] == ids[::-1]
    assert (root / "stimuli" / "stimuli.tsv").read_text(encoding="utf-8") == table


def test_where_a_later_step_fails_the_data_set_is_as_it_was(tmp_path: Path, monkeypatch) -> None:
    def copied(source: Path, to: Path) -> None:
        if source.suffix == ".xdf":
            raise OSError(errno.ENOSPC, "No space left on device")
        to.write_bytes(source.read_bytes())

    session = finished(tmp_path / "s", WHOLE, MARKERS, gallery=gallery(tmp_path))
    root, table = tmp_path / "ds", tmp_path / "t.parquet"
    for subject in ("01", "02"):
        with monkeypatch.context() as full:
            full.setattr("stream.exports.dataset.shutil.copyfile", copied)
            both = ("--bids", root, "--parquet", table)
            done = call("export", session.folder, *both, *FACTS, "--subject", subject)
        assert done.code == 1
        assert "No space left" in done.one_sentence()
        assert "make room" in done.one_sentence()
        assert f"table: {table} ({len(MARKERS)} markers)" in done.out
        table.unlink()
        if subject == "01":
            assert not root.exists()
            exported(session, root)
            (root / "stimuli" / "stim-cat00_image.png").unlink()
            before = {file: file.is_file() and file.read_bytes() for file in root.rglob("*")}
        assert {file: file.is_file() and file.read_bytes() for file in root.rglob("*")} == before
    exported(session, root, "--subject", "02")
    assert set(root.rglob("*")) > set(before)
    assert not list(root.glob(".*"))


def test_two_exports_into_one_data_set_do_not_meet(tmp_path: Path) -> None:
    session = finished(tmp_path / "s", WHOLE, MARKERS)
    exported(session, tmp_path / "ds")
    with alone_in(tmp_path / "ds", "somebody else"):
        done = call("export", session.folder, "--bids", tmp_path / "ds", *FACTS, "--run", "2")
    assert done.code == 1
    assert "another export writes into" in done.one_sentence()
    exported(session, tmp_path / "ds", "--run", "2")


def test_another_image_of_the_same_id_is_refused(tmp_path: Path) -> None:
    for name, ids in (("a", ("x", "y")), ("b", ("y", "x"))):
        (tmp_path / name).mkdir()
        gallery(tmp_path / name, ids)
        images = tmp_path / name / "gallery"
        finished(tmp_path / name / "s", WHOLE, [(101.0, "x")], gallery=images)
    root = tmp_path / "ds"
    assert call("export", tmp_path / "a" / "s", "--bids", root, *FACTS).code == 0
    done = call("export", tmp_path / "b" / "s", "--bids", root, "--subject", "02", *FACTS[2:])
    assert done.code == 1
    assert "shows another image" in done.one_sentence()


@pytest.mark.parametrize("pieces", [GAP, PAUSE])
def test_epochs_and_parquet_hold_the_trials_of_the_session(tmp_path: Path, pieces) -> None:
    session = finished(tmp_path / "s", pieces, MARKERS)
    epochs, parquet = tmp_path / "t-epo.fif", tmp_path / "t.parquet"
    done = call("export", session.folder, "--epochs", epochs, "--parquet", parquet)
    assert done.code == 0, done.err
    assert f"({len(session.trials)} trials)" in done.out
    found = mne.read_epochs(epochs, verbose="ERROR")
    trials = found.metadata["trial"].tolist()
    assert set(trials) == set(session.trials)
    data = found.get_data()
    data[:, :4] *= 1e6
    for trial, epoch in zip(trials, data, strict=True):
        np.testing.assert_allclose(epoch.T, session.trials[trial], rtol=3e-7)
    table = pandas.read_csv(session.folder / "trials.csv")
    same = pandas.read_parquet(parquet)
    assert list(same.columns) == list(table.columns)
    assert same["trial"].tolist() == table["trial"].tolist() == [*range(1, len(MARKERS) + 1)]
    assert same["stimulus"].tolist() == [text for _, text in MARKERS]
    assert same["fate"].tolist() == table["fate"].tolist()
    np.testing.assert_array_equal(same["stamp_window_end_s"], table["stamp_window_end_s"])
    of_trial = found.metadata.set_index("trial")
    for trial in trials:
        assert of_trial.loc[trial, "fate"] == "cut"
        assert of_trial.loc[trial, "stimulus"] == MARKERS[trial - 1][1]
    assert found.get_montage() is not None


def test_codes_of_a_trigger_channel_are_events_and_the_channel_keeps_them(tmp_path: Path) -> None:
    markers = [(101.0, "7"), (102.0, "12"), (104.5, "7")]
    trigger, source = TriggerSettings(channel="ACC1"), LiveSource(eeg="EEG")
    session = finished(tmp_path / "s", GAP, [], markers, trigger=trigger, source=source)
    assert len(session.trials) == 3
    exported(session, tmp_path / "ds", "--epochs", tmp_path / "t-epo.fif")
    (raw,) = read_runs(tmp_path / "ds")
    assert raw.get_channel_types()[-1] == "stim"
    found = [(row[0] / RATE_HZ, str(row[2])) for row in mne.find_events(raw, verbose="ERROR")]
    assert found == [(at_s - 100.0, code) for at_s, code in markers]
    told = [one for one in raw.annotations if one["description"] == "image"]
    assert [(one["onset"], str(one["extras"]["stimulus"])) for one in told] == found
    epochs = mne.read_epochs(tmp_path / "t-epo.fif", verbose="ERROR")
    assert epochs.metadata["trial"].tolist() == [1, 2, 3]


def test_a_recorder_that_was_started_again_has_left_two_runs(tmp_path: Path) -> None:
    markers = [(100.5, "go"), (101.0, "a"), (104.0, "b"), (108.0, "c")]
    session = finished(tmp_path / "s", WHOLE, markers, marker_rule=MarkerRule(start="^go$"))
    whole = session.folder / "recording.xdf"
    whole.unlink()
    record(whole, [Piece(100.0, 1000)], markers[:2])
    second = record(session.folder / "recording-2.xdf", [Piece(105.0, 1250)], [(108.0, "c")])
    record(session.folder / "recording-3.xdf", [Piece(110.0, 2)], ())  # of which nobody knows when
    said = exported(session, tmp_path / "ds", "--epochs", tmp_path / "t-epo.fif")
    assert "1 of 3 trials are not in the recording, and left out" in said
    first, other = read_runs(tmp_path / "ds")
    assert (first.n_times, other.n_times) == (1000, 1250)
    np.testing.assert_allclose(other.get_data([0])[0] * 1e6, second[:, 0], rtol=3e-7)
    told = [(one["description"], one["onset"]) for raw in (first, other) for one in raw.annotations]
    # Nothing was recorded around the second one.
    assert told == [("marker", 0.5), ("image", 1.0), ("image", 3.0)]
    sources = sorted(file.name for file in tmp_path.glob("ds/sourcedata/**/*.xdf"))
    assert sources == [f"sub-01_task-rsvp_run-0{n}_eeg.xdf" for n in (1, 2)]


def test_a_first_export_that_was_refused_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    session = finished(tmp_path / "s", WHOLE, MARKERS)
    wrong = call("export", session.folder, "--bids", tmp_path / "ds", *FACTS, "--montage", "cap")
    assert wrong.code == 1
    facts = tmp_path / "facts.toml"
    facts.write_text('subject = "03"\ntask = "rsvp"\nline_hz = 60\nreference = "Cz"\n')
    done = call("export", session.folder, "--bids", tmp_path / "ds", "--config", facts)
    assert done.code == 0, done.err
    assert (tmp_path / "ds" / "sub-03" / "eeg" / "sub-03_task-rsvp_eeg.vhdr").is_file()


@pytest.mark.parametrize(
    ("module", "option"),
    [("mne_bids", "--bids"), ("pybv", "--bids"), ("pyarrow", "--parquet")],
)
def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch, module, option) -> None:
    session = finished(tmp_path / "s", WHOLE, MARKERS)
    monkeypatch.setitem(sys.modules, module, None)
    done = call("export", session.folder, option, tmp_path / "out", *FACTS)
    assert done.code == 1
    assert module in done.one_sentence()
    assert '".[export]"' in done.one_sentence()
    assert not (tmp_path / "out").exists()


def test_a_trial_that_was_not_used_is_none_of_the_epochs(tmp_path: Path) -> None:
    """Nothing in the recording tells that the session was paused."""
    session = finished(tmp_path / "s", WHOLE, [(101.0, "a"), (102.0, "b"), (103.0, "c")])
    ledger = session.folder / "ledger.jsonl"
    paused = '{"event":"dropped","trial":2,"reason":"paused","detail":"the session was paused"}'
    lines = ledger.read_text().splitlines()
    lines = [paused if '"cut","trial":2,' in line else line for line in lines]
    ledger.write_text("\n".join(lines) + "\n")
    assert call("export", session.folder, "--epochs", tmp_path / "t-epo.fif").code == 0
    epochs = mne.read_epochs(tmp_path / "t-epo.fif", verbose="ERROR")
    assert epochs.metadata["trial"].tolist() == [1, 3]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "say what to make: --bids DIR"),
        (("--bids", "ds"), "give --subject"),
        (
            ("--bids", "ds", "--subject", "1", "--task", "t"),
            "give --line-freq (Frequency",
        ),
        (("--bids", "ds", *FACTS, "--task", "my_task"), "letters and digits"),
        (("--bids", "ds", *FACTS, "--task", "t" * 61), "at most 60 letters"),
        (("--bids", "ds", *FACTS, "--line-freq", "55"), "the mains have 50 or 60 Hz, and not 55"),
        (("--bids", "ds", *FACTS, "--montage", "cap"), "no montage 'cap'"),
        (("--epochs", "t.fif"), "must end in -epo.fif"),
        (("--epochs", "nowhere/t-epo.fif"), "make the folder"),
        (("--bids", "s", *FACTS), "holds other files"),
        (("--bids", "s/ledger.jsonl", *FACTS), "is no folder"),
        (("--bids", "ds", *FACTS, "--hat", "x"), "No such option"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path: Path, options, told: str) -> None:
    finished(tmp_path / "s", WHOLE, MARKERS[:3])
    paths = {"ds", "s", "t.fif", "nowhere/t-epo.fif", "s/ledger.jsonl"}
    given = [tmp_path / one if one in paths else one for one in options]
    done = call("export", tmp_path / "s", *given)
    assert done.code in (1, 2)
    assert told in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "ds" / "sub-01").exists()


def test_a_session_that_cannot_be_exported_says_why(tmp_path: Path) -> None:
    def refused(folder: Path, *options: object) -> str:
        done = call("export", folder, "--parquet", tmp_path / "t.parquet", *options)
        assert done.code == 1
        return done.one_sentence()

    assert "no config.json" in refused(tmp_path)
    session = finished(tmp_path / "s", WHOLE, [(50.0, "x")])
    with held(session.folder):
        assert "runs still" in refused(session.folder)
    assert "holds none of the 0 trials" in refused(
        session.folder, "--epochs", tmp_path / "t-epo.fif"
    )
    (tmp_path / "t.parquet").touch()
    assert "is there already" in refused(session.folder)
    (tmp_path / "t.parquet").unlink()
    (session.folder / "recording.xdf").unlink()
    assert "no recording.xdf" in refused(session.folder, "--bids", tmp_path / "ds", *FACTS)
    (session.folder / "summary.json").unlink()
    assert "finish" in refused(session.folder)


def test_on_a_terminal_what_is_missing_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    from stream.commands import export

    asked = []
    answers = {"--subject": "07", "--task": "rsvp", "--line-freq": "60"}

    def answer(text: str) -> str:
        asked.append(text)
        return answers[text.split()[-1].strip("()")]

    monkeypatch.setattr(export, "is_terminal", lambda: True)
    monkeypatch.setattr(export.typer, "prompt", answer)
    session = finished(tmp_path / "s", WHOLE, MARKERS)
    done = call("export", session.folder, "--bids", tmp_path / "ds", "--task", "rsvp")
    assert done.code == 0, done.err
    assert [text.split()[-1] for text in asked] == ["(--subject)", "(--line-freq)"]
    assert (tmp_path / "ds" / "sub-07" / "eeg" / "sub-07_task-rsvp_eeg.vhdr").is_file()


def test_a_stream_that_tells_that_it_is_simulated_is_called_so(tmp_path: Path, monkeypatch) -> None:
    made_up = header()
    made_up.desc().append_child_value("simulated", "true")
    monkeypatch.setattr("tests.finished.header", lambda: made_up)
    session = finished(tmp_path / "s", WHOLE, MARKERS)
    said = exported(session, tmp_path / "ds", "--parquet", tmp_path / "t.parquet")
    assert "simulated" in said[0]
    assert [row["simulated"] for row in tsv(tmp_path / "ds" / "participants.tsv")] == ["true"]


def test_a_subject_that_the_session_names_is_taken(tmp_path: Path) -> None:
    for name, code in (("7", 0), ("P_7", 2)):  # the latter from before there were rules
        session = finished(tmp_path / name, WHOLE, MARKERS, subject="7")
        config = session.folder / "config.json"
        config.write_text(config.read_text().replace('"subject": "7"', f'"subject": "{name}"'))
        done = call("export", session.folder, "--bids", tmp_path / "ds", *FACTS[2:])
        assert done.code == code
    assert [file.name for file in tmp_path.glob("ds/sub-*")] == ["sub-7"]
    assert "'P_7' must be letters and digits" in done.one_sentence()
    assert call("export", session.folder, "--bids", tmp_path / "ds", *FACTS).code == 0
    assert (tmp_path / "ds" / "sub-01").is_dir()


@pytest.mark.slow
def test_the_validator_finds_no_error(tmp_path: Path) -> None:
    images = gallery(tmp_path)
    for number, pieces in enumerate((WHOLE, GAP, PAUSE), 1):
        more = [*MARKERS, (302.0, "Response/R  1")]
        session = finished(tmp_path / str(number), pieces, more, gallery=images)
        subject = ("--subject", f"{number:02}", "--session", "1", *FACTS[2:])
        options = ("--montage", "colin27_1020", "--license", "CC0", "--authors", "A,B")
        done = call("export", session.folder, "--bids", tmp_path / "ds", *subject, *options)
        assert done.code == 0, done.err
    errors, warned = validated(tmp_path / "ds")
    assert errors == []
    # What the documentation says of them.
    known = {"JSON_KEY_RECOMMENDED", "SIDECAR_KEY_RECOMMENDED", "README_FILE_MISSING"}
    assert warned <= known | {"TOO_FEW_AUTHORS", "NO_AUTHORS"}


@pytest.mark.slow
def test_what_the_documentation_reads_back_with_does(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("braindecode", reason=WITHOUT_BRAINDECODE)
    session = finished(tmp_path / "s", WHOLE, MARKERS[1:13])
    exported(session, tmp_path / "study")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    found: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.S)), found)
    assert set(found["trials"]) == set(found["table"]["trial"]) == set(session.trials)
    assert found["table"]["stimulus"].tolist() == [text for _, text in MARKERS[1:13]]


@pytest.mark.slow
def test_braindecode_makes_windows_of_the_same_trials(tmp_path: Path) -> None:
    datasets = pytest.importorskip("braindecode.datasets", reason=WITHOUT_BRAINDECODE)
    windowers = pytest.importorskip("braindecode.preprocessing", reason=WITHOUT_BRAINDECODE)
    markers = [one for one in MARKERS if 100 < one[0] < 110.2]
    session = finished(tmp_path / "s", AGAIN, markers)
    exported(session, tmp_path / "ds")
    (raw,) = read_runs(tmp_path / "ds")
    data = datasets.BaseConcatDataset([datasets.RawDataset(raw, {"subject": "01"})])
    windows = windowers.create_windows_from_events(
        data,
        trial_start_offset_samples=-25,
        trial_stop_offset_samples=76,
        mapping={"image": 0},
        use_mne_epochs=True,  # which pass over what is marked bad
        drop_bad_windows=True,
        preload=True,
    )
    table = windows.get_metadata()
    assert set(table["trial"].astype(int)) == set(session.trials)
    texts = {n: text for n, (_, text) in enumerate(markers, 1)}
    for (samples, _, _), row in zip(windows, table.to_dict("records"), strict=True):
        trial = int(row["trial"])
        assert row["stimulus"] == texts[trial]
        expected = session.trials[trial].T * np.array([[1e-6]] * 4 + [[1.0]])
        np.testing.assert_allclose(samples, expected, rtol=1e-6)


def test_the_form_of_a_session_is_taken_what_was_put_right_later_too(tmp_path: Path) -> None:
    about = AboutSettings(task="rsvp", line_hz=60, cap="actiCAP snap", run=1)
    session = finished(tmp_path / "s", WHOLE, MARKERS, subject="7", about=about)
    said = {"event": "control", "verb": "set", "by": "dashboard", "text": "", "stamp_s": 0.0}
    with (session.folder / "ledger.jsonl").open("a") as file:
        for argument, outcome in (("about.run 3", "done"), ("about.task a b", "refused")):
            record = {**said, "argument": argument, "outcome": outcome, "facts": {}}
            file.write(json.dumps(record) + "\n")
    done = call("export", session.folder, "--bids", tmp_path / "ds", "--line-freq", "50")
    assert done.code == 0, done.err
    (sidecar,) = (tmp_path / "ds").glob("sub-7/**/*_eeg.json")
    assert sidecar.name == "sub-7_task-rsvp_run-03_eeg.json"
    told = json.loads(sidecar.read_text())
    assert (told["PowerLineFrequency"], told["CapManufacturersModelName"]) == (50, "actiCAP snap")
