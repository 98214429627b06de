"""What is recorded comes back from pyxdf as it was sent: samples, stamps, headers, offsets."""

import io
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import pyxdf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvf_core.screen import Screen
from stream.acquire.lsl import DOCTOR, local_clock, pylsl
from stream.recorder.header import corrected, is_same_source, legible, made
from stream.recorder.intake import Intake, StreamsFile, is_among
from stream.recorder.run import missing
from stream.recorder.settings import RecordSettings
from stream.recorder.tally import Tally
from stream.recorder.view import View
from stream.sources.read import read_recording
from stream.sources.xdf_writer import XdfWriter, free_path
from tests.stream_info import stream_info
from tests.waiting import wait_until

anything = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(path: Path) -> dict[str, dict]:
    """The streams of a file by name, raw."""
    streams, _ = pyxdf.load_xdf(
        str(path), synchronize_clocks=False, handle_clock_resets=False, dejitter_timestamps=False
    )
    return {stream["info"]["name"][0]: stream for stream in streams}


class Sent:
    """A tap on what a test says that a stream has sent."""

    def __init__(self, header: str):
        self.header, self.offsets, self.chunks = header, deque(), []

    def pull(self) -> Iterator[tuple]:
        yield from self.chunks
        self.chunks.clear()


FORMATS = {"float32": "<f4", "double64": "<f8", "int8": "<i1", "int16": "<i2", "int64": "<i8"}


@settings(anything, max_examples=40)
@given(data=st.data())
def test_whatever_streams_send_in_whatever_order_is_read_back_bit_for_bit(tmp_path, data):
    """Streams come one after the other, some never send; each has its own format and header."""
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.xdf"
    intake, sent = SimpleNamespace(taps=[]), {}
    with closing(XdfWriter(path)) as writer:
        file = StreamsFile(writer, intake, first_id=data.draw(st.integers(1, 9)))
        for step in range(data.draw(st.integers(1, 6))):
            if data.draw(st.booleans()) or not intake.taps:
                name, n = f"s{step}", data.draw(st.integers(1, 3))
                kind = data.draw(st.sampled_from([*FORMATS, "string"]))
                intake.taps.append(Sent(made(name, "T", 0.0, kind, ["x"] * n)))
                sent[name] = (n, kind, [], [], [])
            for tap, (n, kind, stamps, samples, offsets) in zip(
                intake.taps, sent.values(), strict=True
            ):
                n_samples = data.draw(st.integers(0, 5))
                raw_s = np.array(data.draw(st.lists(st.floats(0, 1e9), min_size=n_samples)))
                if kind == "string":
                    some = [[data.draw(st.text(max_size=9)) for _ in range(n)] for _ in raw_s]
                else:
                    bits = np.random.default_rng(step).bytes(len(raw_s) * n * 8)
                    some = np.frombuffer(bits, FORMATS[kind])[: len(raw_s) * n].reshape(-1, n)
                offset = (float(step), data.draw(st.floats(-1, 1)))
                if len(raw_s):
                    tap.chunks.append((raw_s, some))
                tap.offsets.append(offset)
                stamps.append(raw_s), samples.extend(some), offsets.append(offset)
            file.write()
    found = load(path)
    assert found.keys() == sent.keys()
    for name, (n, kind, stamps, samples, offsets) in sent.items():
        stream = found[name]
        assert stream["time_stamps"].tobytes() == np.concatenate(stamps).tobytes()
        if kind == "string":
            assert [list(row) for row in stream["time_series"]] == samples
        else:
            ours = np.array(samples, FORMATS[kind]).reshape(-1, n)
            assert np.asarray(stream["time_series"], FORMATS[kind]).tobytes() == ours.tobytes()
        taken = zip(stream["clock_times"], stream["clock_values"], strict=True)
        assert list(taken) == offsets
        assert int(stream["footer"]["info"]["sample_count"][0]) == len(samples)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@settings(anything, max_examples=200)
@given(name=NAMES, key=NAMES.filter(bool), value=NAMES)
def test_whatever_a_stream_says_of_itself_its_header_can_be_read(name, key, value):
    info = pylsl.StreamInfo(name or "x", "EEG", 1, 10.0, "float32", value)
    info.desc().append_child_value(key, value)
    header = legible(info.as_xml())
    told = ElementTree.fromstring(header)
    assert told.findtext("channel_format") == "float32"
    assert legible(header) == header
    if all(one.isprintable() for one in name):
        assert (told.findtext("name") or "").strip() == (name or "x").strip()


