"""What one node writes another reads, and what is no message is refused with one sentence."""

import json
import re
import struct
from dataclasses import fields, replace

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream.pipeline.wire.config import (
    Endpoints,
    FileSource,
    LiveSource,
    PaintingSettings,
    SessionConfig,
    read_config,
)
from stream.pipeline.wire.flat import as_json
from stream.pipeline.wire.frames import KINDS, VERSION, pack, prefix, unpack, unpack_numbered
from stream.pipeline.wire.messages import (
    ChannelQuality,
    Controlled,
    Eeg,
    Embedded,
    End,
    MarkerSeen,
    Message,
    NodeState,
    Noted,
    Painted,
    PaintingState,
    Preview,
    Recorded,
    Retrieval,
    SessionClosed,
    SessionState,
    Settled,
    Snapshot,
    StreamHealth,
    TrialCut,
    TrialDropped,
    TrialSlice,
)
from tests.mutations import N, outcomes
from tests.refs import about, answer, overheard
from tests.sessions import ROOT

STAMPS = {"window_end": 1e5 + 1e-9, "readable": 100000.25}
EEG = np.random.default_rng(0).normal(size=(17, 250)).astype(np.float32)

ABOUT = about(
    7, session="söß", stimulus="日本/01", group="größe", repeat=3, onset_s=12345.678901234567
)
HEADERS = {"headers": {"eeg": "<info>ü</info>", "markers": "<info />"}}


def part(first: int, stop: int) -> TrialSlice:
    return TrialSlice(
        about=ABOUT,
        first=first,
        corrects=0,
        final=stop == EEG.shape[1],
        residual_s=-1e-4,
        stamps=STAMPS,
        array=EEG[:, first:stop],
    )


WHOLE = part(0, 250)
RETRIEVAL = Retrieval(
    about=ABOUT,
    answer=answer(tmax_s=0.496, n_repeats=2),
    ids=["a", "ü"],
    labels=["x", ""],
    scores=[0.9, -0.1],
    probabilities=[0.75, 1e-9],
    confidence=0.75,
    calibrated=False,
    abstain=True,
    rank=1,
    stamps=STAMPS,
)
EEG_TO_WATCH = Eeg(
    channels=["Cz ü"],
    rate_hz=100.0,
    stamps_s=[1e5, 1e5 + 0.01],
    markers=["Käse"],
    markers_s=[1e5 + 1e-9],
    array=np.ones((2, 1), np.float32),
)
EXAMPLES = [
    MarkerSeen(
        about=replace(ABOUT, trial=2**40, block=3), readable_s=0.1, text="ü", sent_s=-7.5, mark="ü"
    ),
    WHOLE,
    TrialDropped(trial=1, reason="gap", detail="samples are missing\nin the window"),
    TrialCut(trial=1, residual_s=-0.00049, stamps=STAMPS),
    RETRIEVAL,
    Embedded(
        about=ABOUT,
        answer=answer(tmax_s=0.3),
        top_id="ü",
        stamps=STAMPS,
        array=np.arange(8, dtype=np.float32),
    ),
    PaintingState(trial=7, state="cancelled", detail="a newer trial came"),
    Preview(
        about=ABOUT,
        answer=answer(tmax_s=0.3),
        step=1,
        n_steps=4,
        image_format="jpeg",
        image=b"\xff\xd8\0",
        stamps=STAMPS,
    ),
    Painted(
        about=ABOUT,
        answer=answer(),
        seed=2**40,
        ip_scale=0.8,
        steps=4,
        size_px=512,
        strength=1.0,
        file="images/trial-00007.png",
        image_format="webp",
        image=b"RIFF\0",
        stamps=STAMPS,
    ),
    Settled(trial=7, outcome="dropped", reason="node_lost", markers=10, pending=2),
    NodeState(node="decode", incarnation="4711-ä"),
    Noted(node="decode", text="it is ü", facts={"layers": [1, 2], "size": None}),
    StreamHealth(
        stream="EEG",
        state="stalled",
        rate_hz=249.9,
        drift_ppm=12.5,
        age_s=0.3,
        gaps=1,
        flat=["Oz"],
        clipped=[],
        offset_s=1e-3,
        offset_uncertainty_s=2e-4,
    ),
    Recorded(
        **HEADERS,
        stream="eeg",
        raw_s=np.arange(4.0).tobytes(),
        texts=[],
        offset_s=0.25,
        first=250,
        array=np.ones((4, 1), np.float32),
    ),
    Recorded(
        **HEADERS,
        stream="markers",
        raw_s=np.arange(2.0).tobytes(),
        texts=[["Käse"], [""]],
        offset_s=-3.5,
        first=0,
        array=np.empty(0),
    ),
    End(reason="finish", facts={"gaps": 2}),
    EEG_TO_WATCH,
    ChannelQuality(
        channels=["Cz ü"],
        until_s=1e5,
        rms_uv=[12.5],
        peak_to_peak_uv=[80.0],
        line_uv=[3.5],
        line_hz=50.0,
        flat=[False],
        clipped=[True],
    ),
    SessionClosed(summary={"top1": None, "dropped": {"gap": 1}}),
    SessionState(state="paused"),
    Controlled(
        verb="set",
        argument="top_k 3",
        by="ä",
        outcome="done",
        text="top_k is now 3",
        stamp_s=1.5,
        facts={"old": 5, "new": 3},
    ),
    Snapshot(
        config={"top_k": 5},
        markers=2,
        pending=1,
        outcomes={"cut": 1},
        reasons={},
        trials=[{"event": "cut", "trial": 1}],
        last=[b"\0\xff"],
    ),
    overheard(5.0, 7.5, text="Käse", offset_s=-3.5),
]


