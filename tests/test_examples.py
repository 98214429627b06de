"""The examples, as they stand: each is run as its first lines say, without a screen or a cap."""

import json
import re
import signal
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from stream import client
from stream.acquire.lsl import local_clock, pylsl
from tests.calling import ROOT
from tests.sessions import finish, start
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def _from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """An example finds the client of this very program, as where it is installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.syspath_prepend(EXAMPLES)


def example(name: str, *arguments: object) -> Any:
    return start(*map(str, arguments), module=f"examples/{name}.py")


def inlet_of(name: str) -> Any:
    (info,) = pylsl.resolve_byprop("name", name, 1, 60)
    inlet = pylsl.StreamInlet(info, processing_flags=0)
    inlet.open_stream(60)
    return inlet


def heard(inlet: Any, enough: Callable[[np.ndarray], bool]) -> tuple[np.ndarray, np.ndarray]:
    """Samples and stamps until there are enough of them."""
    samples, stamps_s = [], []
    while not stamps_s or not enough(np.array(stamps_s)):
        sample, stamp_s = inlet.pull_sample(60)
        assert sample is not None
        samples.append(sample)
        stamps_s.append(stamp_s)
    return np.array(samples), np.array(stamps_s)


def marker_outlet(name: str) -> Any:
    info = pylsl.StreamInfo(name, "Markers", 1, 0, "string", str(uuid.uuid4()))
    return pylsl.StreamOutlet(info)


@pytest.mark.parametrize("name", ["psychopy_rsvp", "closed_loop"])
def test_images_that_are_not_there_are_a_sentence(name: str, tmp_path: Path) -> None:
    done = finish(example(name, "--images", tmp_path / "nothere"))
    assert done.code == 2
    assert f"--images '{tmp_path / 'nothere'}' is no folder" in done.err
    done = finish(example(name, "--images", tmp_path))
    assert done.code == 2
    assert f"no image is in '{tmp_path}'" in done.err


def test_without_psychopy_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "psychopy.py").write_text("raise ModuleNotFoundError(name='psychopy')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    (tmp_path / "a.png").touch()
    done = finish(example("psychopy_rsvp", "--images", tmp_path))
    assert done.code == 1
    assert done.err.startswith("PsychoPy is not installed")
    assert "--check" in done.err
    assert "Traceback" not in done.err


def test_amplifier_is_a_cap_of_32_channels_with_a_trigger_channel() -> None:
    name = f"cap-{uuid.uuid4()}"
    markers = marker_outlet(f"{name}-markers")
    cap = example("amplifier", "--name", name, "--rate", 250, "--trigger", f"{name}-markers")
    inlet = inlet_of(name)
    info = inlet.info()
    assert len(info.get_channel_labels()) == info.channel_count() == 33
    assert set(info.get_channel_units()[:32]) == {"microvolts"}
    assert markers.wait_for_consumers(60)

    def are_pulses() -> bool:
        """Of markers of what is still to come; a machine may be so busy that it comes before."""
        onset_s = local_clock() + 1.0
        due_s = {1: onset_s, 44: onset_s + 0.1, 7: onset_s + 0.2}
        for text, due in zip(("stimulus", "300", "7"), due_s.values(), strict=True):
            markers.push_sample([text], due)
        samples, stamps_s = heard(inlet, lambda stamps_s: stamps_s[-1] > onset_s + 0.3)
        np.testing.assert_allclose(np.diff(stamps_s), 1 / 250, atol=1e-6)
        pulses = {code: stamps_s[samples[:, 32] == code] for code in set(samples[:, 32]) - {0}}
        assert pulses.keys() <= due_s.keys()
        return pulses.keys() == due_s.keys() and all(
            abs(pulse_s[0] - due_s[code]) < 0.02 and len(pulse_s) in (2, 3)
            for code, pulse_s in pulses.items()
        )

    wait_until(are_pulses)
    cap.send_signal(signal.SIGINT)
    done = finish(cap)
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"simulated cap .* 250 Hz\nended by Ctrl-C after \d+\.\d s\n", done.out)


def test_its_pulse_begins_with_the_first_sample_after_the_onset() -> None:
    from amplifier import PULSE_S, trigger

    stamps_s = 5 + np.arange(50) / 250
    for onset_s in (5.0, 5.0399, 5.04, 5.0401, 5.1):
        values = trigger([(5.15, 3), (onset_s, 9)], stamps_s)
        pulse_s = stamps_s[values == 9]
        assert 0 <= pulse_s[0] - onset_s < 1 / 250
        assert pulse_s[-1] < onset_s + PULSE_S <= pulse_s[-1] + 1 / 250
        np.testing.assert_array_equal(values[:10], 9 * (onset_s == 5.0) * (stamps_s[:10] < 5.01))


def test_its_eeg_looks_like_eeg_in_chunks_of_any_size() -> None:
    from amplifier import LABELS, Cap

    whole = Cap(250, 60, seed=1).read(20_000)
    cap = Cap(250, 60, seed=1)
    np.testing.assert_array_equal(np.vstack([cap.read(n) for n in (1, 7, 992)]), whole[:1000])
    assert ((whole.std(axis=0) > 5) & (whole.std(axis=0) < 50)).all()
    hz, power = welch(whole, 250, nperseg=1000, axis=0)

    def between(low_hz: float, high_hz: float, label: str) -> float:
        return power[(hz >= low_hz) & (hz <= high_hz), LABELS.index(label)].mean()

    assert between(2, 4, "C3") > 3 * between(8, 16, "F3") > 6 * between(30, 50, "C3")
    assert between(9, 11, "Oz") > 10 * between(9, 11, "F3")
    assert between(59.5, 60.5, "Fz") > 3 * between(64, 66, "Fz")
    assert np.ptp(whole[:, 0]) > 2 * np.ptp(whole[:, LABELS.index("Pz")])  # blinks


def test_the_simulated_subject_sees_what_markers_say() -> None:
    from demo.recordings import responses
    from demo.stimuli import gallery_stimuli
    from demo.subject import SubjectSettings

    name = f"subject-{uuid.uuid4()}"
    options = ("--name", name, "--markers", f"{name}-markers", "--amplitude", "30")
    subject = start("subject", *options, module="demo")
    inlet = inlet_of(name)
    shown = gallery_stimuli()[3]
    (expected,) = responses(SubjectSettings(seed=1, amplitude=30), [shown]).values()

    def is_seen(markers: Any) -> bool:
        """What is still to come; a machine may be so busy that it comes before."""
        onset_s = local_clock() + 1.0
        markers.push_sample([shown.id], onset_s)
        samples, stamps_s = heard(inlet, lambda stamps_s: stamps_s[-1] > onset_s + 1.2)
        onset = np.abs(stamps_s - onset_s).argmin()
        fits = [
            np.corrcoef(samples[onset + lag :][: expected.shape[1]].ravel(), expected.T.ravel())[
                0, 1
            ]
            for lag in range(-10, 11)
        ]
        return max(fits) > 0.8 and abs(np.argmax(fits) - 10) <= 4  # latencies vary by 5 ms (SD)

    for _ in range(2):  # the program with the markers comes, goes, and comes again
        markers = marker_outlet(f"{name}-markers")
        assert markers.wait_for_consumers(60)
        markers.push_sample(["no image"])
        wait_until(lambda markers=markers: is_seen(markers))
        del markers
    subject.send_signal(signal.SIGINT)
    done = finish(subject)
    assert done.out.count("not seen: 'no image'") == 2
    assert f"live --eeg {name} --markers {name}-markers --bundle" in done.out


def test_psychopys_self_check_sends_stamped_ids_at_an_even_pace(tmp_path: Path) -> None:
    for id in "abc":
        (tmp_path / f"{id}.png").touch()
    options = ("--images", tmp_path, "--check", "--wait", 0, "--markers", f"check-{uuid.uuid4()}")
    timing = ("--soa", 0.1, "--on", 0.05, "--repeats", 3, "--iti", 0.1)
    done = finish(example("psychopy_rsvp", *options, *timing))
    assert (done.code, done.err) == (0, "")
    *rounds, said, heard, soa = done.out.splitlines()
    assert rounds == [f"round {n} of 3, 3 images" for n in (1, 2, 3)]
    assert said == "no display: timing of markers only"
    assert heard == "9 markers, 9 of them heard by this program too, with their stamps"
    assert re.fullmatch(r"SOA \d+\.\d ms \(.*\), 100.0 asked for", soa)


def test_psychopys_program_joins_the_session_that_hears_it_and_waits_where_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from psychopy_rsvp import wait_until_ready

    joined: list[str] = []

    class Joined(AbstractContextManager[Any]):
        def __init__(self, session: str, **_: object) -> None:
            joined.append(session)

        def wait_ready(self, deadline_s: float) -> None:
            if joined == ["of ours"]:
                raise client.SessionEnded("of ours has ended")

        def __exit__(self, *_: object) -> None:
            pass

    def running(session: str, source: dict[str, Any]) -> client.Running:
        folder = tmp_path / session
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"source": source}))
        return client.Running(session, str(folder), "live", "", False, {})

    there = [
        running("a replay", {"path": "x.xdf"}),
        running("a stranger", {"eeg": "cap", "markers": "others"}),
        running("of a namesake", {"eeg": "cap", "markers": "ours", "marker_source_id": "theirs"}),
        running("of ours", {"eeg": "cap", "markers": "ours", "marker_source_id": "here"}),
    ]
    monkeypatch.setattr(client, "discover", lambda: there)
    monkeypatch.setattr(client, "connect", Joined)
    markers = pylsl.StreamInfo("ours", "Markers", 1, 0, "string", "here")
    wait_until_ready("", markers, 60)
    assert joined == ["of ours", "of ours"]
    assert capsys.readouterr().out == "of ours has ended; waiting for the next session\n"
    del there[-1]
    with pytest.raises(SystemExit, match=r"no session that hears 'ours' became ready within 0.3 s"):
        wait_until_ready("", markers, 0.3)


def test_psychopys_program_hears_by_lsl_alone_that_a_session_is_ready() -> None:
    from psychopy_rsvp import hear_ready

    def exit_of(session: str) -> str:  # on a busy machine not all may answer in time
        with pytest.raises(SystemExit) as said:
            hear_ready(session, time.monotonic() + 2)
        return str(said.value)

    ids = [uuid.uuid4().hex for _ in range(2)]
    one, other = (
        pylsl.StreamOutlet(
            pylsl.StreamInfo(
                "hvf-live-results", "Results", 1, 0, "string", f"hvf-live-results-{id}"
            )
        )
        for id in ids
    )

    def say(state: str) -> None:
        one.push_sample([json.dumps({"event": "hello", "state": state})])

    with ThreadPoolExecutor() as threads:
        waits = threads.submit(hear_ready, ids[0], time.monotonic() + 100)
        assert one.wait_for_consumers(60)
        for _ in range(3):
            say("starting")
            time.sleep(0.1)  # for what must not come of it
            assert not waits.done()
        wait_until(lambda: say("ready") or waits.done())
        assert waits.result() is None
    for session, says in (
        ("none", "there are: none"),
        ("", f"there are: .*{ids[1]}"),
        (ids[1], "did not become ready in time"),
    ):
        wait_until(lambda session=session, says=says: re.search(says, exit_of(session)))
    del other


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 9), st.integers(1, 9))
def test_psychopys_images_come_equally_often_and_none_twice_in_a_row(n: int, repeats: int) -> None:
    from psychopy_rsvp import orders

    rounds = list(orders([Path(str(i)) for i in range(n)], repeats))
    assert [sorted(order) for order in rounds] == [sorted(rounds[0])] * repeats
    assert all(a != b for a, b in pairwise(chain(*rounds)))
