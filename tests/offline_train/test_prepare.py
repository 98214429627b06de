"""The trial set of a recording is a plain cut of its samples, and every marker is accounted for."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hvf_core.problem import Problem
from offline_train.data import prepare as prepare_module
from offline_train.data.prepare import prepare_test
from offline_train.data.settings import PrepareSettings, PrepareTestSettings
from offline_train.data.study import CutTrials, Facts, ShownImage, Study, StudyPart
from offline_train.data.trial_set import ADAPTED, load_trial_set
from stream.acquire.markers import MarkerRule
from stream.acquire.preprocess import Preprocessing, PreprocessSettings
from stream.acquire.settings import AdaptationSettings
from stream.acquire.trial_stream import TrialPlan
from stream.acquire.trials import Drop
from stream.sources.cut_recording import cut_trials
from stream.sources.recording import RecordedMarker, Recording

RATE_HZ = 250.0
CAP = ("Fz", "Cz", "Pz", "Oz")
CHANNELS = ("Oz", "Cz", "Pz")
N_SAMPLES = 3000
N_BASELINE = 51  # -0.2 .. 0 s, both included
N_TIMES = 101  # 0 .. 0.4 s


def make_recording(onsets, seed=0, lost=(), cap=CAP, rate_hz=RATE_HZ):
    """`onsets` are (sample number, text); markers lie up to half a sample beside their samples."""
    rng = np.random.default_rng(seed)
    samples = (rng.normal(0, 20, (N_SAMPLES, len(cap))) @ rng.normal(size=(len(cap), len(cap)))) + 9
    kept = np.setdiff1d(np.arange(N_SAMPLES), lost)
    beside = rng.uniform(-0.45, 0.45, len(onsets))
    return Recording(
        *(Path("made.xdf"), "made", cap, ("microvolts",) * len(cap), rate_hz),
        stamps_s=100 + kept / rate_hz,
        samples=samples.astype(np.float32)[kept],
        markers=tuple(
            RecordedMarker(100 + (at + off) / rate_hz, text)
            for (at, text), off in zip(onsets, beside, strict=True)
        ),
    )


def study(**sessions):
    parts = [StudyPart(recording, Facts(session=name)) for name, recording in sessions.items()]
    return Study.of_parts("made", parts)


def make_settings(**changes):
    defaults = {
        "channels": CHANNELS,
        "output_channels": ("Pz", "Oz"),
        "rate_hz": RATE_HZ,
        "tmin_s": 0.0,
        "tmax_s": 0.4,
        "whitening": "none",
    }
    return PreprocessSettings(**(defaults | changes))


def prepare(study, preprocessing, directory, *, settings=None, **more):
    """With these settings of the preprocessing, and the usual others but for `settings`."""
    whole = PrepareSettings(preprocessing=preprocessing, **(settings or {}))
    return prepare_module.prepare(study, whole, directory, **more)


def plain_cut(recording, onset, reference="none"):
    """All of CHANNELS, by sample number, in float64."""
    columns = [recording.channels.index(name) for name in CHANNELS]
    eeg = recording.samples[:, columns].astype(float)
    trial = eeg[onset : onset + N_TIMES] - eeg[onset - N_BASELINE + 1 : onset + 1].mean(axis=0)
    if reference == "average":
        trial = trial - trial.mean(axis=1, keepdims=True)
    return trial.T


ONSETS = [(200, "a"), (220, "b"), (900, "a"), (1500, "c"), (2500, "b")]


@pytest.mark.parametrize("reference", ["none", "average"])
@pytest.mark.parametrize("whitening", ["none", "mvnn"])
@pytest.mark.parametrize("scaling", ["none", "robust"])
def test_a_trial_set_is_the_plain_cut_and_its_preprocessing(
    tmp_path, reference, whitening, scaling
):
    """Two recordings; what is fitted is fitted to the trials of both."""
    sources = {"one": make_recording(ONSETS), "two": make_recording(ONSETS[1:], seed=1)}
    choice = make_settings(reference=reference, whitening=whitening, scaling=scaling)
    trial_set = prepare(study(**sources), choice, tmp_path / "set", provenance={"subject": "made"})
    onsets = {"one": ONSETS, "two": ONSETS[1:]}
    expected = np.array(
        [
            plain_cut(sources[name], onset, reference)
            for name in sources
            for onset, _ in onsets[name]
        ]
    )
    if whitening == "mvnn":
        from sklearn.discriminant_analysis import _cov  # here: it takes a second, of every worker

        covariance = np.mean([_cov(trial.T, shrinkage="auto") for trial in expected], axis=0)
        values, vectors = np.linalg.eigh(covariance)
        expected = (vectors / np.sqrt(values)) @ vectors.T @ expected
    expected = expected[:, [2, 0]]
    if scaling == "robust":
        by_channel = np.moveaxis(expected, 1, 0).reshape(2, -1)
        centre = np.median(by_channel, axis=1, keepdims=True)
        mad = np.median(np.abs(by_channel - centre), axis=1)
        expected /= 1.4826 * mad[:, None]
    np.testing.assert_allclose(trial_set.data, expected, rtol=1e-4, atol=2e-3)
    assert trial_set.data.dtype == np.float32
    assert trial_set.stimuli == ("a", "b", "a", "c", "b", "b", "a", "c", "b")
    assert trial_set.column("session").values == ("one",) * 5 + ("two",) * 4
    assert trial_set.format.channels == ("Pz", "Oz")
    assert trial_set.format.preprocessing == choice.model_dump(mode="json")
    assert trial_set.format.provenance == {"study": "made", "subject": "made"}


def test_live_preprocessing_with_what_was_fitted_gives_the_trials_of_the_set(tmp_path):
    recording = make_recording(ONSETS)
    choice = make_settings(reference="average", whitening="mvnn", scaling="robust")
    prepare(study(one=recording), choice, tmp_path / "set")
    trial_set = load_trial_set(tmp_path / "set")
    live = Preprocessing(choice, trial_set.preprocessing_arrays)
    cut = list(cut_trials(recording, TrialPlan(live)))
    assert [(one.trial.number, one.trial.event.stimulus) for one in cut] == [
        (number, stimulus) for number, (_, stimulus) in enumerate(ONSETS, 1)
    ]
    np.testing.assert_allclose([one.array for one in cut], trial_set.data, atol=2e-5)


def of_parts(*parts):
    """A study of parts, each (recording, facts)."""
    return Study.of_parts("made", [StudyPart(data, Facts(**facts)) for data, facts in parts])


def test_every_session_can_have_a_fit_of_its_own_which_only_training_trials_decide(tmp_path):
    one, two = make_recording(ONSETS), make_recording(ONSETS, seed=1)
    tested = make_recording(ONSETS[:2], seed=2)
    of_two = {"subject": "a", "session": "2"}
    parts = [
        (one, {"subject": "a", "session": "1", "split": "train"}),
        (two, of_two | {"split": "train", "run": "1"}),
        (tested, of_two | {"split": "test"}),
    ]
    choice = make_settings(whitening="mvnn", scaling="robust", output_channels=CHANNELS)
    shared = {"classes": True}  # training and test show the same here
    whole = prepare(of_parts(*parts), choice, tmp_path / "whole", settings=shared)
    per_session = shared | {"per_session": True}
    own = prepare(of_parts(*parts), choice, tmp_path / "own", settings=per_session)
    alone = {
        "1": prepare(of_parts(parts[0]), choice, tmp_path / "one"),
        "2": prepare(of_parts(parts[1]), choice, tmp_path / "two"),
    }
    both = prepare(of_parts(*parts[:2]), choice, tmp_path / "both")
    assert set(own.session_arrays) == {("a", "1"), ("a", "2")}
    assert whole.session_arrays == {}
    for name, array in both.preprocessing_arrays.items():
        np.testing.assert_array_equal(own.preprocessing_arrays[name], array)
        np.testing.assert_array_equal(whole.preprocessing_arrays[name], array)
        for number, fitted in alone.items():
            here = own.session_arrays["a", number][name]
            np.testing.assert_array_equal(here, fitted.preprocessing_arrays[name])
    trained = own.select(["train"], "split")
    assert trained.column("run").values == (None,) * 5 + ("1",) * 5
    for number, fitted in alone.items():
        found = trained.select([number], "session")
        np.testing.assert_array_equal(found.data[found.rows], fitted.data)
    spatial = Preprocessing(choice, own.session_arrays["a", "2"]).spatial_matrix(CHANNELS)
    tests = own.select(["test"], "split")
    expected = [spatial @ plain_cut(tested, onset) for onset, _ in ONSETS[:2]]
    np.testing.assert_allclose(tests.data[tests.rows], expected, rtol=1e-4, atol=2e-3)


def test_a_session_without_training_trials_cannot_have_a_fit(tmp_path):
    tested = (make_recording(ONSETS), {"session": "2", "split": "test"})
    with pytest.raises(Problem, match="the study has no training trial to fit"):
        prepare(of_parts(tested), make_settings(), tmp_path / "set")
    both = of_parts((make_recording(ONSETS), {"session": "1"}), tested)
    settings = {"per_session": True, "classes": True}
    with pytest.raises(Problem, match="the session '2' has no training trial to fit"):
        prepare(both, make_settings(), tmp_path / "set", settings=settings)


def test_the_images_of_a_study_stand_beside_the_trials(tmp_path):
    images = {"a": ShownImage("animals/a.png", "animals"), "b": ShownImage("b.png")}
    parts = study(one=make_recording(ONSETS)).parts
    made = prepare(Study.of_parts("made", parts, images=images), make_settings(), tmp_path / "set")
    assert made.column("image").values == ("animals/a.png", "b.png", "animals/a.png", None, "b.png")
    assert made.column("category").values == ("animals", None, "animals", None, None)


def test_epochs_that_others_cut_give_the_trials_of_the_recording(tmp_path):
    """The same window, longer before and behind, in another order of channels."""
    recording = make_recording(ONSETS)
    choice = make_settings(reference="average", whitening="mvnn")
    cut = prepare(study(one=recording), choice, tmp_path / "cut")
    samples = recording.samples.T.astype(float)[::-1]
    longer = [
        samples[:, onset - 60 : onset + N_TIMES + 9]
        - samples[:, onset - N_BASELINE + 1 : onset + 1].mean(axis=1, keepdims=True)
        for onset, _ in ONSETS
    ]
    names = [text for _, text in ONSETS]
    start_s = -60 / RATE_HZ
    n_times = 60 + N_TIMES + 9
    read = np.array(longer).__getitem__
    epochs = CutTrials("made", names, read, CAP[::-1], RATE_HZ, start_s, n_times)
    taken = prepare(study(one=epochs), choice, tmp_path / "taken")
    np.testing.assert_allclose(taken.data, cut.data, rtol=1e-4, atol=2e-3)
    assert taken.stimuli == cut.stimuli
    with pytest.raises(Problem, match=r"'made' go from -0.24 to 0.436 s, and .* -0.2 to 0.5 s is"):
        prepare(study(one=epochs), make_settings(tmax_s=0.5), tmp_path / "no")
    filters = [{"kind": "highpass", "freq_hz": 1}]
    with pytest.raises(Problem, match=r"cut before, and filters need what lies around"):
        prepare(study(one=epochs), make_settings(filters=filters), tmp_path / "no")


def test_what_channels_record_goes_into_the_set_and_is_not_mixed(tmp_path):
    eeg = make_recording(ONSETS)
    meg = replace(eeg, units=("femtoteslas",) * 4, kinds=("mag",) * 4)
    found = prepare(study(one=meg), make_settings(), tmp_path / "meg")
    assert (found.format.kind, found.format.unit) == ("meg", "femtoteslas")
    found = prepare(study(one=eeg), make_settings(), tmp_path / "eeg")
    assert (found.format.kind, found.format.unit) == ("", "microvolts")  # it says only the unit
    with pytest.raises(Problem, match=r"^'two' has MEG in femtoteslas, expected .* in microvolts"):
        prepare(study(one=eeg, two=meg), make_settings(), tmp_path / "no")
    with pytest.raises(Problem, match=r"^'one' has MEG in femtoteslas, expected EEG in microvolts"):
        prepare_test(
            study(one=meg),
            Preprocessing(make_settings()),
            tmp_path / "no",
            PrepareTestSettings(),
        )


def test_a_set_says_of_itself_that_it_was_adapted(tmp_path):
    whole = prepare(study(one=make_recording(ONSETS)), make_settings(), tmp_path / "plain")
    fitted = Preprocessing(make_settings(), whole.preprocessing_arrays)
    for how in (None, AdaptationSettings()):
        settings = PrepareTestSettings(adaptation=how)
        recorded = study(one=make_recording(ONSETS, seed=1))
        made = prepare_test(recorded, fitted, tmp_path / f"{how is None}", settings)
        assert made.format.provenance.get(ADAPTED) == (how and how.model_dump(mode="json"))


def test_every_marker_is_a_trial_or_a_drop_with_its_reason(tmp_path):
    """Before the stream, in a gap, across a gap, twice, past the end, and good ones between."""
    onsets = [(10, "early"), *ONSETS, (1010, "in"), (990, "across"), (2950, "end")]
    recording = make_recording(onsets, lost=range(1000, 1020))
    twice = (*recording.markers, recording.markers[1])
    recording = Recording(**(vars(recording) | {"markers": twice}))
    outcomes = list(cut_trials(recording, TrialPlan(Preprocessing(make_settings()))))
    drops = Counter(
        (drop.event.stimulus, drop.reason) for drop in outcomes if isinstance(drop, Drop)
    )
    assert drops == {
        ("early", "no_data"): 1,
        ("in", "gap"): 1,
        ("across", "gap"): 1,
        ("end", "no_data"): 1,
        ("a", "duplicate"): 1,
        ("a", "gap"): 1,  # at 900, up to 1000
    }
    seen = []
    trial_set = prepare(
        study(one=recording, two=make_recording(ONSETS, seed=1)),
        make_settings(),
        tmp_path / "set",
        on_recording=lambda name, so_far: seen.append(
            (name, so_far.n_trials, dict(so_far.dropped))
        ),
    )
    dropped = {"no_data": 2, "gap": 3, "duplicate": 1}
    assert seen == [("one", 4, dropped), ("two", 9, dropped)]
    assert len(trial_set) == 9
    assert 4 + sum(dropped.values()) == len(recording.markers)


def test_trials_that_are_not_wanted_are_passed_over(tmp_path):
    recording = make_recording(
        [(200, "stim/a"), (500, "response"), (900, "stim/b"), (2990, "stim/b")]
    )
    seen = []
    trial_set = prepare(
        study(one=recording),
        make_settings(),
        tmp_path / "set",
        settings={"markers": MarkerRule(stimulus="^stim/(?P<id>a)$")},
        on_recording=lambda name, so_far: seen.append(so_far.dropped),
    )
    assert trial_set.stimuli == ("a",)
    assert not seen[0]
    np.testing.assert_allclose(trial_set.data[0], plain_cut(recording, 200)[[2, 0]], atol=1e-3)


def test_what_a_person_should_know_of_a_part_is_told_with_it(tmp_path):
    """Markers in Unix time, and samples that come at another rate than the file says."""
    recording = make_recording(ONSETS)
    markers = (*recording.markers, replace(recording.markers[-1], stamp_s=1.7e9))
    stamps_s = recording.stamps_s[0] + 1.01 * (recording.stamps_s - recording.stamps_s[0])
    told = {}
    prepare(
        study(
            one=recording,
            two=replace(recording, markers=markers),
            three=replace(recording, stamps_s=stamps_s),
        ),
        make_settings(),
        tmp_path / "set",
        on_recording=lambda name, so_far: told.update({name: so_far.notices}),
    )
    assert told["one"] == ()
    assert len(told["two"]) == len(told["three"]) == 1
    assert "it looks like Unix time" in told["two"][0]
    assert "its samples come at 247.52 Hz" in told["three"][0]
    true_rate = {"true_rate_hz": RATE_HZ / 1.01}
    prepare(
        study(three=replace(recording, stamps_s=stamps_s)),
        make_settings(rate_hz=true_rate["true_rate_hz"]),
        tmp_path / "true",
        settings=true_rate,
        on_recording=lambda name, so_far: told.update({name: so_far.notices}),
    )
    assert told["three"] == ()


def test_recordings_without_a_trial_are_a_problem_and_leave_nothing_behind(tmp_path):
    recording = make_recording([(10, "a"), (2990, "b")])
    with pytest.raises(Problem, match=r"no trial was left .*\(dropped: 2 no_data\); check") as told:
        prepare(study(one=recording), make_settings(), tmp_path / "set")
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_markers_of_which_none_fits_are_a_problem(tmp_path):
    with pytest.raises(Problem, match="no marker fits"):
        prepare(study(one=make_recording([])), make_settings(), tmp_path / "set")


@pytest.mark.parametrize(
    ("recording", "text"),
    [
        (make_recording(ONSETS, cap=("Fz", "Cz", "Pz", "EOG")), "missing Oz"),
        (make_recording(ONSETS, rate_hz=200.0), "runs at 200 Hz"),
    ],
)
def test_a_recording_that_does_not_fit_is_a_problem(tmp_path, recording, text):
    with pytest.raises(Problem, match=text):
        prepare(study(one=recording), make_settings(), tmp_path / "set")


def test_a_trial_with_values_that_are_not_finite_is_rejected(tmp_path):
    recording = make_recording(ONSETS)
    recording.samples[950, 2] = np.nan
    outcomes = []
    trial_set = prepare(
        study(one=recording),
        make_settings(whitening="mvnn"),
        tmp_path / "set",
        on_recording=lambda name, prepared: outcomes.append(prepared),
    )
    assert outcomes[-1].dropped["rejected"] >= 1
    assert len(trial_set) + outcomes[-1].dropped["rejected"] == len(ONSETS)


def test_recordings_that_differ_by_orders_of_magnitude_are_refused_by_name(tmp_path):
    one, two = make_recording(ONSETS), make_recording(ONSETS, seed=1)
    in_volts = replace(two, samples=two.samples * np.float32(1e-6))
    with pytest.raises(Problem, match=r"channels of 'one' move by .* and those of 'two' by"):
        prepare(study(one=one, two=in_volts), make_settings(), tmp_path / "set")
    louder = replace(two, samples=two.samples * 8)
    assert len(prepare(study(one=one, two=louder), make_settings(), tmp_path / "set")) == 10


def with_channel(recording, name, change):
    """The same, with one channel's samples changed."""
    samples = recording.samples.copy()
    at = recording.channels.index(name)
    samples[:, at] = change(samples[:, at])
    return replace(recording, samples=samples)