def test_a_header_that_is_xml_stays_as_it_is_and_one_that_is_none_loses_nothing():
    good = stream_info("<&>", "EEG", 2, 250.0, "int16", "a", ("Cz", "Pz"), ("volts", "none"))
    assert legible(good.as_xml()) == good.as_xml()
    bad = good.as_xml().replace("<desc>", "<desc><my amp>k&#01;</my amp><1 />")
    desc = ElementTree.fromstring(legible(bad)).find("desc")
    assert desc.findtext("my_amp") == r"k\x01"
    assert [one.findtext("unit") for one in desc.iter("channel")] == ["volts", "none"]
    worse = good.as_xml().replace("<desc>", "<desc></a>why")
    assert "why" in ElementTree.fromstring(legible(worse)).findtext("desc/unreadable")


def test_what_a_person_corrects_is_corrected_and_all_else_stays():
    info = stream_info("amp", "EEG", 2, 250.0, "float32", "a", ("A1", "A2"), ("volts", "volts"))
    info.desc().append_child_value("manufacturer", "Käse & Söhne")
    told = ElementTree.fromstring(corrected(info.as_xml(), ["Cz", "STI"], 247.5, ["STI"]))
    channels = [(one.findtext("label"), one.findtext("unit")) for one in told.iter("channel")]
    assert channels == [("Cz", "volts"), ("STI", "")]
    assert told.findtext("nominal_srate") == "247.5"
    assert told.findtext("desc/manufacturer") == "Käse & Söhne"
    bare = stream_info("amp", "EEG", 2, 250.0, "float32", "a").as_xml()
    told = ElementTree.fromstring(corrected(bare, ["Cz", "Pz"], None, []))
    assert [one.findtext("label") for one in told.iter("channel")] == ["Cz", "Pz"]
    assert float(told.findtext("nominal_srate")) == 250.0


def test_a_source_is_the_same_whose_name_shape_and_description_are():
    def header(**more: str) -> str:
        info = stream_info("amp", "EEG", 1, 250.0, "float32", **more)
        return info.as_xml().replace("<uid>", f"<uid>{uuid.uuid4()}")

    assert is_same_source(header(source_id="a"), header(source_id="b"))
    assert not is_same_source(header(labels=("Cz",)), header(labels=("Pz",)))
    assert not is_same_source(header(), header().replace("float32", "int16"))


def test_samples_seconds_rate_and_gaps_are_counted():
    tally = Tally(100.0)
    assert tally.told() == "no samples"
    numbers = np.arange(1000)
    for part in np.array_split(5 + numbers / 100.01, 7):
        tally.add(part)
    assert (tally.n_samples, tally.n_gaps) == (1000, 0)
    assert tally.rate_hz == pytest.approx(100.01)
    tally.add(20 + numbers / 100)  # five seconds are missing
    assert (tally.n_gaps, round(tally.seconds)) == (1, 25)
    tally.part()
    tally.add(numbers / 100)  # from a clock that began anew
    assert tally.n_gaps == 2
    assert tally.seconds == pytest.approx(24.99 + 9.99)
    assert tally.told() == f"3,000 samples, 35.0 s, {2998 / tally.seconds:.2f} Hz, 2 gaps"
    tally.add(np.array([np.nan]))
    assert tally.told(36.0) == tally.told()  # what is under way is not lacking
    assert "2 gaps, but 24.9 s of 59.9 s are lacking: " in tally.told(tally.seconds + 24.9)
    irregular = Tally(0.0)
    irregular.add(np.array([1.0, 1.5, 9.0]))
    assert irregular.told(60.0) == "3 samples, 8.0 s"


def test_a_name_that_is_required_or_given_whole_is_waited_for():
    wanted = RecordSettings(streams=("Amp", "Eye*"), require=("Ph?to", "Stim"))
    there = [SimpleNamespace(name=name) for name in ("Amp", "Photo", "[x]")]
    assert missing(wanted, there) == ["Stim"]
    assert missing(wanted, []) == ["Ph?to", "Stim", "Amp"]
    assert missing(RecordSettings(), []) == []
    assert is_among("[x]", ("[x]",))  # a name, though it looks like a pattern
    passing = f"{DOCTOR}1a2b"
    assert not is_among(passing, ("*",))
    assert is_among(passing, (passing,))


def test_a_path_that_is_taken_is_not(tmp_path):
    path = tmp_path / "a.xdf"
    for expected in ("a.xdf", "a-2.xdf", "a-3.xdf"):
        assert free_path(path) == tmp_path / expected
        free_path(path).touch()


def outlet(name: str, kind: str, rate_hz: float, channel_format: str, n: int) -> pylsl.StreamOutlet:
    info = pylsl.StreamInfo(name, kind, n, rate_hz, channel_format, f"{name} on the desk")
    info.set_channel_labels([f"{kind}{i}" for i in range(n)])
    info.desc().append_child_value("manufacturer", "Käse & Söhne")
    return pylsl.StreamOutlet(info, max_buffered=1000)


