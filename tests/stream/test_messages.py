"""What one node writes another reads, and what is no message is refused with one sentence."""

import json
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
from stream.pipeline.wire.messages import (
    VERSION,
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
    Settled,
    StreamHealth,
    TrialCut,
    TrialDropped,
    TrialSlice,
    as_json,
    pack,
    unpack,
)

STAMPS = {"last_sample": 1e5 + 1e-9, "readable": 100000.25}
EEG = np.random.default_rng(0).normal(size=(17, 250)).astype(np.float32)

WHAT = (["Cz ü"], 512.0, "float32")
EXAMPLES = [
    MarkerSeen("söß", 2**40, "Käsekuchen/01", "käse", 3, 12345.678901234567, 0.1),
    TrialSlice("s", 1, "日本", "g", 1, 0, True, 0.5, -1e-4, STAMPS, EEG),
    TrialDropped("s", 1, "gap", "samples are missing\nin the window"),
    TrialCut("s", 1, -0.00049, STAMPS),
    Retrieval(
        session="s",
        trial=7,
        stimulus="a",
        group="größe",
        n_repeats=2,
        tmax_s=0.496,
        provisional=True,
        ids=["a", "ü"],
        labels=["x", ""],
        scores=[0.9, -0.1],
        probabilities=[0.75, 1e-9],
        confidence=0.75,
        calibrated=False,
        abstain=True,
        rank=1,
        onset_s=0.5,
        stamps=STAMPS,
    ),
    Embedded(
        session="s",
        trial=7,
        stimulus="ä",
        group="g",
        n_repeats=2,
        tmax_s=0.3,
        provisional=True,
        top_id="ü",
        onset_s=0.5,
        stamps=STAMPS,
        array=np.arange(8, dtype=np.float32),
    ),
    PaintingState("s", 7, "cancelled", "a newer trial came"),
    Preview("s", 7, "ä", True, 1, 4, "jpeg", b"\xff\xd8\0", STAMPS),
    Painted(
        session="s",
        trial=7,
        stimulus="ä",
        n_repeats=2,
        tmax_s=0.996,
        provisional=False,
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
    Settled("s", 7, "dropped", "node_lost", 10, 2),
    NodeState("s", "decode", "4711-ä", "alive"),
    Noted("s", "decode", "the engine is ü", {"engine": "x", "layers": [1, 2], "size": None}),
    StreamHealth("s", "EEG", "stalled", 249.9, 12.5, 0.3, 1, ["Oz"], [], 1e-3, 2e-4),
    Recorded(
        "s",
        ["Cz ü"],
        512.0,
        "float32",
        "eeg",
        np.arange(4.0).tobytes(),
        [],
        0.25,
        np.ones((4, 63), np.float32),
    ),
    Recorded(
        "s",
        ["Cz"],
        512.0,
        "float32",
        "markers",
        np.arange(2.0).tobytes(),
        ["Käse", ""],
        -3.5,
        np.empty(0),
    ),
    End("s", "finish", {"gaps": 2}),
    SessionClosed("s", {"top1": None, "dropped": {"gap": 1}, "versions": {"python": "3"}}),
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
    TrialSlice("s", 1, "a", "g", 2, 25, False, 0.5, 0.0, STAMPS, EEG[:, 25:50]),
    TrialSlice("s", 1, "a", "g", 2, 249, True, 0.5, 0.0, STAMPS, EEG[:, 249:]),
    replace(EXAMPLES[4], provisional=False, calibrated=True, abstain=False, rank=0),
]


@pytest.mark.parametrize("message", [*EXAMPLES, *MORE], ids=lambda message: type(message).__name__)
def test_every_message_comes_back_as_it_was(message):
    check_same(message, unpack(pack(message)))


def test_every_kind_of_message_has_an_example():
    assert {type(message) for message in EXAMPLES} == set(Message.__args__)


dtypes = st.sampled_from(["<f4", ">f4", "<f8", ">i2", "<i8", "u1", "?", "<c8"])
shapes = st.lists(st.integers(0, 5), min_size=1, max_size=4)


@given(dtypes, shapes, st.booleans(), st.text(max_size=20), st.floats(allow_nan=False))
def test_arrays_of_any_type_shape_and_order_come_back(dtype, shape, turned, text, onset_s):
    array = (np.arange(np.prod(shape)) - 3).reshape(shape).astype(dtype)
    array = array.T if turned else array
    message = TrialSlice(text, 1, text, "g", 1, 0, True, onset_s, 0.0, {text: onset_s}, array)
    check_same(message, unpack(pack(message)))


def test_nan_and_infinity_come_back_bit_for_bit():
    array = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    message = TrialSlice("s", 1, "a", "g", 1, 0, True, np.inf, 0.0, {}, array)
    assert unpack(pack(message)).array.tobytes() == array.tobytes()
    assert unpack(pack(message)).onset_s == np.inf


def test_an_array_that_was_received_is_a_view_and_cannot_be_written():
    frame = pack(EXAMPLES[1])
    array = unpack(frame).array
    assert np.shares_memory(array, np.frombuffer(frame, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_a_trial_costs_little_more_than_its_samples():
    assert len(pack(EXAMPLES[1])) < EEG.nbytes + 400


def test_a_slice_costs_little_more_than_its_samples():
    assert len(pack(MORE[0])) < 17 * 25 * 4 + 400


def test_an_answer_is_plain_json():
    told = json.loads(as_json(EXAMPLES[4]))
    assert told == {field.name: getattr(EXAMPLES[4], field.name) for field in fields(Retrieval)}


# --- what is no message --------------------------------------------------------------------------


def frame_of(header, body=b""):
    packed = msgpack.packb(header)
    return struct.pack("<I", len(packed)) + packed + body


def is_one_sentence(problem):
    text = str(problem)
    return len(text) < 600 and "\n" not in text and "; " in text


@pytest.mark.parametrize("version", [0, VERSION + 1, "1", None])
def test_another_version_is_named(version):
    frame = frame_of({"v": version, "kind": "End", "session": "s", "reason": "r", "facts": {}})
    with pytest.raises(Problem, match=f"format {version!r} arrived.*format {VERSION}") as caught:
        unpack(frame)
    assert is_one_sentence(caught.value)


TRIAL = {
    "v": VERSION,
    "kind": "Recorded",
    "session": "s",
    "stream": "eeg",
    "raw_s": b"",
    "texts": [],
    "offset_s": 0.0,
}


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0",
        struct.pack("<I", 2**32 - 1) + b"\xa1",
        frame_of({}),
        frame_of({"v": VERSION}),
        frame_of({"v": VERSION, "kind": "Pickle"}),
        frame_of({"v": VERSION, "kind": ["End"]}),
        frame_of({"v": VERSION, "kind": "End", "session": "s"}),
        frame_of({"v": VERSION, "kind": "End", "session": "s", "reason": "r", "more": 1}),
        frame_of(["v", VERSION]),
        frame_of(TRIAL | {"dtype": "<f4", "shape": [2**63]}, b"1234"),
        frame_of(TRIAL),
        frame_of(TRIAL | {"dtype": "<f4", "shape": [2]}, b"1234567"),
        frame_of(TRIAL | {"dtype": "<f4", "shape": [3]}, b"12345678"),
        frame_of(TRIAL | {"dtype": "O", "shape": [1]}, b"12345678"),
        frame_of(TRIAL | {"dtype": "nonsense", "shape": [1]}, b"12345678"),
        frame_of(TRIAL | {"dtype": "<f4"}, b"12345678"),
        frame_of(TRIAL | {"dtype": "<f4", "shape": "2"}, b"12345678"),
        pack(EXAMPLES[1])[:-1],
        pack(EXAMPLES[1]) + b"x",
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
@example(b"\x01\0\0\0\x80")
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
    message_or_problem(frame_of(TRIAL | {"dtype": dtype, "shape": shape}, body))


@settings(max_examples=200)
@given(anything, st.binary(max_size=8))
def test_any_header_is_borne(header, body):
    message_or_problem(frame_of(header, body))


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
    written = config(tmp_path, bundle="bundle", painting=painting)
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
    with pytest.raises(Problem, match=r"config.*cannot be used"):
        read_config(path)


def test_a_config_that_is_missing_is_a_problem(tmp_path):
    with pytest.raises(Problem, match="cannot be used"):
        read_config(tmp_path / "config.json")


def test_an_address_that_leaves_the_machine_is_refused():
    here = Endpoints.local().model_dump()
    with pytest.raises(ValueError, match="leaves this machine"):
        Endpoints(**(here | {"results": "tcp://0.0.0.0:5555"}))