@pytest.mark.parametrize(
    "change",
    [lambda x: 0 * x, lambda x: 0 * x + 7, lambda x: 1e6 * x, lambda x: 1e-3 * x],
    ids=["dead", "constant", "wild", "faint"],
)
def test_a_channel_that_is_odd_in_all_recordings_is_refused_and_in_some_told(tmp_path, change):
    well = [make_recording(ONSETS, seed) for seed in range(2)]
    ill = [with_channel(recording, "Pz", change) for recording in well]
    choice = make_settings(whitening="mvnn")
    with pytest.raises(Problem, match=r"Pz \(.* beside .*leave them out of the channels"):
        prepare(study(one=ill[0], two=ill[1]), choice, tmp_path / "set")
    assert not (tmp_path / "set").exists()
    told = {}
    prepare(
        study(one=ill[0], two=well[1]),
        choice,
        tmp_path / "set",
        on_recording=lambda name, so_far: told.update({name: so_far.notices}),
    )
    assert len(told["one"]) == 1
    assert "Pz (" in told["one"][0]
    assert told["two"] == ()
    beside = make_settings(channels=("Oz", "Cz"), output_channels=("Oz",))
    assert len(prepare(study(one=ill[0], two=ill[1]), beside, tmp_path / "set")) == 10
    referenced = make_settings(reference="Pz")
    assert len(prepare(study(one=ill[0], two=ill[1]), referenced, tmp_path / "set")) == 10


def test_channels_of_another_unit_are_not_compared():
    recording = make_recording(ONSETS)
    loud = with_channel(recording, "Fz", lambda x: 1e4 * x)
    assert list(loud.odd_channels(CAP)) == ["Fz"]
    assert loud.odd_channels(("cz", "PZ")) == {}
    mixed = replace(loud, units=("femtoteslas", *loud.units[1:]))
    assert mixed.odd_channels(CAP) == {}
    assert mixed.odd_channels(("none",)) == {}
