"""`adapt`: what minutes under another cap tell, and a session that has it (simulated)."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import mne
import numpy as np
import pytest

from decoder.bundle import open_bundle
from demo.head import CHANNELS
from demo.model import DemoModel
from demo.recordings import responses, simulate_recording, with_gains
from demo.stimuli import gallery_stimuli
from demo.subject import SimulatedSubject, SubjectSettings
from hvf_core.artifact import file_sha256
from hvf_core.numbers import wilson
from hvf_core.problem import Problem
from offline_train.brain.person import adapt
from offline_train.brain.person.adapt import Today
from stream.acquire.adapted import open_adapted
from stream.pipeline.wire.config import read_config
from tests.calling import call
from tests.sessions import (
    PATIENCE_S,
    amplifier,
    check_accounted,
    finish,
    interrupt,
    start,
    trials_of,
)

pytestmark = pytest.mark.slow
LATE = 6
"""Samples of 4 ms from a marker to the light."""
N = 100


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of N images under a cap of other gains, with a photodiode."""
    settings = SubjectSettings(seed=1)
    shown = gallery_stimuli()[:N]
    subject = SimulatedSubject(settings, recording_seed=77)
    made = simulate_recording(subject, shown, responses(settings, shown), 0.7, "today")
    gains = np.exp(0.5 * np.random.default_rng(0).normal(size=len(CHANNELS)))
    light = np.zeros((1, len(made.samples)))
    for marker in made.markers:
        light[0, round(marker.stamp_s * 250) + np.arange(3)] = 5
    samples = np.vstack([with_gains(made, gains).samples.T * 1e-6, light])
    kinds = ["eeg"] * len(CHANNELS) + ["misc"]
    info = mne.create_info([*CHANNELS, "LIGHT"], 250.0, kinds)
    raw = mne.io.RawArray(samples, info, verbose="ERROR")
    early_s = [marker.stamp_s - LATE / 250 for marker in made.markers]
    raw.set_annotations(mne.Annotations(early_s, np.zeros(N), [m.text for m in made.markers]))
    path = tmp_path_factory.mktemp("today") / "today_raw.fif"
    raw.save(path, verbose="ERROR")
    return path


def test_a_session_begins_with_what_was_measured_before_it(
    today: Path, demo_model: DemoModel, tmp_path: Path
) -> None:
    folder = tmp_path / "adapted"
    done = call(
        *("adapt", today, "--bundle", demo_model.bundle, "--trigger", "LIGHT", "--out", folder)
    )
    assert done.code == 0, done.err
    assert f"the light came {4 * LATE}.0 ms after its marker (mean of {N}" in done.out
    assert f"live --eeg EEG --markers MARKERS --bundle {demo_model.bundle}" in done.out
    adapted, state = open_adapted(folder)
    assert adapted.n_labelled == N
    assert 0.8 * N < adapted.n_trials == state["weight"][0] <= N  # blinks are left out
    assert adapted.light_s == pytest.approx(LATE / 250, abs=1e-6)
    found = {one.what.partition(" ")[0]: one for one in adapted.compared}
    assert found["distance"].after[0] < 0.3 < 1 < found["distance"].before[1]
    assert found["log-probability"].difference[1] > 0
    assert found["top-5"].after[0] > found["top-5"].before[0]

    session = tmp_path / "session"
    line = ("replay", today, "--speed", "max", "--bundle", demo_model.bundle, "--headless")
    done = call(*line, "--adapted", folder, "--out", session)
    assert done.code == 0, done.err
    shutil.rmtree(folder)  # the session has kept it
    summary = check_accounted(session)
    checksum = file_sha256(session / "adapted" / "adapted.json")
    config = read_config(session / "config.json")
    assert summary["adapted"] == config.adapted_sha256 == checksum
    assert config.marker_rule.shift_s == adapted.light_s
    (told,) = [one for one in trials_of(session, "note") if checksum in one["text"]]
    assert adapted.sentence() in told["text"]
    assert summary["top5"] > found["top-5"].before[2]
    markers = trials_of(session, "marker")
    late_s = np.array([one["onset_s"] - one["sent_s"] for one in markers])
    np.testing.assert_allclose(late_s, adapted.light_s, atol=1e-9)
    manifest = open_bundle(demo_model.bundle).manifest
    warm = adapted.temperature * manifest.calibration.temperature("mean", manifest.tmax_s, 1)
    for one in trials_of(session, "decoded"):
        apart = np.log(one["probabilities"][0]) - np.log(one["probabilities"][-1])
        cosines = one["scores"][0] - one["scores"][-1]
        assert apart == pytest.approx(np.exp(manifest.logit_scale) * cosines / warm, rel=1e-3)
    again = call("evaluate", "--session", session, module="offline_train")
    assert again.code == 0, again.err

    other = call(
        *line, "--adapted", session / "adapted", "--true-rate", "251", "--out", tmp_path / "o"
    )
    assert "this stream of 64 comes at 251 Hz: run `adapt` again" in other.one_sentence()

    kept = session / "adapted"
    old = json.loads((kept / "adapted.json").read_text())
    for key, value, told in (
        ("made", datetime(2020, 1, 1, tzinfo=UTC).isoformat(), r"hours old, at most 12"),
        ("made", datetime(2999, 1, 1, tzinfo=UTC).isoformat(), "which is to come"),
        ("bundle", "0" * 64, "was made for another bundle"),
        ("temperature", -2.0, "is not valid at temperature"),
        ("temperature", 1e300, "is not valid at temperature"),
        ("light_s", 50, "is not valid at light_s"),
        ("n_trials", -5, "is not valid at n_trials"),
    ):
        (kept / "adapted.json").write_text(json.dumps(old | {key: value}))
        done = call(*line, "--adapted", kept, "--out", tmp_path / key)
        assert told in done.one_sentence()
        assert not (tmp_path / key).exists()
    with pytest.raises(Problem, match=r"made with 64 channels at 250 Hz, .* has O9: run `adapt`"):
        adapted.check_cap([*CHANNELS, "O9"], 250.0)


