"""A marker means the stimulus, repeat and group that its text says, whatever form it has."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream.acquire.markers import Marker, MarkerReader, MarkerRule, marker_text
from stream.pipeline.wire.frames import pack, unpack
from stream.pipeline.wire.messages import MarkerSeen, TrialRef


def read_all(texts, stamps_s=None, **rule):
    reader = MarkerReader(MarkerRule(**rule))
    stamps_s = stamps_s or [50.0 + k for k in range(len(texts))]
    events = [
        reader.read(Marker(stamp_s, text, stamp_s + 0.01))
        for stamp_s, text in zip(stamps_s, texts, strict=True)
    ]
    return events, reader


def meaning(texts, **rule):
    """(stimulus, group, repeat) per text; None where it opens no trial."""
    events, reader = read_all(texts, **rule)
    assert reader.n_ignored == events.count(None)
    return [event and (event.stimulus, event.group, event.repeat) for event in events]


# --- the text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["stim/7"], "stim/7"),
        (["äöü 猫"], "äöü 猫"),
        (["äöü 猫".encode()], "äöü 猫"),
        (["Gerät".encode("cp1252")], "Gerät"),
        ([b"a\x00b\x81"], "a\x00b\ufffd"),
        (["\ud800!"], "\\ud800!"),
        ([np.int32(7)], "7"),
        ([np.int64(-7)], "-7"),
        ([np.float32(7)], "7"),
        ([2.0**53], str(2**53)),
        ([1.5], "1.5"),
        (["a", "猫"], '["a", "猫"]'),
        ([np.int16(1), np.int16(2)], "[1, 2]"),
        ([np.float64(1), "x", 2.5], '[1, "x", 2.5]'),
    ],
)
def test_columns_as_text(values, text):
    assert marker_text(values) == text


@given(st.lists(st.one_of(st.text(), st.integers(-(2**53), 2**53)), min_size=2, max_size=5))
def test_several_columns_come_back_from_their_text(values):
    assert json.loads(marker_text(values)) == values


# Texts that JSON, Python or the wire could stumble over.
HARD = [
    '{"stimulus": "\\ud800", "group": "\\udfff"}',
    '{"stimulus": "a", "repeat": 99999999999999999999999}',
    '{"stimulus": "a", "repeat": "%s"}' % ("9" * 5000),
    '{"stimulus": %s}' % ("9" * 5000),
    '{"stimulus": 1e999, "repeat": -1e999}',
    '{"stimulus": NaN, "repeat": Infinity}',
    '{"stimulus": {"a": ["\\ud800"]}}',
    "[" * 100_000,
    "x" * 1_000_000,
    "\x00",
]


@given(
    st.one_of(st.binary(min_size=1), st.text(st.characters(), min_size=1), st.sampled_from(HARD))
)
def test_any_marker_can_be_sent_on_and_harms_none_after_it(value):
    reader = MarkerReader(MarkerRule())
    text = marker_text([value])
    event = reader.read(Marker(1.0, text, 1.5))
    if event is not None:
        about = TrialRef(
            session="s",
            trial=1,
            stimulus=event.stimulus,
            group=event.group,
            repeat=event.repeat,
            onset_s=event.onset_s,
            block=event.block,
        )
        told = {name: getattr(event, name) for name in ("readable_s", "text", "sent_s", "mark")}
        message = MarkerSeen(about=about, **told)
        assert (message.text, message.sent_s) == (text, 1.0)
        assert unpack(pack(message)) == message
    after = reader.read(Marker(2.0, '{"stimulus": "next", "group": "its own"}', 2.0))
    assert (after.stimulus, after.group, after.repeat) == ("next", "its own", 1)


# --- what it means -------------------------------------------------------------------------------


@given(st.text().filter(lambda text: not text.lstrip().startswith("{")))
def test_without_a_rule_the_whole_text_is_the_stimulus(text):
    assert meaning([text]) == [(text, text, 1)]


def test_an_event_has_the_times_of_its_marker():
    ((event,), _) = read_all(["a"])
    assert (event.onset_s, event.readable_s, event.is_duplicate) == (50.0, 50.01, False)


def test_an_empty_text_is_a_stimulus_without_a_name():
    assert meaning(["", "a", ""]) == [("", "", 1), ("a", "a", 1), ("", "", 2)]


def test_a_json_object_gives_the_fields():
    texts = [
        '{"stimulus": "cat_01", "repeat": 3, "group": "cats"}',
        '  {"stimulus": "cat_02", "group": "cats", "more": [1, {"deep": null}]}',
        '{"stimulus": 17}',
        '{"stimulus": "dog", "repeat": "4"}',
        '{"stimulus": "dog", "repeat": "last"}',
        '{"stimulus": "dog", "repeat": null, "group": null}',
        '{"image": "dog"}',
    ]
    assert meaning(texts) == [
        ("cat_01", "cats", 3),
        ("cat_02", "cats", 2),
        ("17", "17", 1),
        ("dog", "dog", 4),
        ("dog", "dog", 2),
        ("dog", "dog", 3),
        None,
    ]


def test_json_fields_can_have_other_names():
    rule = {"id_field": "image", "repeat_field": "n", "group_field": "concept"}
    texts = ['{"image": "a", "n": 2, "concept": "c"}', '{"stimulus": "a"}']
    assert meaning(texts, **rule) == [("a", "c", 2), None]


def test_a_text_that_only_begins_like_json_is_a_text():
    assert meaning(["{cat"]) == [("{cat", "{cat", 1)]
    assert meaning(["{cat"], stimulus="^cat$") == [None]


def test_a_pattern_gives_its_groups():
    rule = r"^(?P<group>\w+)/(?P<id>\w+)(?:/(?P<repeat>\d+))?$"
    texts = ["cats/a/7", "cats/b", "dogs/c", "fixation", "cats/a/x"]
    expected = [("a", "cats", 7), ("b", "cats", 2), ("c", "dogs", 1), None, None]
    assert meaning(texts, stimulus=rule) == expected


def test_a_pattern_without_groups_gives_its_match():
    assert meaning(["stim 0042 on", "rest"], stimulus=r"\d+") == [("0042", "0042", 1), None]


@pytest.mark.parametrize("value", ["0", 0])
def test_a_group_and_a_repeat_may_be_zero(value):
    text = json.dumps({"stimulus": "a", "group": value, "repeat": value})
    assert meaning([text]) == [("a", "0", 0)]


@pytest.mark.parametrize(
    ("text", "rule"), [('{"stimulus": null}', {}), ("stim/", {"stimulus": r"^stim/(?P<id>\d+)?"})]
)
def test_no_stimulus_opens_no_trial(text, rule):
    assert meaning([text], **rule) == [None]


def test_integer_markers_are_read_by_patterns():
    texts = [marker_text([code]) for code in np.array([1, 42, 200, 42], np.int32)]
    rule = {"stimulus": r"^\d{2}$", "stop": "^200$"}
    assert meaning(texts, **rule) == [None, ("42", "42", 1), None, None]


@pytest.mark.parametrize(
    ("column", "expected"), [(0, "start"), (1, "cat"), (2, "7"), (-1, "7"), (-2, "cat")]
)
def test_one_column_of_several(column, expected):
    text = marker_text(["start", "cat", 7.0])
    assert meaning([text], column=column) == [(expected, expected, 1)]


def test_a_column_may_hold_a_json_object():
    text = marker_text(["x", '{"stimulus": "a", "repeat": 2}'])
    assert meaning([text], column=1) == [("a", "a", 2)]


def test_without_a_column_all_columns_are_the_text():
    assert meaning([marker_text(["x", "y"])]) == [('["x", "y"]', '["x", "y"]', 1)]


def test_the_column_of_a_stream_with_only_one_is_that_one():
    assert meaning(["cat", "5"], column=0) == [("cat", "cat", 1), ("5", "5", 1)]


# --- which count ---------------------------------------------------------------------------------


def test_what_is_ignored_opens_no_trial_and_is_counted():
    events, reader = read_all(["a", "response/1", "a", "fix"], ignore="^response|fix")
    assert [event and event.repeat for event in events] == [1, None, 2, None]
    assert reader.n_ignored == 2


def test_trials_open_between_start_and_stop_only():
    texts = [
        "a",
        "block/start",
        "a",
        "b",
        "block/stop",
        "a",
        "block/start",
        "a",
        "block/start",
        "b",
    ]
    events, reader = read_all(texts, start="/start$", stop="/stop$")
    opened = [(k, event.stimulus, event.repeat) for k, event in enumerate(events) if event]
    assert opened == [(2, "a", 1), (3, "b", 1), (7, "a", 2), (9, "b", 2)]
    assert reader.n_ignored == 6


def test_without_a_start_trials_open_until_the_stop():
    assert meaning(["a", "stop", "b"], stop="stop") == [("a", "a", 1), None, None]


def test_start_and_stop_are_found_in_json_too():
    texts = ['{"event": "go"}', '{"stimulus": "a"}', '{"event": "end"}', '{"stimulus": "a"}']
    expected = [None, ("a", "a", 1), None, None]
    assert meaning(texts, start='"go"', stop='"end"') == expected


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=40))
def test_presentations_are_counted_by_group(shown):
    texts = [json.dumps({"stimulus": stimulus, "group": group}) for stimulus, group in shown]
    presented = Counter()
    for told, (stimulus, group) in zip(meaning(texts), shown, strict=True):
        presented[group] += 1
        assert told == (stimulus, group, presented[group])


def test_a_marker_that_comes_twice_with_one_stamp_is_a_duplicate_and_no_repeat():
    events, reader = read_all(["a", "a", "b", "a", "a"], [50.0, 50.0, 50.0, 50.5, 50.0])
    assert [event.is_duplicate for event in events] == [False, True, False, False, True]
    assert [event.repeat for event in events] == [1, 1, 1, 2, 2]
    assert reader.n_ignored == 0


def test_duplicates_are_told_by_stimulus_not_by_text():
    texts = ['{"stimulus": "a"}', '{"stimulus": "a", "sent": 2}', "a"]
    events, _ = read_all(texts, [50.0] * 3)
    assert [event.is_duplicate for event in events] == [False, True, True]


def test_what_was_ignored_before_the_start_is_no_twin():
    events, _ = read_all(["a", "go", "a"], [50.0, 51.0, 50.0], start="go")
    assert events[2].is_duplicate is False


def test_duplicates_are_found_among_many():
    stamps_s = [50 + k / 10 for k in range(500)]
    events, _ = read_all(["a"] * 1000, stamps_s * 2)
    assert [event.is_duplicate for event in events] == [False] * 500 + [True] * 500


@pytest.mark.parametrize("field", ["stimulus", "ignore", "start", "stop"])
def test_a_pattern_that_is_none_is_a_problem(field):
    with pytest.raises(
        Problem, match=r"the marker pattern '\(' is no regular expression"
    ) as caught:
        MarkerRule(**{field: "("})
    assert "\n" not in str(caught.value)


def test_a_field_that_rules_do_not_have_is_refused():
    with pytest.raises(ValueError, match="validation error"):
        MarkerRule(pattern="a")


# --- tables of codes, and what is no stimulus by default -----------------------------------------


def table(tmp_path, text, encoding="utf-8"):
    (tmp_path / "codes.csv").write_text(text, encoding=encoding)
    return tmp_path / "codes.csv"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_gives_the_ids_of_codes_and_texts(tmp_path, separator, encoding):
    rows = [("Code", "label", "ID"), ("S  1", "x", "cat_01b"), ("12", "y", "größe")]
    rows += [("face", "", "face_02"), ("", "", ""), ("Comment/pause", "", "pause_img")]
    codes = table(tmp_path, "\r\n".join(separator.join(row) for row in rows), encoding)
    texts = ["1", "S  1", "Stimulus/S  1", "001", "S 12", "face", "13", "pause", '{"stimulus": 12}']
    expected = ["cat_01b"] * 4 + ["größe", "face_02", None, "pause_img", "größe"]
    assert [one and one[0] for one in meaning(texts, codes=codes)] == expected
    named = meaning(
        ["img-12-r3", "img-13-r1"], codes=codes, stimulus=r"-(?P<id>\d+)-r(?P<repeat>.)"
    )
    assert named == [("größe", "größe", 3), None]


def test_names_come_in_one_form_of_unicode_whoever_sends_them(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    texts = [composed, apart, json.dumps({"stimulus": apart, "group": apart})]
    assert [one[:2] for one in meaning(texts)] == [(composed, composed)] * 3
    codes = table(tmp_path, f"code,id\n1,{apart}\n{apart},{composed}\n")
    assert [one[0] for one in meaning(["1", *texts], codes=codes)] == [composed] * 4


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1,cat\n", "begins with '1,cat', expected the names of its columns"),
        ("", "begins with ''"),
        ("code,id\n1,cat\nS  1,dog\n", "'S  1' of the id 'dog' with no id, or with two"),
        ("code,id\n1,\n", "with no id"),
        ("id,code\ncat\n", "the code '' of the id 'cat'"),
    ],
)
def test_a_table_that_says_nothing_is_refused(tmp_path, text, what):
    with pytest.raises(Problem, match=what):
        MarkerRule(codes=table(tmp_path, text))
    with pytest.raises(Problem, match=r"nowhere\.csv' cannot be read"):
        MarkerRule(codes=tmp_path / "nowhere.csv")


def test_responses_and_segments_are_no_stimuli_unless_they_are_asked_for():
    texts = ["Response/R  1", "New Segment/", "SyncStatus/Sync On", "Stimulus/S  1", "response"]
    assert [one and one[0] for one in meaning(texts)] == [None] * 3 + texts[3:]
    (asked,) = meaning(texts[:1], stimulus=r"^Response/R +(?P<id>\d+)$")
    assert asked == ("1", "1", 1)


@given(st.lists(st.sampled_from(["a", "b", "next block"]), max_size=30))
def test_a_block_begins_with_its_marker_and_presentations_are_counted_anew(texts):
    events, _ = read_all(texts, reset="block$")
    block, seen = 0, Counter()
    for text, event in zip(texts, events, strict=True):
        if text == "next block":
            assert event is None
            block, seen = block + 1, Counter()
        else:
            seen[text] += 1
            assert (event.block, event.stimulus, event.repeat) == (block, text, seen[text])


def test_a_marker_that_comes_twice_begins_one_block():
    events, reader = read_all(["x", "a", "x", "a", "x"], [1.0, 2.0, 3.0, 4.0, 3.0], reset="x")
    assert [event and event.block for event in events] == [None, 1, None, 2, None]
    assert reader.block == 2