def check_same(one, other):
    assert type(one) is type(other)
    for field in fields(one):
        before, after = getattr(one, field.name), getattr(other, field.name)
        if isinstance(before, np.ndarray):
            assert before.shape == after.shape
            assert after.dtype == before.dtype.newbyteorder("<")
            np.testing.assert_array_equal(before, after)
        else:
            assert before == after


# What EXAMPLES does not have two of.
MORE = [
    part(25, 50),
    part(249, 250),
    replace(RETRIEVAL, answer=answer(), calibrated=True, abstain=False, rank=0),
]


@pytest.mark.parametrize("message", [*EXAMPLES, *MORE], ids=lambda message: type(message).__name__)
def test_every_message_comes_back_as_it_was(message):
    check_same(message, unpack(pack(message)))


def test_the_number_of_each_kind_is_the_documented_one():
    table = re.findall(r"^\| (\d+) \| (\w+) \|", (ROOT / "docs/bus.md").read_text(), re.MULTILINE)
    assert [(str(number), kind.__name__) for number, kind in KINDS.items()] == table
    assert all(pack(message)[:1] == prefix(type(message)) for message in EXAMPLES)


@given(st.integers(0, 2**63 - 1))
def test_a_frame_is_numbered(seq):
    number, message = unpack_numbered(pack(WHOLE, seq))
    assert number == seq
    check_same(message, WHOLE)
    assert unpack_numbered(pack(WHOLE))[0] == 0


def test_every_kind_of_message_has_an_example():
    assert {type(message) for message in EXAMPLES} == set(KINDS.values())


dtypes = st.sampled_from(["<f4", ">f4", "<f8", ">i2", "<i8", "u1", "?", "<c8"])
shapes = st.lists(st.integers(0, 5), min_size=1, max_size=4)


@given(dtypes, shapes, st.booleans(), st.text(max_size=20), st.floats(allow_nan=False))
def test_arrays_of_any_type_shape_and_order_come_back(dtype, shape, turned, text, onset_s):
    array = (np.arange(np.prod(shape)) - 3).reshape(shape).astype(dtype)
    array = array.T if turned else array
    message = replace(EEG_TO_WATCH, channels=[text], stamps_s=[onset_s], array=array)
    check_same(message, unpack(pack(message)))


def test_nan_and_infinity_come_back_bit_for_bit():
    array = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    message = unpack(pack(replace(WHOLE, residual_s=np.inf, array=array)))
    assert message.array.tobytes() == array.tobytes()
    assert message.residual_s == np.inf


