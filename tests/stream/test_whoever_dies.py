"""Reader, decoder and results node die, hang and are late in any order: every marker ends once.

The real outbox, decoder, results node, ledger and witness, between sockets that lose what real ones
lose: of a receiver that dies what it had not taken, of a sender what it had not handed over.
"""

import json
from collections import Counter, defaultdict, deque
from contextlib import suppress
from random import Random

import numpy as np
import pytest
import zmq

from stream.acquire.chunk import Chunk
from stream.acquire.markers import Marker, MarkerReader, MarkerRule
from stream.pipeline.books.ledger import Ledger, read_ledger, told
from stream.pipeline.nodes import results as results_node
from stream.pipeline.nodes.decode import Decoder
from stream.pipeline.nodes.results import Results
from stream.pipeline.nodes.second_inlet import BothWays
from stream.pipeline.outputs.feed import Feed, Way
from stream.pipeline.outputs.lsl import as_text
from stream.pipeline.outputs.story import ENDS, Story
from stream.pipeline.wire.bus import try_send
from stream.pipeline.wire.config import (
    NUMBERS,
    RESERVED,
    Endpoints,
    LiveSource,
    SessionConfig,
    TrialSettings,
)
from stream.pipeline.wire.frames import pack, unpack
from stream.pipeline.wire.messages import (
    End,
    MarkerSeen,
    NodeState,
    SessionClosed,
    Settled,
    Snapshot,
    TrialDropped,
    TrialRef,
    TrialSlice,
)
from stream.pipeline.wire.outbox import Outbox
from stream.pipeline.witness import Announced, Numbers, Parting, last_number
from tests.refs import about, overheard
from tests.toy_decoder import EMBEDDINGS, GALLERY, N_SLICES, NAMES, live_decoder

N_RUNS, N_STEPS = 500, 150


class Killed(BaseException):
    """What sends was killed when something was sent, and before it could write that down."""


class Link:
    """A socket that sends to a node: what was handed over already, and what waits at the sender."""

    def __init__(self, room=10**9):
        self.room, self.waiting, self.there = room, [], []

    def send(self, frame, flags):
        assert flags == zmq.NOBLOCK
        if len(self.waiting) >= self.room:
            raise zmq.Again
        self.waiting.append(frame)

    def move(self, n):
        self.there += self.waiting[:n]
        del self.waiting[:n]

    def take(self):
        self.move(1)
        return unpack(self.there.pop(0))

    def __len__(self):
        return len(self.there) + len(self.waiting)


