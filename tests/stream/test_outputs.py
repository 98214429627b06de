"""What goes out of a session: once for each end of a marker, as docs/results.md has it."""

import json
import math
import re
import socket
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvf_core.problem import WrongUsage
from index.gallery import save_gallery
from stream.acquire.markers import MarkerRule
from stream.pipeline.books.ledger import FACTS, read_ledger
from stream.pipeline.books.standing import Standing
from stream.pipeline.outputs.blind import INSIDE, LEFT, NOTE, RECORDS, left, record_left
from stream.pipeline.outputs.datagrams import Datagrams, as_lines, osc_encoder
from stream.pipeline.outputs.feed import Feed, Outputs, Way
from stream.pipeline.outputs.lsl import COLUMNS, as_marker, as_numbers, as_text
from stream.pipeline.outputs.settings import OutputSettings, parts_of
from stream.pipeline.outputs.story import ENDS, Story, Told
from stream.pipeline.wire.config import NUMBERS, Endpoints, LiveSource, SessionConfig
from stream.pipeline.wire.flat import types_of
from stream.pipeline.wire.frames import KINDS, pack, unpack_numbered
from stream.pipeline.wire.messages import Controlled, Eeg, Message, Noted, Snapshot, TrialRef
from tests.sessions import ROOT
from tests.stream.test_messages import EXAMPLES
from tests.toy_decoder import GALLERY, NAMES