def test_an_array_that_was_received_is_a_view_and_cannot_be_written():
    frame = pack(WHOLE)
    array = unpack(frame).array
    assert np.shares_memory(array, np.frombuffer(frame, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_a_trial_costs_little_more_than_its_samples():
    assert len(pack(WHOLE)) < EEG.nbytes + 400


def test_a_slice_costs_little_more_than_its_samples():
    assert len(pack(part(25, 50))) < 17 * 25 * 4 + 400


def test_an_answer_is_plain_json_under_the_names_that_programs_know():
    told = json.loads(as_json(RETRIEVAL))
    assert told.items() >= {"session": "söß", "trial": 7, "group": "größe", "repeat": 3}.items()
    assert told.items() >= {"n_repeats": 2, "tmax_s": 0.496, "provisional": True}.items()
    assert told["stamps"] == STAMPS
    names = {"stimulus", "onset_s", "ids", "labels", "scores", "probabilities", "confidence"}
    assert names | {"calibrated", "abstain", "rank"} <= told.keys()
    assert not {"about", "answer"} & told.keys()


# --- what is no message --------------------------------------------------------------------------


def frame_of(header, body=b"", kind=End):
    packed = msgpack.packb(header)
    return prefix(kind) + struct.pack("<I", len(packed)) + packed + body


def is_one_sentence(problem):
    text = str(problem)
    return len(text) < 600 and "\n" not in text and "; " in text


END = {"reason": "r", "facts": {}}


@pytest.mark.parametrize("version", [0, VERSION + 1, "1", None])
def test_another_version_is_named(version):
    frame = frame_of({"v": version} | END)
    with pytest.raises(Problem, match=f"format {version!r} arrived.*format {VERSION}") as caught:
        unpack(frame)
    assert is_one_sentence(caught.value)


RECORDED = {"v": VERSION, "stream": "eeg", "raw_s": b"", "texts": [], "offset_s": 0.0} | HEADERS
RECORDED["first"] = 0
SENT = {"text": "", "sent_s": 0.0, "mark": ""}


def recorded(array, body=b"12345678"):
    """A frame of this array; None leaves it out."""
    return frame_of(RECORDED | (array or {}), body, Recorded)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0",
        prefix(End),
        prefix(End) + struct.pack("<I", 2**32 - 1) + b"\xa1",
        frame_of({}),
        frame_of({"v": VERSION}),
        frame_of({"v": VERSION, "reason": "r"}),
        frame_of({"v": VERSION, "more": 1} | END),
        b"\0" + frame_of({"v": VERSION} | END)[1:],
        b"\xff" + frame_of({"v": VERSION} | END)[1:],
        frame_of(["v", VERSION]),
        frame_of(
            {
                "v": VERSION,
                "about": "trial 7",
                "readable_s": 0.1,
            }
            | SENT,
            kind=MarkerSeen,
        ),
        frame_of(
            {
                "v": VERSION,
                "about": {"trial": 7},
                "readable_s": 0.1,
            }
            | SENT,
            kind=MarkerSeen,
        ),
        recorded({"dtype": "<f4", "shape": [2**63]}, b"1234"),
        recorded(None, b""),
        recorded({"dtype": "<f4", "shape": [2]}, b"1234567"),
        recorded({"dtype": "<f4", "shape": [3]}),
        recorded({"dtype": "O", "shape": [1]}),
        recorded({"dtype": "nonsense", "shape": [1]}),
        recorded({"dtype": "<f4"}),
        recorded({"dtype": "<f4", "shape": "2"}),
        pack(WHOLE)[:-1],
        pack(WHOLE) + b"x",
    ],
)
def test_a_damaged_frame_is_a_problem(frame):
    with pytest.raises(Problem, match=f"a frame of {len(frame)} bytes is no message") as caught:
        unpack(frame)
    assert is_one_sentence(caught.value)


@pytest.mark.parametrize("header", [5, None, "v", 0.5, True, b"v"])
def test_a_header_that_is_no_map_is_a_problem(header):
    with pytest.raises(Problem, match="is no message"):
        unpack(frame_of(header))


def message_or_problem(frame):
    try:
        outcome = unpack(frame)
    except Problem as problem:
        outcome = problem
    assert isinstance(outcome, Message) or is_one_sentence(outcome)


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"\x0f\x01\0\0\0\x80")
def test_random_bytes_are_a_problem(frame):
    message_or_problem(frame)


anything = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.floats(), st.text(max_size=8), st.binary(max_size=8)),
        st.integers(-(2**63), 2**64 - 1),
        st.sampled_from(["<f4", "O", "V8", "M8[s]", "S0", "(2,2)f4", "i4,f4", "U9", "|b1", "f4("]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=400)