def test_what_cannot_be_adapted_is_a_sentence_and_leaves_nothing(
    today: Path, demo_model: DemoModel, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "adapted")
    bundle = ("--bundle", demo_model.bundle)
    assert "give --bundle" in call("adapt", today, *out).one_sentence()
    assert "one of the two" in call("adapt", *bundle, *out).one_sentence()
    nobody = call("adapt", *bundle, *out, "--eeg", "nobody", "--markers", "no", "--wait", "0.1")
    assert "no LSL stream named 'nobody' within 0.1 s" in nobody.one_sentence()
    short = call("adapt", today, *bundle, *out, "--start", "65")
    assert "trials could be cut, and 10 at least are needed" in short.one_sentence()
    dark = call("adapt", today, *bundle, *out, "--trigger", "Oz", "--shortest-pulse", "99")
    assert "10 are needed to tell when the light comes" in dark.one_sentence()
    assert not (tmp_path / "adapted").exists()


def test_what_is_no_eeg_is_refused_and_what_lies_still_is_told(
    today: Path, demo_model: DemoModel, tmp_path: Path
) -> None:
    def recorded(name: str, factor: float, *channels: str) -> Path:
        raw = mne.io.read_raw_fif(today, verbose="ERROR").crop(0, 12).load_data(verbose="ERROR")
        raw.apply_function(lambda x: factor * x, picks=channels)
        # Of another image each, of which none is then found.
        raw.annotations.description = np.roll(raw.annotations.description, 1)
        raw.save(tmp_path / f"{name}_raw.fif", verbose="ERROR")
        return tmp_path / f"{name}_raw.fif"

    line = ("--bundle", demo_model.bundle, "--out", tmp_path / "adapted")
    for name, factor in (("nothing", 0.0), ("nanovolts", 1e4)):
        done = call("adapt", recorded(name, factor, *CHANNELS), *line)
        assert "times as large as those of training" in done.one_sentence()
    assert not (tmp_path / "adapted").exists()
    done = call("adapt", recorded("one", 0.0, "Oz"), *line)
    assert "Oz never moved: look at the electrodes" in done.out
    edge = 100 * wilson(0.0, 15)[1]  # no draw of none right has one
    assert f"0 % (0 to {edge:.3g}); difference 0 points (-{edge:.3g} to {edge:.3g})" in done.out


def test_answers_that_tell_nothing_apart_are_said_and_fit_no_temperature(
    today: Path, demo_model: DemoModel, tmp_path: Path
) -> None:
    raw = mne.io.read_raw_fif(today, verbose="ERROR")
    raw.annotations.description = np.roll(raw.annotations.description, 1)  # of another image each
    raw.save(tmp_path / "other_raw.fif", verbose="ERROR")
    out = tmp_path / "adapted"
    done = call(*("adapt", tmp_path / "other_raw.fif", "--bundle", demo_model.bundle, "--out", out))
    assert done.code == 0, done.err
    assert "answers tell nothing apart under this cap" in done.out
    assert "--adapted" not in done.out.splitlines()[-1]
    adapted, _ = open_adapted(out)
    assert adapted.temperature is None
    assert [one.what for one in adapted.compared][1:] == ["top-1", "top-5"]


def test_what_makes_answers_worse_is_not_what_comes_next(
    today: Path, demo_model: DemoModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(*what: object) -> Today:
        found = fit_today(*what)
        turned = [
            one.model_copy(update={"difference": (-middle, -high, -low)})
            for one in found.compared
            for middle, low, high in [one.difference]
        ]
        return replace(found, compared=tuple(turned))

    fit_today = adapt.fit_today
    monkeypatch.setattr(adapt, "fit_today", swapped)
    line = ("adapt", today, "--bundle", demo_model.bundle, "--out", tmp_path / "adapted")
    done = call(*line, "--trigger", "LIGHT")
    told, onward = done.out.splitlines()[-2:]
    assert told.startswith("worse with it than without, beyond chance: top-")
    assert onward.endswith(f"--bundle {demo_model.bundle} --shift {LATE / 250:.4f}")


def test_ctrl_c_while_it_records_leaves_nothing(demo_model: DemoModel, tmp_path: Path) -> None:
    out = tmp_path / "adapted"
    with amplifier("amp-adapt"):
        streams = ("--eeg", "amp-adapt", "--markers", "amp-adapt-markers", "--wait", PATIENCE_S)
        process = start("adapt", *streams, "--bundle", demo_model.bundle, "--out", out)
        while not process.stdout.readline().startswith("listening for 180 s: "):
            assert process.poll() is None
        interrupt(process)
        done = finish(process)
    assert (done.code, done.err) == (130, "interrupted\n")
    assert not out.exists()
