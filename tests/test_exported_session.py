"""A whole session, decoded and recorded, is exported as other programs read it."""

import mne
import mne_bids
import numpy as np
import pandas
import pytest

from stream.sources.read import read_recording
from tests.sessions import run, trials_of

pytestmark = pytest.mark.slow


def test_the_demo_is_read_back_with_its_trials_answers_and_images(tmp_path, demo_model) -> None:
    folder, saved = tmp_path / "session", tmp_path / "saved-epo.fif"
    options = ("--no-paint", "--headless", "--out", folder, "--set", f"save_trials={saved}")
    done = run("demo", "--trials", "6", "--repeats", "2", "--tmax", "0.5", *options)
    assert done.code == 0, done.err
    root, epochs, parquet = tmp_path / "ds", tmp_path / "t-epo.fif", tmp_path / "t.parquet"
    facts = ("--subject", "sim", "--task", "rsvp", "--line-freq", "50")
    done = run("export", folder, "--bids", root, *facts, "--epochs", epochs, "--parquet", parquet)
    assert done.code == 0, done.err
    assert "simulated" in done.out

    ours, live = (mne.read_epochs(file, verbose="ERROR") for file in (epochs, saved))
    np.testing.assert_array_equal(ours.get_data(), live.get_data())
    shared = list(live.metadata.columns)
    pandas.testing.assert_frame_equal(ours.metadata[shared], live.metadata)

    path = mne_bids.BIDSPath(subject="sim", task="rsvp", root=root, datatype="eeg")
    raw = mne_bids.read_raw_bids(path.update(suffix="eeg", extension=".vhdr"), verbose="ERROR")
    recording = read_recording(folder / "recording.xdf")
    data = raw.get_data().T * 1e6
    np.testing.assert_allclose(data, recording.samples[: len(data)], rtol=3e-7)
    decoded = {record["trial"]: record for record in trials_of(folder, "decoded")}
    markers = {record["trial"]: record for record in trials_of(folder, "marker")}
    table = pandas.read_parquet(parquet).set_index("trial")
    assert len(raw.annotations) == len(decoded) == len(markers) == len(table) == 6
    for one in raw.annotations:
        trial, extras = one["extras"]["trial"], one["extras"]
        assert extras["stimulus"] == extras["marker"] == markers[trial]["stimulus"]
        assert (root / "stimuli" / extras["stim_file"]).is_file()
        row, answer = table.loc[trial], decoded[trial]
        assert [row[f"answer_{k}"] for k in range(1, 6)] == answer["ids"]
        assert row["rank"] == answer["rank"]
        assert row["n_provisional"] == 1
        assert row["latency_ms"] > 0