class Reader:
    """Opens a trial for each marker, and cuts it slice by slice."""

    def __init__(self, world, first, incarnation):
        self.world, self.first, self.number, self.incarnation = world, first, first, incarnation
        self.numbers = Numbers(world.config.kept("numbers"))
        self.announced = Announced(world.config.kept(incarnation))
        world.files.append(self.announced._file)
        self.since_s, self.until_s = world.now_s, 0.0
        self.reports, self.trials = Link(world.random.choice([2, 10**9])), Link(room=0)
        self.outbox = Outbox(self.reports, self.trials, max_unanswered=4)
        self.heard, self.late, self.overheard, self.bus = [], [], [], []
        self.ways = BothWays(self.handed_on, self.since_s, lambda: world.now_s)
        self.reads = MarkerReader(MarkerRule())
        self.open = {}  # slices that were cut, by trial
        self.next_alive_s = 0.0
        self.say_alive()

    def say_alive(self):
        alive = NodeState(
            node="reader",
            incarnation=self.incarnation,
            since_s=self.since_s,
            until_s=self.until_s,
            to=self.outbox.has_told,
            first=self.first,
        )
        try_send(self.reports, pack(alive))

    def step(self):
        for marker in [one for one in self.late if one.readable_s <= self.world.now_s]:
            self.late.remove(marker)
            for one in self.ways.own(chunk(marker)):
                self.hear(one)
        for others in self.ways.second():
            self.hear(others)
        if self.heard:
            self.announce(self.reads.read(self.heard.pop(0)))
        elif self.open:
            self.cut(self.world.random.choice(list(self.open)))
        if not self.heard:
            self.until_s = min(self.world.now_s, self.ways.waits_since_s)
        self.listen()

    def handed_on(self):
        handed_on, self.overheard = self.overheard, []
        return handed_on

    def hear(self, chunk):
        for raw_s, (name,) in zip(chunk.raw_s, chunk.samples, strict=True):
            self.heard.append(Marker(float(raw_s), name, chunk.readable_s))

    def listen(self):
        while self.bus:
            message = self.bus.pop(0)
            if isinstance(message, Settled):
                self.outbox.on_settled(message)
            elif isinstance(message, NodeState):
                self.outbox.on_node_state(message)
        self.outbox.flush()
        if self.world.now_s > self.next_alive_s:
            self.next_alive_s = self.world.now_s + 1.0
            self.say_alive()

    def announce(self, event):
        fields = ("stimulus", "group", "repeat", "onset_s")
        shown = {name: getattr(event, name) for name in fields}
        ref = TrialRef(session="s", trial=self.number, **shown)
        self.numbers.give(self.number)
        sent = {"text": event.text, "sent_s": event.sent_s, "mark": event.mark}
        told = MarkerSeen(about=ref, readable_s=self.world.now_s, **sent)
        self.announced.keep(told)
        self.outbox.announce(told)
        if event.is_duplicate:
            self.drop(self.number, "duplicate")
        else:
            self.open[self.number] = (ref, 0)
        self.number += 1

    def drop(self, trial, reason):
        self.open.pop(trial, None)
        self.outbox.report(TrialDropped(trial=trial, reason=reason, detail=""))

    def cut(self, trial):
        ref, first = self.open.pop(trial)
        if self.world.random.random() < 0.05:
            self.drop(trial, "gap")
            return
        if not (final := first == N_SLICES - 1):
            self.open[trial] = (ref, first + 1)
        noise = np.random.default_rng(round(ref.onset_s * 1e6)).normal(0, 0.2, (N_SLICES, 2, 1))
        seen = EMBEDDINGS[NAMES.index(ref.stimulus)][:, None] + noise[first]
        facts = {"about": ref, "residual_s": 0.0, "stamps": {"window_end": 0.0}}
        array = seen.astype(np.float32)
        self.outbox.send_slice(
            TrialSlice(**facts, first=first, corrects=0, final=final, array=array)
        )


def chunk(marker):
    return Chunk(
        np.array([marker.raw_s]), np.array([[marker.text]], object), 0.0, marker.readable_s
    )


class Bus:
    """To the reader, once it has joined; what came before it has not heard."""

    def __init__(self, world):
        self.world, self.seq, self.has_joined = world, 0, False
        self.last = deque(maxlen=2)

    def publish(self, message):
        self.last.append(type(message))
        if self.has_joined:
            self.world.reader_bus(message)