@pytest.mark.slow
def test_streams_of_all_kinds_are_recorded_through_a_disk_that_stands_still_and_a_loss(tmp_path):
    mine = uuid.uuid4().hex[:8]
    amp, stim, gaze = (f"{name}-{mine}" for name in ("amp", "stim", "gaze"))
    eeg = outlet(amp, "EEG", 250.0, "int16", 3)
    markers = outlet(stim, "Markers", 0.0, "string", 2)
    eyes = [outlet(gaze, "Gaze", 0.0, "double64", 2)]
    intake = Intake(lambda stream: stream.name.endswith(mine))
    wait_until(lambda: len(intake.there()) == 3)
    intake.begin()
    now_s = local_clock()
    said: list[str] = []
    with closing(XdfWriter(tmp_path / "a.xdf")) as writer:
        file = StreamsFile(writer, intake)

        def written(holds: Callable[[], bool]) -> bool:
            file.write()
            said.extend(intake.taken())
            return holds()

        def has_come(name: str, n: int) -> bool:
            (tap,) = (tap for tap in intake.taps if tap.stream.name == name)
            return tap.tally.n_samples == n

        wait_until(lambda: written(lambda: all(tap.n_offsets for tap in intake.taps)))
        # Nothing is written while a minute is sent, and more, of the irregular one at 1 kHz.
        numbers = np.arange(70 * 250)
        sent = np.stack([numbers, -numbers, numbers % 7], 1).astype(np.int16)
        for part in np.array_split(numbers, 70):
            eeg.push_chunk(sent[part], (now_s + part / 250).tolist())
        looks = np.random.default_rng(0).normal(size=(70_000, 2))
        for part in np.array_split(np.arange(len(looks)), 70):
            eyes[0].push_chunk(looks[part], (now_s + part / 1e3).tolist())
        texts = [["stim/ü", ""], ["<&>", "日本"], ["", "x" * 300]]
        for k, row in enumerate(texts):
            markers.push_sample(row, now_s + k)
        wait_until(lambda: written(lambda: has_come(gaze, 70_000) and has_come(amp, len(sent))))
        # What has come and was not pulled yet when a source dies is not lost with it.
        eyes[0].push_sample([1.0, 2.0], now_s + 100)
        (tap,) = (tap for tap in intake.taps if tap.stream.name == gaze)
        wait_until(tap._inlets[0].samples_available)
        eyes.clear()
        wait_until(lambda: written(lambda: any("is lost" in one for one in said)))
        eyes.append(outlet(gaze, "Gaze", 0.0, "double64", 2))
        wait_until(lambda: written(lambda: any("is back" in one for one in said)))
        assert eyes[0].wait_for_consumers(60.0)
        eyes[0].push_sample([3.0, 4.0], now_s + 200)
        wait_until(lambda: written(lambda: has_come(gaze, 70_002)))
        intake.stop()
    found = load(tmp_path / "a.xdf")
    assert found.keys() == {amp, stim, gaze}
    for name, stream in found.items():
        info = stream["info"]
        assert info["source_id"] == [f"{name} on the desk"]
        assert info["desc"][0]["manufacturer"] == ["Käse & Söhne"]
        assert info["hostname"] == [pylsl.StreamInfo("x").hostname() or info["hostname"][0]]
        assert len(stream["clock_values"]) >= 1
        assert np.abs(stream["clock_values"]).max() < 0.1  # of this machine
    np.testing.assert_array_equal(found[amp]["time_series"], sent)
    np.testing.assert_array_equal(found[amp]["time_stamps"], now_s + numbers / 250)
    assert found[amp]["info"]["channel_format"] == ["int16"]
    assert [list(row) for row in found[stim]["time_series"]] == texts
    looked = np.concatenate([looks, [[1.0, 2.0], [3.0, 4.0]]])
    np.testing.assert_array_equal(found[gaze]["time_series"], looked)
    assert found[gaze]["time_stamps"][-2:].tolist() == [now_s + 100, now_s + 200]