@given(anything, anything, st.binary(max_size=32))
def test_any_type_and_shape_of_an_array_are_borne(dtype, shape, body):
    message_or_problem(recorded({"dtype": dtype, "shape": shape}, body))


@settings(max_examples=200)
@given(anything, st.binary(max_size=8), st.sampled_from(list(KINDS.values())))
def test_any_header_is_borne(header, body, kind):
    message_or_problem(frame_of(header, body, kind))
    message_or_problem(frame_of({"v": VERSION, "about": header, "answer": header}, body, kind))


@settings(max_examples=500)
@given(
    st.sampled_from([pack(message) for message in EXAMPLES]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=4),
    st.none() | st.integers(0, 400),
)
def test_a_frame_that_was_changed_anywhere_is_read_or_refused(frame, flips, stop):
    damaged = bytearray(frame)
    for at, bits in flips:
        damaged[at % len(damaged)] ^= bits
    message_or_problem(bytes(damaged[:stop]))


def test_frames_that_disks_and_networks_damage():
    for number, frame in enumerate(map(pack, EXAMPLES)):
        outcomes(unpack, frame, n=N // len(EXAMPLES) + 1, seed=number)


# --- the config that all nodes read --------------------------------------------------------------


def config(folder, **changes):
    source = changes.pop("source", LiveSource(eeg="EEG ü", markers="stimuli"))
    session = {"session": "Größe", "folder": folder, "endpoints": Endpoints.local()}
    return SessionConfig(**session, source=source, **changes)


@pytest.mark.parametrize(
    "source",
    [
        LiveSource(eeg="EEG ü", markers="stimuli", wait_s=1.5),
        FileSource(path="a/b.xdf", start_s=2.0, stop_s=None, stim_channel="STI"),
    ],
)
def test_a_config_is_read_as_it_was_written(tmp_path, source):
    written = config(tmp_path, source=source, top_k=7, seed=3)
    assert read_config(written.write()) == written


def test_a_config_with_a_painting_is_read_as_it_was_written(tmp_path):
    painting = PaintingSettings(prior="prior", base="sdxl-turbo", refine=True, size_px=512)
    early = {"tmax_s": (0.3,)}  # what it begins with, to go on from there
    written = config(tmp_path, bundle="bundle", painting=painting, decoding=early)
    assert read_config(written.write()) == written
    less = written.with_less_memory()
    assert less.painting == painting.model_copy(update={"halvings": 1})
    assert read_config(less.write("less.json")) == less


def test_a_config_from_before_there_was_a_painter_can_be_read(tmp_path):
    path = config(tmp_path).write()
    told = json.loads(path.read_text())
    del told["endpoints"]["embeddings"], told["painting"], told["simulated"]
    path.write_text(json.dumps(told))
    assert read_config(path).painting is None


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"size_px": 100}, {"ip_scale": -1.0}, {"from_top": 0.0}]
)
def test_a_painting_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PaintingSettings(prior="prior", **wrong)


def test_nothing_can_be_painted_without_a_bundle(tmp_path):
    with pytest.raises(ValueError, match="nothing to paint"):
        config(tmp_path, painting=PaintingSettings(prior="prior"))


@pytest.mark.parametrize("has_ipc", [True, False])
def test_two_sessions_on_one_machine_never_share_an_address(monkeypatch, has_ipc):
    if not has_ipc:
        monkeypatch.delattr("socket.AF_UNIX")
    addresses = [*Endpoints.local().model_dump().values(), *Endpoints.local().model_dump().values()]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"session": "s"}', '{"surprise": 1}'],
)
def test_a_config_that_is_none_is_a_problem(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(Problem, match=r"the session config '.*' is not valid at "):
        read_config(path)


def test_a_config_that_is_missing_is_a_problem(tmp_path):
    with pytest.raises(Problem, match=r"config.json' cannot be read \(No such file"):
        read_config(tmp_path / "config.json")


def test_an_address_that_leaves_the_machine_is_refused():
    here = Endpoints.local().model_dump()
    with pytest.raises(ValueError, match="leaves this machine"):
        Endpoints(**(here | {"results": "tcp://0.0.0.0:5555"}))