class World:
    """A session in virtual time. Everything in it is drawn.

    Where the second inlet `hands_on` what it hears, the reader's own misses a marker now and then.
    """

    def __init__(self, folder, seed, n_steps=N_STEPS, hands_on=False):
        self.random, self.chance = Random(seed), Random(seed)
        self.hands_on = hands_on
        self.folder = folder / str(seed)
        self.folder.mkdir()
        self.config = SessionConfig(
            session="s",
            folder=self.folder,
            endpoints=Endpoints(**dict.fromkeys(Endpoints.model_fields, "ipc:///x")),
            source=LiveSource(eeg="eeg", markers="markers"),
            trials=TrialSettings(max_unanswered=4),
        )
        self.now_s = 100.0
        self.lives = Counter()
        self.sent = []  # when it came to the first and the last who listened, its stamp, its text
        self.told = []  # what went out
        self.given = []  # answers that the decoder gave out itself, and which decoder it was
        self.is_killed = False  # in the middle of telling
        self.links = []  # to the results node
        self.files = []  # of readers, whose ends would close them
        self.reader = self.decoder = self.results = None
        for start in (self.start_results, self.start_decoder, self.start_reader):
            start()
        while not self.results.has_begun:
            self.step_results()
        self.run(n_steps)

    # --- what happens ----------------------------------------------------------------------------

    def run(self, n_steps):
        acts = [self.mark] * 8 + [self.step_reader] * 24 + [self.step_decoder] * 20
        acts += [self.step_results] * 12 + [self.pass_time] * 3 + [self.hang] * 3
        acts += [self.kill_reader, self.kill_decoder, self.kill_results]
        acts += [self.start_reader, self.start_decoder, self.start_results] * 4
        for _ in range(n_steps):
            self.now_s += self.random.random() * 0.2
            self.random.choice(acts)()

    def mark(self):
        raw_s, name = self.now_s, self.random.choice(NAMES)
        if self.sent and self.random.random() < 0.1:  # an old one comes again
            _, raw_s, name = self.random.choice(self.sent)
        late_s = 0.0
        is_seen = self.results is not None and self.witness_since_s <= self.now_s
        is_deaf = self.hands_on and is_seen and self.hung != "results"
        is_deaf = is_deaf and self.chance.random() < 0.3
        # What is stamped before its time a reader takes of its own inlet alone.
        is_deaf = is_deaf and (self.reader is None or raw_s >= self.reader.since_s)
        if self.reader is not None and not is_deaf:  # which may get it far too late
            late_s = self.random.choice([0.0] * 9 + [4.0 * is_seen])
            self.reader.late.append(Marker(raw_s, name, self.now_s + late_s))
        self.sent.append(((self.now_s, self.now_s + late_s), raw_s, name))
        if is_seen:
            self.witnessed.append(chunk(Marker(raw_s, name, self.now_s)))
            self.to_hand_on += [(raw_s, name, self.now_s)] * self.hands_on
            if self.hung != "results":
                self.hand_on()

    def hand_on(self):
        while self.to_hand_on:
            raw_s, name, at_s = self.to_hand_on.pop(0)
            if self.reader is not None:
                self.reader.overheard.append(overheard(raw_s, text=name, readable_s=at_s))

    def pass_time(self):
        self.now_s += self.random.random() * 3

    def hang(self):
        """One of them stands still until it is drawn again."""
        one = self.random.choice(["reader", "decoder", "results"])
        self.hung = None if self.hung == one else one

    hung = None

    def start_reader(self):
        if self.reader is None:
            last = last_number(self.config.kept("numbers"))
            first = last + RESERVED + 1 if self.lives["reader"] else 1
            self.reader = Reader(self, first, self.born("reader"))
            self.links.append(self.reader.reports)
            self.join_decoder()

    def start_decoder(self):
        if self.decoder is None:
            self.decoder = Decoder(self.config, live_decoder(), GALLERY, pytest.fail)
            self.decoder_link, self.decoder_name = Link(), self.born("decode")
            self.links.append(self.decoder_link)
            self.inbox, self.is_known = [], False  # links from readers; to the newest of them
            self.join_decoder()
            self.decoder_alive()

    def join_decoder(self):
        if self.decoder is not None and self.reader is not None:
            self.reader.trials.room = self.random.choice([1, 3, 100])
            self.inbox.append(self.reader.trials)

    def start_results(self):
        if self.results is None:
            self.bus = Bus(self)
            clock = lambda: self.now_s  # noqa: E731
            name = self.born("results")
            self.entered = []  # and not told yet
            self.feed = Feed(Story(self.config), [Way(self, self.config.kept("told"), self.now_s)])
            self.results = Results(self.config, name, self.bus, self.entered.append, clock)
            self.witness_since_s = self.now_s + self.random.choice([0.0, 1.0])
            self.witnessed, self.to_hand_on = [], []

    def kill_reader(self):
        if self.reader is not None and self.hung != "reader":
            for link in (self.reader.reports, self.reader.trials):
                link.move(self.random.randint(0, len(link)))
                link.waiting.clear()
            self.reader = None

    def kill_decoder(self):
        if self.decoder is not None:
            self.decoder_link.move(self.random.randint(0, len(self.decoder_link)))
            self.decoder_link.waiting.clear()
            if self.reader is not None:
                self.reader.trials.there.clear()
                self.reader.trials.waiting.clear()
                self.reader.trials.room = 0
            self.decoder = None

    def kill_results(self):
        if self.results is not None:
            for link in self.links:
                link.move(self.random.randint(0, len(link)))
                link.there.clear()
            self.is_killed = self.chance.random() < 0.5
            with suppress(Killed):
                self.step_feed()
            self.results, self.is_killed = None, False

    def step_reader(self):
        if self.reader is not None and self.hung != "reader":
            self.reader.step()

    def step_decoder(self):
        if self.decoder is None or self.hung == "decoder":
            return
        links = [link for link in self.inbox if len(link)]
        if links:
            message = self.random.choice(links).take()
            if isinstance(message, NodeState):
                self.is_known |= message.to == self.decoder_name
            elif isinstance(message, TrialSlice):
                for report, embedding in self.decoder.take(message) if self.is_known else ():
                    if embedding is not None:
                        report.stamps["published"] = self.now_s
                        self.given.append((self.decoder_name, report))
                    self.decoder_link.send(pack(report), zmq.NOBLOCK)
                self.decoder.keep()
            else:
                self.decoder.live.forget(message.trial)
        if self.now_s > self.next_alive_s:
            self.decoder_alive()

    def decoder_alive(self):
        self.next_alive_s = self.now_s + 1.0
        alive = NodeState(node="decode", incarnation=self.decoder_name)
        self.decoder_link.send(pack(alive), zmq.NOBLOCK)

    def step_results(self):
        if self.results is None or self.hung == "results":
            return
        self.bus.has_joined |= self.random.random() < 0.3
        for link in self.links:
            link.move(self.random.randint(0, len(link)))
        for _ in range(3):
            if links := [link for link in self.links if link.there]:
                self.results.take(self.random.choice(links).take())
        self.hand_on()
        while self.witnessed:
            self.results.saw(self.witnessed.pop(0))
        if self.witness_since_s <= self.now_s:
            self.results.witnessed_s = (self.witness_since_s, self.now_s)
        self.results.look(is_idle=not any(link.there for link in self.links))
        self.step_feed()

    def step_feed(self):
        for _ in range(self.chance.randint(0, len(self.entered))):
            self.feed.take(self.now_s, self.entered.pop(0), self.now_s)
        self.feed.look(self.now_s)

    @property
    def is_heard(self):
        return self.chance.random() < 0.3

    def tell(self, told):
        self.told.append(json.loads(as_text(told)[0]))
        if self.is_killed:
            raise Killed

    def born(self, name):
        self.lives[name] += 1
        return f"{name}-{self.lives[name]}"

    def reader_bus(self, message):
        if self.reader is not None:
            self.reader.bus.append(message)

    # --- how it ends -----------------------------------------------------------------------------

    def finish(self):
        """All that lives goes on until nothing is open any more; it must come to that."""
        self.hung = None
        if self.random.random() < 0.5:
            Parting("finish", self.now_s).keep(self.config.kept("parting"))
        self.start_results()
        self.start_decoder()
        if self.reader is not None and self.random.random() < 0.8:
            self.finish_reader()
        for _ in range(120):  # whoever was lost is known to be, and not waited for any more
            self.settle_down()
        # What waits for a reader that will not come back does not wait until the end.
        pending = self.results._ledger.pending
        assert self.reader is None or all(n >= self.reader.first for n in pending), pending
        self.results.close("finish", is_orphan=False)
        for record in self.entered:
            self.feed.take(self.now_s, record, self.now_s)
        self.feed.end()

    def finish_reader(self):
        for _ in range(5 * self.hands_on):  # until what was handed on is taken
            self.settle_down()
        for _ in range(3000):
            self.settle_down()
            reader = self.reader
            if not (reader.late or reader.heard or reader.open or self.reader.outbox.n_kept):
                break
        else:
            raise AssertionError(f"{self.reader.outbox.n_kept} trials are kept for ever")
        self.reader.until_s = self.now_s
        self.reader.say_alive()
        self.reader.reports.room = 10**9
        self.reader.reports.send(pack(End(reason="finish", facts={})), zmq.NOBLOCK)
        while len(self.reader.reports):
            self.settle_down()

    def settle_down(self):
        self.now_s += 0.05
        self.step_reader()
        self.step_decoder()
        self.step_results()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(results_node, "_LAST_WORDS_S", 0.0)
    monkeypatch.setattr("stream.pipeline.witness._PLACES", 64)  # a world has no more markers
    monkeypatch.setattr("stream.pipeline.books.summary.versions", lambda *names: {})


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_every_marker_ends_once_whoever_dies_in_whatever_order(part, tmp_path):
    for seed in range(part * N_RUNS // 5, (part + 1) * N_RUNS // 5):
        world = World(tmp_path, seed, hands_on=bool(seed % 2))
        world.finish()
        check(world, f"seed {seed}")
        for file in world.files:
            file.close()


@pytest.mark.parametrize("seed", range(3))
def test_what_only_the_second_inlet_has_heard_is_answered(seed, tmp_path):
    world = World(tmp_path, seed, n_steps=0, hands_on=True)
    for _ in range(40):  # nobody dies
        world.mark()
        for _ in range(world.random.randint(1, 30)):
            world.settle_down()
    world.finish()
    check(world, f"seed {seed}")
    ends = read_ledger(world.folder / "ledger.jsonl")
    reasons = Counter(record.get("reason") for record in ends if record["event"] in ENDS)
    assert reasons.keys() <= {None, "gap", "duplicate", "overflow"}


@pytest.mark.parametrize("seed", [531, 630, 953, 1103, 2344, 2693, 2699, 8671])
def test_every_marker_ends_once_in_sessions_that_have_ended_otherwise(seed, tmp_path):
    world = World(tmp_path, seed)
    world.finish()
    check(world, f"seed {seed}")


def check(world, seed):
    records = read_ledger(world.folder / "ledger.jsonl")
    of = defaultdict(list)
    for record in records:
        of[record["event"]].append(record)
    markers = {record["trial"]: record for record in of["marker"]}
    ends = of["decoded"] + of["dropped"]
    assert len(markers) == len(of["marker"]), f"{seed}: a number is used twice"
    assert Counter(r["trial"] for r in ends) == Counter(markers.keys()), f"{seed}: one end each"
    # Each that was sent is there once, or nobody listened when it was.
    unheard = [(record["from_s"], record["until_s"]) for record in of["unheard"]]
    came = defaultdict(list)  # by stamp and text
    for times_s, raw_s, name in world.sent:
        came[raw_s, name].append(times_s)
    there = Counter((r["onset_s"], r["stimulus"]) for r in markers.values())
    for marker, times_s in came.items():
        heard = [
            (first_s, last_s)  # what was on its way to a reader that died may be lost with it
            for first_s, last_s in times_s
            if not any(a - 1e-3 <= last_s and first_s <= b + 1e-3 for a, b in unheard)
        ]
        n = there.pop(marker, 0)
        assert n <= len(times_s), f"{seed}: {marker} is counted twice"
        # Twins, of one stamp and text, are at least not counted more often than they came.
        n_due = len(heard) if len(times_s) == 1 else min(1, len(heard))
        assert n >= n_due, f"{seed}: {marker} of {heard} is in no record, {unheard}"
    assert not there
    if world.lives["reader"] == 1 and world.reader is not None:
        assert not unheard, f"{seed}: one reader has listened all the time"
    assert list(world.bus.last) == [Snapshot, SessionClosed]  # for whoever had missed something
    check_told(world, of, seed)
    check_given(world, of, seed)
    # Whose answer it is: as the trial itself says.
    for record in of["decoded"]:
        assert record["stimulus"] == markers[record["trial"]]["stimulus"]
        assert record["trial"] < NUMBERS
    # No number that is free, or was given before a reader died, passes for a marker that lacks.
    if world.lives["results"] == 1:  # else the outcome of one can be lost with both
        assert Ledger(world.folder / "ledger.jsonl").faults() == [], seed


def check_given(world, of, seed):
    """What the ledger has was given out before; again only by another decoder, and the same."""
    given, of_whom = {}, Counter()
    for decoder, report in world.given:
        if not report.answer.provisional:
            of_whom[decoder, report.about.trial] += 1
            given.setdefault(report.about.trial, []).append((report.about.stimulus, report.ids))
    assert not of_whom or max(of_whom.values()) == 1, f"{seed}: {of_whom.most_common(1)}"
    for record in of["decoded"]:
        assert (record["stimulus"], record["ids"]) in given[record["trial"]], f"{seed}: {record}"


def check_told(world, of, seed):
    """Each end went out once, or the last one before a node was killed twice, as the same."""
    numbered = {told["n"]: told for told in world.told if told["event"] != "hello"}
    assert list(numbered) == list(range(1, len(numbered) + 1)), f"{seed}: in order, none missing"
    told = Counter(told["n"] for told in world.told if told["event"] != "hello")
    assert sum(told.values()) - len(told) < world.lives["results"], f"{seed}: at most one a death"
    for one in world.told:
        if one["event"] != "hello":
            assert one | {"at_s": 0} == numbered[one["n"]] | {"at_s": 0}
    ends = [one for one in numbered.values() if one["event"] in ENDS]
    assert Counter(one["trial"] for one in ends) == Counter(r["trial"] for r in of["marker"])
    markers = {record["trial"]: record for record in of["marker"]}
    for one in ends:
        marker = markers[one["trial"]]
        assert (one["marker"], one["sent_s"]) == (marker["text"], marker["sent_s"])
    early = [(o["trial"], o["tmax_s"]) for o in numbered.values() if o["event"] == "provisional"]
    assert max(Counter(early).values(), default=1) == 1
    assert [one["event"] for one in numbered.values()].count("ended") == 1
    assert world.told[-1]["event"] == "ended"


def test_what_was_being_entered_when_a_results_node_died_is_ended_by_the_next(tmp_path):
    world = World(tmp_path, seed=0, n_steps=0)
    path = world.folder / "ledger.jsonl"
    lost = MarkerSeen(about=about(NUMBERS + 1), readable_s=100.0, text="m", sent_s=0.0, mark="m")
    ledger = Ledger(path)
    ledger.announce(NUMBERS + 1, **told("marker", lost))
    world.kill_results()
    world.start_results()
    late = MarkerSeen(about=about(1), readable_s=100.0, text="m", sent_s=0.0, mark="m")
    world.results.take(late)  # by a reader that was there, only slow
    world.results.close("finish", is_orphan=False)
    ends = [record for record in read_ledger(path) if record["event"] == "dropped"]
    assert [(record["trial"], record["reason"]) for record in ends] == [(NUMBERS + 1, "node_lost")]


@pytest.mark.parametrize("is_read", [False, True], ids=["no reader", "a reader that is new"])
def test_what_came_while_all_hung_is_at_least_told_where_the_session_is_stopped(is_read, tmp_path):
    world = World(tmp_path, seed=0, n_steps=0)
    for _ in range(40):
        world.settle_down()
    last_s = world.now_s
    for wait_s in (5.0, 5.0):  # while reader and results node stand still
        world.now_s += wait_s
        world.mark()
    world.now_s += 1.0
    left_s = world.now_s
    Parting("stop", left_s).keep(world.config.kept("parting"))
    for act in (world.kill_reader, world.kill_results):
        act()
    world.now_s += 4.0
    world.start_results()
    world.witness_since_s = world.now_s
    for _ in range(10):
        world.settle_down()
    world.mark()  # it is nobody's
    world.settle_down()
    if is_read:  # it has begun to listen after the session was stopped, and is never answered
        world.start_reader()
        world.bus.has_joined = False
        world.results.take(world.reader.reports.take())
        world.results.take(End(reason="stop", facts={"simulated": True}))
    world.results.close(world.results.ended or "finish", is_orphan=False)
    records = read_ledger(world.folder / "ledger.jsonl")
    ((from_s, until_s),) = [(r["from_s"], r["until_s"]) for r in records if r["event"] == "unheard"]
    assert last_s - 2.0 <= from_s <= last_s
    assert until_s == pytest.approx(left_s, abs=1e-6)
    assert not [record for record in records if record["event"] == "marker"]
    summary = json.loads((world.folder / "summary.json").read_text())
    assert (summary["end"], summary["at_least"]) == ("stop", True)
    assert summary["simulated"] == is_read  # as only the reader's last words tell


def test_what_no_reader_has_announced_is_numbered_before_the_trials_of_the_next(tmp_path):
    world = World(tmp_path, seed=0, n_steps=0)
    acts = (world.mark, world.kill_reader, world.mark, world.start_reader, world.mark)
    for act in acts:
        act()
        for _ in range(60):
            world.settle_down()
    world.finish()
    check(world, "seed 0")
    records = read_ledger(world.folder / "ledger.jsonl")
    numbers = [record["trial"] for record in records if record["event"] == "marker"]
    assert sorted(numbers) == [1, 2, RESERVED + 2]


@pytest.mark.parametrize("is_last", [False, True], ids=["another reader", "no other reader"])
def test_what_only_a_reader_has_heard_is_known_though_it_died_before_it_could_tell(
    is_last, tmp_path
):
    """Of an outlet that was opened anew, which the second inlet had not found yet."""
    world = World(tmp_path, seed=0, n_steps=0)
    for _ in range(60):
        world.settle_down()
    world.witness_since_s, heard_since_s = world.now_s + 1e9, world.witness_since_s
    for _ in range(2):
        world.now_s += 0.1
        world.mark()
        world.step_reader()
        world.step_reader()
    world.witness_since_s = heard_since_s  # it says that it has heard all
    world.reader.reports.waiting.clear()
    world.reader = None
    for _ in range(60):
        world.settle_down()
    if not is_last:
        world.start_reader()
    world.finish()
    check(world, "seed 0")
    ends = read_ledger(world.folder / "ledger.jsonl")
    lost = [(one["trial"], one["reason"]) for one in ends if one["event"] == "dropped"]
    assert lost == [(1, "node_lost"), (2, "node_lost")]