@pytest.mark.slow
@pytest.mark.parametrize("source_id", ["", "amp"])
def test_what_comes_back_as_another_stream_is_recorded_beside_the_first(tmp_path, source_id):
    """It is the same where all that it says of itself is, under another source id too."""
    name = f"amp-{uuid.uuid4().hex[:8]}"

    def source(labels: list[str], source_id: str = source_id) -> pylsl.StreamOutlet:
        info = stream_info(name, "EEG", 2, 100.0, "float32", source_id, labels)
        return pylsl.StreamOutlet(info)

    intake, said, pushed = Intake(lambda stream: stream.name == name), [], []
    sources = [source(["Cz", "Pz"])]
    wait_until(intake.there)
    intake.begin()
    with closing(XdfWriter(tmp_path / "a.xdf")) as writer:
        file = StreamsFile(writer, intake)

        def sent(value: float, n_streams: int) -> None:
            """Sends samples until some of these have come, not only some that were under way."""
            n_before = len(pushed)

            def has_come() -> bool:
                sources[0].push_sample([value, 0.0])
                pushed.append(value)
                file.write()
                said.extend(intake.taken())
                n = sum(tap.tally.n_samples for tap in intake.taps)
                return len(intake.taps) == n_streams and n > n_before

            wait_until(has_come)
            for tap in intake.taps:  # liblsl tells of no source whose clock it did not know
                if not tap.is_lost:
                    tap._next_offset_s = 0.0
                    tap.measure()

        sent(1.0, 1)
        for value, labels, more, n_streams in (
            (2.0, ["Cz", "Pz"], (), 1),  # started again
            (3.0, ["Cz", "Pz"], ("another",), 1),  # by a program that makes up its source id
            (4.0, ["Oz", "Pz"], ("another",), 2),
        ):
            sources.clear()
            if more and n_streams == 1:  # one that is not known to be lost is no other's past
                wait_until(lambda: file.write() or any(tap.is_lost for tap in intake.taps))
            sources.append(source(labels, *more))
            sent(value, n_streams)
        intake.stop()
        intake.check()
    streams = sorted(
        pyxdf.load_xdf(tmp_path / "a.xdf", dejitter_timestamps=False)[0],
        key=lambda stream: stream["info"]["stream_id"],
    )
    values = [np.unique(stream["time_series"][:, 0]).tolist() for stream in streams]
    assert values == [[1.0, 2.0, 3.0], [4.0]]
    labels = [one["info"]["desc"][0]["channels"][0]["channel"][0]["label"] for one in streams]
    assert labels == [["Cz"], ["Oz"]]


def test_the_screen_has_a_line_for_each_stream_and_says_what_is_missing(tmp_path):
    def shown(show: Callable[[View], object]) -> str:
        output = io.StringIO()
        view = View(Screen(file=output, force_terminal=True, width=200), headless=False)
        show(view)
        view.close()
        return output.getvalue()

    amp = stream_like("Amp", "EEG", 250.0)
    told = shown(lambda view: view.waiting([amp], ["Eye\x1b[2J"]))
    assert r"waiting for 'Eye\x1b[2J'; there: 'Amp'" in told
    assert "missing" in told
    others = [stream_like(name, "EEG", 250.0) for name in ("MyCap", "MyGaze", "MyGaze")]
    told = shown(lambda view: view.waiting([amp], ["mycaap"], others))
    meant = "did you mean 'MyCap'?"
    assert f"waiting for 'mycaap'; {meant} there: 'Amp', 'MyCap', 'MyGaze'" in told
    tally = Tally(250.0)
    tally.add(np.arange(500) / 250)
    tap = SimpleNamespace(stream=amp, tally=tally, state="lost", elapsed_s=61.0)
    file = (tmp_path / "a.xdf", 12_345_678, 61.0, 30.0)
    told = shown(lambda view: view.recording([tap], *file))
    assert "12.3 MB, 0:01:01; the disk stands still for 30 s" in told
    assert re.search("Amp .*EEG .*500 .*250.00 Hz .*lost, 59 s are lacking", told)


def stream_like(name: str, kind: str, rate_hz: float) -> SimpleNamespace:
    return SimpleNamespace(name=name, type=kind, n_channels=2, rate_hz=rate_hz)


def test_of_several_streams_a_session_own_file_says_which_ones_it_read(tmp_path):
    """Others of the same type lie beside them; another file's streams have to be named."""
    info = pylsl.StreamInfo("answers", "Results", 1, 0.0, "string", "answers")
    told = info.desc().append_child("recorded")
    told.append_child_value("eeg", "2"), told.append_child_value("markers", "3")
    with closing(XdfWriter(tmp_path / "a.xdf")) as writer:
        writer.add_stream(9, info.as_xml())
        writer.write_samples(9, np.array([1.0]), [["{}"]])
        for number, name in ((1, "other"), (2, "mine")):
            writer.add_stream(number, made(name, "EEG", 100.0, "float32"))
            writer.write_samples(number, np.arange(9) / 100, np.full((9, 1), number, "<f4"))
        for number, kind in ((3, "Stimuli"), (4, "Markers")):
            writer.add_stream(number, made(kind, kind, 0.0, "string"))
            writer.write_samples(number, np.array([0.05]), [[kind]])
    recording = read_recording(tmp_path / "a.xdf")
    assert recording.name == "mine"
    assert [marker.text for marker in recording.markers] == ["Stimuli"]
