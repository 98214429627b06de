"""The command lines of `offline_train`: options, TOML and what is light, as a person meets them."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from decoder.bundle import load_bundle
from hvf_core.problem import Problem, WrongUsage
from hvf_core.settings import Settings, settings_of
from offline_train.brain.settings import PRESETS, TrainSettings
from offline_train.commands.app import app
from offline_train.data.settings import PrepareSettings, PrepareTestSettings
from offline_train.data.trial_set import load_trial_set, write_trial_set
from offline_train.evaluate.settings import EvaluateSettings
from offline_train.experiments.settings import Experiment, Published, RunSettings
from offline_train.paintings.settings import PaintingsSettings
from offline_train.prior.settings import PRESETS as PRIOR_PRESETS
from offline_train.prior.settings import PriorSettings
from tests.offline_train.conftest import FORMAT

TREES = (
    *(TrainSettings, PriorSettings, PrepareSettings, PrepareTestSettings),
    *(EvaluateSettings, PaintingsSettings, Experiment, Published, RunSettings),
)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("tree", TREES)
def test_every_setting_of_training_says_what_it_is(tree: type[Settings]) -> None:
    silent = [path for path, one in settings_of(tree).items() if not (one.help or one.choices)]
    assert silent == []


def test_presets_hold_what_their_settings_allow() -> None:
    for preset in (*PRESETS.values(), *PRIOR_PRESETS.values()):
        assert type(preset).model_validate(preset.model_dump()) == preset


def test_prepare_takes_what_is_not_asked_for_from_the_first_recording(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["/usr/bin/python3.11", "-m", "offline_train", "prepare", "my file.fif"]
    monkeypatch.setattr("sys.orig_argv", typed)
    asked = ("prepare", recording, "--out", tmp_path / "trials", "--whitening", "none")
    done = command(*asked, "--rate", 0, "--tmax", 0.5)
    assert done.exit_code == 0, done.output
    made = load_trial_set(tmp_path / "trials").format
    assert made.channels == ("Fz", "Cz", "Oz")
    assert (made.rate_hz, made.tmin_s, made.tmax_s) == (200, 0, 0.5)
    assert made.preprocessing["baseline_s"] == [-0.2, 0]
    assert made.provenance["files"] == ["s1_raw.fif"]
    assert made.provenance["command"] == "python -m offline_train prepare 'my file.fif'"


def test_prepare_is_told_by_options_a_file_and_assignments(recording: Path, tmp_path: Path) -> None:
    file = tmp_path / "prepare.toml"
    file.write_text(
        '[preprocessing]\nchannels = ["Cz", "Oz"]\nwhitening = "none"\ntmax_s = 0.3\n'
        '[markers]\nstimulus = "a"\n'
    )
    out = ("--config", file, "--out", tmp_path / "trials")
    filtered = ("--highpass", 0.5, "--lowpass", 40, "--baseline-start", -0.1)
    done = command(
        "prepare", recording, *out, *filtered, "--rate", 100, "--set", "reject.flat_uv=1"
    )
    assert done.exit_code == 0, done.output
    made = load_trial_set(tmp_path / "trials")
    assert made.items == ("a",)
    assert made.format.channels == ("Cz", "Oz")
    assert (made.format.rate_hz, made.format.tmax_s) == (100, 0.3)
    assert made.format.preprocessing["baseline_s"] == [-0.1, 0]
    filters = [(one["kind"], one["freq_hz"]) for one in made.format.preprocessing["filters"]]
    assert filters == [("highpass", 0.5), ("lowpass", 40)]


@pytest.mark.slow
def test_prepare_picks_channels_by_the_names_that_rename_gives_them(
    recording: Path, tmp_path: Path
) -> None:
    renamed = ("prepare", recording, "--rename", "Fz=Pz", "--reference", "Pz", "--rate", 0)
    for folder, options, channels in (
        ("all", (), ("Pz", "Cz", "Oz")),
        ("picked", ("--channels", "Oz,Pz"), ("Oz", "Pz")),
    ):
        done = command(*renamed, *options, "--out", tmp_path / folder)
        assert done.exit_code == 0, done.output
        assert load_trial_set(tmp_path / folder).format.channels == channels
    done = command("prepare", recording, "--rename", "Fz=Cz", "--out", tmp_path / "twice")
    assert "'Fz' cannot be called 'Cz'" in str(done.exception)


def test_prepare_takes_no_channel_by_default_that_is_no_eeg(
    recording: Path, tmp_path: Path
) -> None:
    import mne

    raw = mne.io.read_raw(recording, preload=True, verbose="ERROR")
    raw.set_channel_types({"Fz": "ecg"}, verbose="ERROR").save(tmp_path / "s2_raw.fif")
    asked = ("--out", tmp_path / "trials", "--whitening", "none", "--rate", 0)
    done = command("prepare", tmp_path / "s2_raw.fif", *asked)
    assert done.exit_code == 0, done.output
    assert load_trial_set(tmp_path / "trials").format.channels == ("Cz", "Oz")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reference", "Pz"], "the reference 'Pz' is none of the channels"),
        (["--channels", "Fz,Cz", "--output-channels", "Oz"], "['Oz'] are not among the channels"),
        (["--tmin", "0.5", "--tmax", "0.2"], "tmin_s 0.5 must be below tmax_s 0.2"),
        (["--notch", "-50"], "--notch"),
        (["--rate", "-1"], "--rate -1 must be greater than 0"),
        (["--whitening", "zca"], "--whitening 'zca' must be 'none', 'mvnn' or 'given'"),
        (["--set", "preprocessing.whitning=none"], "did you mean 'preprocessing.whitening'?"),
    ],
)
def test_what_prepare_cannot_do_is_said_by_option_and_value(
    recording: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    done = command("prepare", recording, "--out", tmp_path / "trials", *options)
    assert isinstance(done.exception, WrongUsage), done.output
    assert said in str(done.exception)
    assert not (tmp_path / "trials").exists()


def test_a_training_s_wrong_settings_are_told_before_anything_is_read(tmp_path: Path) -> None:
    asked = ("mbp", tmp_path / "none", "--out", tmp_path / "bundle", "--labels")
    for wrong, said in (
        (("--epochs", "0"), "--epochs 0 must be greater than or equal to 1"),
        (("--encoder", "net"), "--encoder 'net' must be"),
        (("--set", "prefix_share=2"), "--set prefix_share 2 must be less than or equal to 1"),
    ):
        done = command(*asked, *wrong)
        assert isinstance(done.exception, WrongUsage)
        assert said in str(done.exception)
    (tmp_path / "mbp.toml").write_text("epoch = 3\n")
    done = command(*asked, "--config", tmp_path / "mbp.toml")
    assert isinstance(done.exception, Problem)
    assert "did you mean 'epochs'?" in str(done.exception)


@pytest.mark.slow
def test_a_preset_yields_to_a_file_and_a_file_to_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with write_trial_set(tmp_path / "trials", FORMAT, {}) as writer:
        for session in ("s1", "s2"):
            trials = rng.standard_normal((2, 6, 20)).astype(np.float32)
            writer.append(trials, stimulus=["left", "right"], session=[session] * 2)
    file = tmp_path / "mbp.toml"
    file.write_text("dim = 8\nhidden = 8\nepochs = 9\nprefix_share = 0.25\nrows_per_item = 2\n")
    asked = ("mbp", tmp_path / "trials", "--out", tmp_path / "bundle", "--labels", "--config", file)
    asked += ("--cache", tmp_path / "features")
    done = command(*asked, "--preset", "released", "--epochs", 1, "--every-trial")
    assert done.exit_code == 0, done.output
    learnt = load_bundle(tmp_path / "bundle").manifest.training["settings"]
    assert (learnt["warmup_steps"], learnt["target_dropout"]) == (0, 0.1), "of the preset"
    assert (learnt["dim"], learnt["prefix_share"]) == (8, 0.25), "of the file"
    assert (learnt["epochs"], learnt["rows_per_item"], learnt["repeats_per_row"]) == (1, None, 1)


def test_prepare_leaves_out_and_tells_what_is_dead_or_of_no_brain(tmp_path: Path) -> None:
    import mne

    names = ["Fz", "Cz", "Pz", "Oz", "VEOG", "GSR"]
    samples = np.random.default_rng(0).standard_normal((6, 4000)) * 1e-5
    samples[2] = 3e-6
    info = mne.create_info(names, 200, ["eeg"] * 5 + ["misc"])
    raw = mne.io.RawArray(samples, info, verbose="ERROR")
    raw.set_annotations(mne.Annotations(np.arange(1.0, 19.0), 0, ["a", "b"] * 9))
    raw.save(tmp_path / "s1_raw.fif", verbose="ERROR")
    asked = ("prepare", tmp_path / "s1_raw.fif", "--rate", 0, "--out", tmp_path / "trials")
    done = command(*asked)
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "left out: GSR (no EEG or MEG), Pz (0 beside " in told
    assert "VEOG (no EEG or MEG)" in told
    assert load_trial_set(tmp_path / "trials").format.channels == ("Fz", "Cz", "Oz")
    done = command(*asked[:-1], tmp_path / "more", "--channels", "Fz,Pz,Oz")
    assert "Pz (0 beside " in str(done.exception)
    assert "leave them out of the channels" in str(done.exception)
    done = command(*asked[:-1], tmp_path / "more", "--reference", "Pz")
    assert done.exit_code == 0, done.output
    assert load_trial_set(tmp_path / "more").format.channels == ("Fz", "Cz", "Pz", "Oz")


@pytest.mark.slow
def test_mbp_ends_with_how_often_held_out_stimuli_are_found_and_writes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    names = [f"s{n:02d}" for n in range(24)]
    with write_trial_set(tmp_path / "trials", FORMAT, {}) as writer:
        for session in ("s1", "s2"):
            trials = rng.standard_normal((24, 6, 20)).astype(np.float32)
            writer.append(trials, names, session=session)
    asked = ("mbp", tmp_path / "trials", "--labels", "--cache", tmp_path / "features")
    asked += ("--epochs", 1, "--hold-out", 8, "--out")
    done = command(*asked, tmp_path / "bundle")
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "; of 8 held-out stimuli the right one comes first in " in told
    assert "from 1 repeat and " in told
    assert "from 2 repeats, by chance in 12.5 %" in told
    assert "calibrated on 8 stimuli (too few: probabilities that rest on them are a guess)" in told
    before = load_bundle(tmp_path / "bundle").manifest
    assert before.calibration is not None
    done = command(*asked, tmp_path / "bundle", "--seed", 1)
    assert "bundle' is a bundle already: name another --out, or remove it" in str(done.exception)
    assert load_bundle(tmp_path / "bundle").manifest == before

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("offline_train.brain.making.fit_calibration", interrupt)
    assert command(*asked, tmp_path / "other", "--seed", 1).exit_code != 0
    assert not (tmp_path / "other").exists()  # not an uncalibrated one
    assert list(tmp_path.glob(".*")) == []
    monkeypatch.undo()
    done = command(*asked, tmp_path / "other", "--hold-out", 0)
    assert "not calibrated, as no stimuli were held out" in done.output