DOCS = (ROOT / "docs/results.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SessionConfig:
    folder = tmp_path_factory.mktemp("outputs")
    save_gallery(folder / "gallery", GALLERY)
    return SessionConfig(
        session="20261126-101500-ab12",
        folder=folder,
        endpoints=Endpoints(**dict.fromkeys(Endpoints.model_fields, "ipc:///x")),
        source=LiveSource(eeg="eeg", markers="markers"),
        gallery=folder / "gallery",
    )


def blinded(config: SessionConfig) -> SessionConfig:
    return config.model_copy(update={"outputs": OutputSettings(blind=True)})


def marker(trial: int, **more: Any) -> dict[str, Any]:
    told = {"trial": trial, "stimulus": NAMES[1], "group": "g", "repeat": 2, "block": 1}
    stamps = {"onset_s": 5.5, "readable_s": 5.51, "sent_s": 1005.5}
    return {"event": "marker", "text": f"stim/{NAMES[1]}", "mark": "c0de"} | told | stamps | more


def answer(trial: int, event: str = "decoded", **more: Any) -> dict[str, Any]:
    number = {"trial" if event == "decoded" else "of_trial": trial}
    told = {"ids": [NAMES[3], NAMES[1]], "scores": [0.9, 0.5], "probabilities": [0.75, 0.125]}
    told |= {"calibrated": True, "abstain": False, "rank": 2, "n_repeats": 3, "tmax_s": 0.25}
    stamps = {"stamps": {"window_end": 5.75, "published": 5.7525}, "stimulus": NAMES[1]}
    return {"event": event} | number | told | stamps | more


def dropped(trial: int) -> dict[str, Any]:
    return {"event": "dropped", "trial": trial, "reason": "gap", "detail": "samples are missing"}


def story_of(config: SessionConfig, *records: Mapping[str, Any]) -> list[Told]:
    story = Story(config)
    return [told for record in records for told in story.told(7.0, dict(record))]


# --- the messages --------------------------------------------------------------------------------


def test_an_answer_echoes_its_marker_in_both_clocks_and_says_what_the_docs_say(config) -> None:
    early, told = story_of(config, marker(4), answer(4, "provisional"), answer(4))
    assert (early["event"], early["provisional"], early["n"]) == ("provisional", True, 1)
    assert (told["event"], told["provisional"], told["n"]) == ("decoded", False, 2)
    assert told["marker"] == f"stim/{NAMES[1]}"
    assert (told["sent_s"], told["onset_s"], told["at_s"]) == (1005.5, 5.5, 7.0)
    assert (told["ids"], told["labels"], told["numbers"]) == ([NAMES[3], NAMES[1]],) * 2 + ([4, 2],)
    assert (told["confidence"], told["rank"], told["block"]) == (0.75, 2, 1)
    assert told["latency_ms"] == pytest.approx(2.5)
    names = {name for line in DOCS.splitlines() for name in re.findall(r"^\| (`.*?) \|", line)}
    assert set(told) <= set(re.findall(r"`(\w+)`", " ".join(names)))


def test_every_way_to_end_and_what_happens_to_the_session_is_a_message(config) -> None:
    stream = {"event": "stream", "name": "EEG", "age_s": 5.0}
    told = story_of(
        config,
        {"event": "start"},
        {"event": "session", "state": "running"},
        stream | {"state": "streaming"},
        marker(1),
        stream | {"state": "stalled"},
        stream | {"state": "lost"},
        stream | {"state": "lost"},  # as another reader finds it
        stream | {"state": "waiting"},
        dropped(1),
        stream | {"state": "recovered"},
        stream | {"state": "streaming"},
        {"event": "session", "state": "paused"},
        {"event": "session", "state": "running"},
        marker(2),
        {"event": "cut", "trial": 2, "residual_s": 1e-4, "stamps": {"window_end": 1.0}},
        {"event": "unheard", "from_s": 1.0, "until_s": 2.0},
        {"event": "session", "state": "finishing"},
        {"event": "end", "reason": "finish"},
    )
    events = ["ready", "lost", "dropped", "back", "paused", "ready", "cut", "unheard", "ended"]
    assert [one["event"] for one in told] == events
    assert [one["n"] for one in told] == list(range(1, 10))
    assert (told[2]["reason"], told[2]["detail"]) == ("gap", "samples are missing")
    table = DOCS[DOCS.index("| `event` | when |") :].partition("\n\n")[0].splitlines()[2:]
    listed = {name for row in table for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert {*events, *ENDS, "hello", "provisional"} == listed


def test_a_provisional_answer_waits_for_its_marker(config) -> None:
    told = story_of(config, answer(1, "provisional"), marker(1), answer(1))
    assert [(one["event"], one["marker"]) for one in told] == [
        ("provisional", f"stim/{NAMES[1]}"),
        ("decoded", f"stim/{NAMES[1]}"),
    ]


def test_an_end_whose_marker_is_damaged_in_the_ledger_is_an_end(config) -> None:
    (told,) = story_of(config, dropped(9))
    assert (told["trial"], told["marker"], told["sent_s"]) == (9, None, None)


def test_whatever_a_damaged_ledger_still_holds_can_be_told(config, tmp_path) -> None:
    """A line without any one fact is left out by the ledger, or makes messages that can be sent."""
    stream = {"event": "stream", "name": "EEG", "state": "lost", "age_s": 5.0}
    session = {"event": "session", "state": "running"}
    end = {"event": "end", "reason": "stop"}
    records = [session, stream, marker(1), answer(1, "provisional"), answer(1), marker(2)]
    records += [dropped(2), stream | {"state": "streaming"}, end]
    n_told = set()
    for place, record in enumerate(records):
        for fact in [*record, *record.get("stamps", ())]:
            damaged = json.loads(json.dumps(record))
            damaged.get("stamps", {}).pop(fact, None)
            damaged.pop(fact, None)
            lines = [*records[:place], damaged, *records[place + 1 :]]
            path = tmp_path / "ledger.jsonl"
            path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            told = story_of(config, *read_ledger(path))
            n_told.add(len([as_text(one) and as_numbers(one) for one in told]))
    assert max(n_told) == 7


def test_numbers_are_those_of_the_gallery_that_answers_are_from(config, tmp_path) -> None:
    turned = replace(GALLERY, ids=NAMES[::-1], labels=NAMES[::-1])
    save_gallery(tmp_path / "other", turned)
    order = {"event": "control", "outcome": "done", "verb": "gallery"}
    order["argument"] = str(tmp_path / "other")
    _, told = story_of(config, marker(1), answer(1), order, marker(2), answer(2))
    assert told["numbers"] == [1, 3]


def test_hello_says_where_a_session_is(config) -> None:
    story = Story(config)
    assert story.hello(1.0)["state"] == "starting"
    for state, said in (("running", "ready"), ("paused", "paused"), ("stopping", "ending")):
        list(story.told(2.0, {"event": "session", "state": state}))
        assert (story.hello(3.0)["state"], story.is_over) == (said, False)
    assert story.hello(3.0)["n"] == 2
    list(story.told(2.0, {"event": "end", "reason": "stop"}))
    assert story.is_over


# --- each of the streams -------------------------------------------------------------------------


def test_numbers_have_the_columns_of_the_docs(config) -> None:
    table = re.findall(r"^\| `(\w+)` \| (\w*) *\| ", DOCS[DOCS.index("| column |") :], re.M)
    assert list(COLUMNS.items()) == table
    told = story_of(config, marker(1), answer(1, "provisional"), answer(1), marker(2), dropped(2))
    rows = [dict(zip(COLUMNS, as_numbers(one) or (), strict=True)) for one in told]
    nan = math.nan
    decoded = dict(zip(COLUMNS, (1, 4, 0.75, 2, 3, 0.25, 0, 0, 2.5, 0), strict=True))
    assert rows[1] == pytest.approx(decoded)
    assert rows[0] == pytest.approx(decoded | {"provisional": 1})
    lost = dict(zip(COLUMNS, (2, nan, nan, nan, nan, nan, 0, 1, nan, 0), strict=True))
    assert rows[2] == pytest.approx(lost, nan_ok=True)


@given(st.integers(1, 2**24), st.integers(0, 2**24))
def test_a_trials_number_survives_float32_by_its_series(number, series) -> None:
    trial = series * NUMBERS + number
    told = {"event": "dropped", "trial": trial}
    kept = dict(zip(COLUMNS, np.array(as_numbers(told), np.float32).tolist(), strict=True))
    assert int(kept["series"]) * NUMBERS + int(kept["trial"]) == trial


def test_markers_are_places_in_the_gallery_and_0_for_no_answer(config) -> None:
    told = story_of(
        config,
        *(marker(1), answer(1, "provisional"), answer(1)),
        *(marker(2), answer(2, abstain=True)),
        *(marker(3), dropped(3), {"event": "end", "reason": "finish"}),
    )
    assert [as_marker(one) for one in told] == [None, [4], [0], [0], None]


def test_json_has_no_number_that_json_has_not(config) -> None:
    (told,) = story_of(config, marker(1, sent_s=None), dropped(1))
    assert json.loads(as_text(told)[0])["sent_s"] is None


class Receiver:
    """A socket that hears datagrams."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(60)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def take(self, n: int) -> list[bytes]:
        return [self._socket.recv(10_000) for _ in range(n)]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as one:
        yield one


def test_udp_lines_are_names_and_whole_numbers_the_trial_last(config, receiver) -> None:
    sends = Datagrams("udp", receiver.address, as_lines, pytest.fail)
    running = {"event": "session", "state": "running"}
    for told in story_of(config, running, marker(1), answer(1), marker(2), dropped(2)):
        sends.tell(told)
    lines = [datagram.decode() for datagram in receiver.take(9)]
    assert all(re.fullmatch(r"[A-Z]\w+ \d+\n", line) for line in lines)  # as BCI2000 reads them
    assert "".join(lines).split("\n") == [
        *("Decoding 1", "ResultCode 4", "ResultPercent 75", "Repeats 3", "Trial 1"),
        *("ResultCode 0", "ResultPercent 0", "Repeats 0", "Trial 2", ""),
    ]


def test_osc_messages_are_read_by_python_osc(config, receiver) -> None:
    message = pytest.importorskip("pythonosc.osc_message").OscMessage
    sends = Datagrams("osc", receiver.address, osc_encoder(), pytest.fail)
    running, end = {"event": "session", "state": "running"}, {"event": "end", "reason": "stop"}
    for told in story_of(config, running, marker(1), answer(1), marker(2), dropped(2), end):
        sends.tell(told)
    told = [message(datagram) for datagram in receiver.take(4)]
    assert [one.address for one in told] == [
        f"/hvf-live/{event}" for event in ("ready", "decoded", "dropped", "ended")
    ]
    assert told[1].params == [1, 4, NAMES[3], 0.75, 3, 0.25, 0]
    assert told[2].params == [2, "gap"]
    assert told[3].params == [config.session, "stop"]


def test_an_address_that_nobody_can_send_to_is_one_sentence(config) -> None:
    said: list[str] = []
    sends = Datagrams("udp", "no.such.host.invalid:5000", as_lines, said.append)
    for told in story_of(config, *(one for n in range(9) for one in (marker(n), dropped(n)))):
        sends.tell(told)
    (sentence,) = said
    assert sentence.startswith("nothing can be sent to --udp no.such.host.invalid:5000 (")


@pytest.mark.parametrize("address", ["", "host", "host:", ":5000", "host:0", "host:65536", "h:x"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(WrongUsage, match="HOST:PORT"):
        OutputSettings(udp=address)


def test_an_ipv6_address_is_in_brackets() -> None:
    assert parts_of("[::1]:5000") == ("::1", 5000)


# --- who dies ------------------------------------------------------------------------------------


class Heard:
    """An output that keeps what it is told, while somebody listens."""

    name = "heard"

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.is_heard = True

    def tell(self, told: Told) -> None:
        if self.is_heard:
            self.told.append(told)

    @property
    def numbers(self) -> list[int]:
        return [one["n"] for one in self.told if one["event"] != "hello"]


def test_a_node_that_was_started_again_waits_until_somebody_listens_again(config, tmp_path) -> None:
    records = [one for n in range(1, 9) for one in (marker(n), dropped(n))]
    heard, path = Heard(), tmp_path / "kept" / "told"

    def fed(records, now_s: float) -> Feed:
        feed = Feed(Story(config), [Way(heard, path, now_s)])
        for record in records:
            feed.take(now_s, record, now_s)
        return feed

    fed(records[:8], 100.0)
    assert heard.numbers == [1, 2, 3, 4]
    heard.is_heard = False
    again = fed(records[:12], 200.0)
    again.look(203.0)
    heard.is_heard = True
    again.look(204.0)
    again.look(204.9)  # others are on their way
    assert heard.numbers == [1, 2, 3, 4]
    again.look(205.1)
    assert heard.numbers == [1, 2, 3, 4, 5, 6]
    heard.is_heard = False
    again = fed(records, 300.0)
    again.look(314.9)
    assert again.waits
    again.look(315.1)  # nobody will
    assert not again.waits


def test_what_a_lost_node_has_entered_does_not_wait_in_memory(config, tmp_path) -> None:
    asked = OutputSettings(lsl=False, udp="127.0.0.1:9")
    config = config.model_copy(update={"folder": tmp_path, "outputs": asked})
    (told := config.kept("told-udp")).parent.mkdir()
    told.write_bytes(b"%-20d" % 3000)
    peaks = []
    for n_trials in (30, 3000):  # as the ledger gives them, one by one
        with closing(Outputs(config)) as outputs:
            tracemalloc.start()
            for n in range(1, n_trials + 1):
                outputs.entered(marker(n))
                outputs.entered(dropped(n))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            outputs.begin()
    assert peaks[1] < 1.5 * peaks[0]


def test_hello_comes_in_its_place_every_two_seconds_until_the_end(config, tmp_path) -> None:
    heard = Heard()
    feed = Feed(Story(config), [Way(heard, tmp_path / "told", 0.0)])
    for n in range(50):
        feed.look(n / 10)
    assert [one["at_s"] for one in heard.told] == pytest.approx([0.0, 2.0, 4.0])
    feed.take(5.0, {"event": "end", "reason": "finish"}, 5.0)
    feed.look(9.0)
    assert heard.told[-1]["event"] == "ended"


# --- blind ---------------------------------------------------------------------------------------

SECRET = "zebra-of-the-truth"
PUBLISHED = [one for one in EXAMPLES if not isinstance(one, (*INSIDE, Snapshot))]


def test_of_every_message_and_record_it_is_said_what_is_left() -> None:
    assert {*LEFT, *INSIDE} == set(KINDS.values())
    for kind, names in LEFT.items():
        assert set(names.split()) <= {one.name for one in fields(kind)}, kind
    assert RECORDS.keys() == FACTS.keys()
    for event, names in RECORDS.items():
        assert set(names.split()) <= FACTS[event], event


def secretly(message: Message) -> Message:
    """The same, with the truth in every text that may hold it."""
    about = getattr(message, "about", None)
    changes: dict[str, Any] = {}
    if about is not None:
        changes["about"] = replace(about, stimulus=SECRET, group=SECRET)
    for name in ("text", "mark", "detail"):
        if hasattr(message, name) and not isinstance(message, Controlled):
            changes[name] = SECRET
    if isinstance(message, Eeg):
        changes["markers"] = [SECRET for _ in message.markers]
    return replace(message, **changes)


@pytest.mark.parametrize("message", PUBLISHED, ids=lambda one: type(one).__name__)
def test_no_message_has_the_truth_and_each_is_one_still(message: Message) -> None:
    frame = pack(left(secretly(message)))
    assert SECRET.encode() not in frame
    assert type(left(message)) is type(message)
    told = vars(left(message))
    assert told.keys() == vars(message).keys()
    if "about" in told:
        before = vars(message)["about"]
        kept = (told["about"].trial, told["about"].onset_s, told["about"].session)
        assert kept == (before.trial, before.onset_s, before.session)
    assert told.get("rank", 0) == 0


def test_a_snapshot_has_the_truth_in_no_message_record_or_setting(config) -> None:
    rule = MarkerRule(stimulus=f"(?P<id>{SECRET})", reset=SECRET)
    config = blinded(config).model_copy(update={"marker_rule": rule})
    standing = Standing()
    for seq, message in enumerate(PUBLISHED):
        standing.published(seq, left(secretly(message)))
    for record in (marker(1), answer(1, stimulus=SECRET), dropped(2) | {"detail": SECRET}):
        standing.entered(record)
    told = SimpleNamespace(markers=2, pending=(), outcomes={}, reasons={})
    snapshot = standing.snapshot(config, told)
    frame = pack(left(snapshot))
    assert SECRET.encode() in pack(snapshot)  # of the settings and the records
    assert SECRET.encode() not in frame
    last = [unpack_numbered(one)[1] for one in left(snapshot).last]
    assert [type(one) for one in last] == [type(one) for one in PUBLISHED]
    assert [record["trial"] for record in left(snapshot).trials] == [1, 2]


def test_what_is_new_in_a_message_stays_inside_until_somebody_says_otherwise() -> None:
    names = set(types_of(TrialRef))
    assert names - {"session", "trial", "repeat", "onset_s", "block"} == {"stimulus", "group"}


@pytest.mark.parametrize("message", [one for one in EXAMPLES if isinstance(one, INSIDE)])
def test_what_is_for_one_process_alone_never_goes_out(message: Message) -> None:
    with pytest.raises(KeyError):
        left(message)


def test_nodes_that_quote_no_marker_are_heard() -> None:
    told = {
        node: left(Noted(node=node, text="x", facts={"a": 1})) for node in ("results", "reader")
    }
    assert [(one.text, one.facts) for one in told.values()] == [("x", {}), (NOTE, {})]


def test_words_of_whoever_knows_are_not_told_and_other_orders_are() -> None:
    (order,) = (one for one in EXAMPLES if isinstance(one, Controlled))
    assert left(order) == order
    for verb in ("mark", "reset_group"):
        hidden = left(replace(order, verb=verb, argument=SECRET, text=f"of '{SECRET}'"))
        assert (hidden.verb, hidden.argument, hidden.text) == (verb, "", "")


def test_a_blind_story_has_trials_stamps_and_answers_and_no_truth(config) -> None:
    records = [
        marker(1, text=SECRET, stimulus=SECRET, group=SECRET, mark=SECRET),
        answer(1, "provisional", stimulus=SECRET),
        answer(1, stimulus=SECRET),
        marker(2, text=SECRET, stimulus=SECRET, group=SECRET),
        dropped(2) | {"detail": f"'{SECRET}'"},
    ]
    openly, told = story_of(config, *records), story_of(blinded(config), *records)
    text = "".join(as_text(one)[0] for one in told)
    assert SECRET in "".join(as_text(one)[0] for one in openly)
    assert SECRET not in text
    assert [(one["event"], one["trial"], one["sent_s"], one["onset_s"]) for one in told] == [
        (one["event"], one["trial"], one["sent_s"], one["onset_s"]) for one in openly
    ]
    assert [one.get("rank") for one in told] == [None] * 3
    assert (told[1]["ids"], told[1]["numbers"]) == (openly[1]["ids"], openly[1]["numbers"])
    assert math.isnan((as_numbers(told[1]) or [])[list(COLUMNS).index("rank")])
    for record in records:
        assert SECRET not in json.dumps(record_left(record))
