"""A session ends once and for all, whatever happens to it in whatever order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.pipeline.states import ORDERS, TABLE, Event, Lifecycle, Seen, State
from stream.pipeline.wire.nodes import NODES, PAINT, READER, RESULTS

LOOK_S = 0.5
ENDS = {Event.FINISH, Event.STOP, Event.READER_OVER, Event.BROKEN}
happenings = st.lists(st.tuples(st.sampled_from(Event), st.floats(0, 400)), max_size=40)


def is_time_up(life, now_s):
    return Event.TIME_UP in life.events(Seen(), now_s)


def lived(events, paint_wait_s=None):
    """A lifecycle to which this has happened, and the states that it entered on the way."""
    life, now_s, entered = Lifecycle(0.0, paint_wait_s), 0.0, []
    for event, after_s in events:
        now_s += after_s
        if event is not Event.TIME_UP or is_time_up(life, now_s):
            before = life.state
            if life.on(event, now_s):
                entered.append(life.state)
            else:
                assert life.state is before
    return life, now_s, entered


@given(happenings)
def test_what_is_closed_stays_closed_and_no_end_is_begun_twice(events) -> None:
    life, _, entered = lived(events)
    for state in (State.CLOSED, State.CLOSING, State.PAINTING, State.STOPPING, State.FINISHING):
        assert entered.count(state) <= 1
    if State.CLOSED in entered:
        assert entered[-1] is State.CLOSED is life.state
    going = [state for state in entered if state in (State.RUNNING, State.PAUSED)]
    assert entered[: len(going)] == going  # there is no way back


@given(happenings)
def test_time_alone_brings_a_session_that_was_asked_to_end_to_its_end(events) -> None:
    life, now_s, _ = lived([(Event.READY, 0.0), *events, (Event.FINISH, 0.0)])
    for _ in range(len(State)):
        now_s += 1000.0
        if is_time_up(life, now_s):
            life.on(Event.TIME_UP, now_s)
    assert life.state is State.CLOSED


@given(happenings)
def test_nothing_is_given_up_while_something_moves(events) -> None:
    life, now_s, _ = lived([(Event.READY, 0.0), *events])
    list(life.events(Seen(moved=True), now_s))
    for _ in range(100):
        if life.state not in (State.FINISHING, State.STOPPING):
            return
        now_s += 44.0
        assert not is_time_up(life, now_s)
        list(life.events(Seen(moved=True), now_s))


def test_every_state_but_the_last_can_be_left_and_each_can_be_reached() -> None:
    assert set(TABLE) == set(State)
    reached = {State.STARTING} | {state for row in TABLE.values() for state in row.values()}
    assert reached == set(State)
    for state, row in TABLE.items():
        assert (state is State.CLOSED) == (not row)
        if row:
            assert row[Event.SUMMARY] is row[Event.ABORT] is State.CLOSED


def test_a_paused_session_ends_as_a_running_one_does() -> None:
    for event in ENDS:
        assert TABLE[State.PAUSED][event] is TABLE[State.RUNNING][event]
    assert TABLE[State.PAUSED][Event.RESUME] is State.RUNNING


def test_an_end_without_a_painter_goes_through_every_station_and_says_so_to_each_node() -> None:
    events = (Event.READY, Event.FINISH, Event.READER_OVER, Event.PAINTER_OVER, Event.SUMMARY)
    _, _, entered = lived([(event, 0.1) for event in events])
    assert entered == [
        State.RUNNING,
        State.FINISHING,
        State.PAINTING,
        State.CLOSING,
        State.CLOSED,
    ]
    said = [order for state in entered for order in ORDERS.get(state, ())]
    assert [order for order in said if order[1] in (READER, RESULTS)] == [
        ("resume", READER),
        ("finish", READER),
        ("finish", RESULTS),
    ]


def test_orders_are_for_nodes_that_exist() -> None:
    names = {spec.name for spec in NODES}
    assert {name for orders in ORDERS.values() for _, name in orders} <= names


def test_the_wait_for_an_image_can_be_longer() -> None:
    painting = [(Event.READY, 0.0), (Event.READER_OVER, 0.0)]
    for wait_s, longest_s in ((None, 5.0), (300.0, 300.0)):
        life, now_s, _ = lived(painting, wait_s)
        list(life.events(Seen(moved=True), now_s + longest_s))  # no reason to wait for longer
        assert not is_time_up(life, now_s + longest_s)
        assert is_time_up(life, now_s + longest_s + 0.1)


# --- whatever its nodes do -----------------------------------------------------------------------

FATES = ("serves", "dies", "hangs", "fails", "is deaf")
fates = st.lists(st.tuples(st.sampled_from(FATES), st.floats(0, 60)), max_size=8)
worlds = st.fixed_dictionaries(
    {
        "lives": st.fixed_dictionaries({READER: fates, RESULTS: fates, PAINT: fates}),
        "asks": st.lists(
            st.tuples(
                st.floats(0, 120),
                st.sampled_from([Event.PAUSE, Event.RESUME, Event.FINISH, Event.STOP]),
            ),
            max_size=6,
        ),
        "stopped_s": st.floats(0, 200),
        "moving_s": st.floats(0, 400),
        "words_s": st.floats(0, 3),
    }
)


class Node:
    """A node, and the supervisor, who starts it again, kills it where it hangs, gives it up."""

    def __init__(self, name, lives, words_s):
        self.name, self.lives, self.words_s = name, list(lives), words_s
        self.done = self.given_up = False
        self.deaths, self.asked, self.asked_s, self.begun_s = 0, None, 0.0, 0.0
        self.next_life(0.0)

    def next_life(self, now_s):
        self.fate, self.after_s = self.lives.pop(0) if self.lives else ("serves", 0.0)
        self.begun_s = self.asked_s = now_s

    def tell(self, order, now_s):
        if order in ("finish", "stop"):
            self.asked, self.asked_s = order, now_s

    def look(self, now_s):
        """Whether a session that needs it cannot go on."""
        if self.done or self.given_up:
            return False
        late_s = {"hangs": 15.0, "is deaf": 0.0}.get(self.fate, 0.0)
        if self.fate not in ("serves", "is deaf") and now_s >= self.begun_s + self.after_s + late_s:
            self.deaths += 1
            self.given_up = self.fate == "fails" or self.deaths > 5
            self.next_life(now_s + 0.5)
            return self.given_up and self.name != PAINT
        hears = self.fate != "is deaf" and now_s < self.begun_s + self.after_s
        if self.asked and (hears or self.fate == "serves"):
            self.done = now_s >= self.asked_s + self.words_s
        return False


@settings(max_examples=600)
@given(worlds)
def test_a_session_ends_whatever_its_nodes_do_and_whoever_asks_what(world) -> None:
    life, now_s = Lifecycle(0.0), 0.0
    nodes = {n: Node(n, lives, world["words_s"]) for n, lives in world["lives"].items()}
    asks = sorted([*world["asks"], (world["stopped_s"], Event.STOP)], key=lambda ask: ask[0])
    told, ready_s, n_summaries = [], 2.0, 0

    def on(event):
        if life.on(event, now_s):
            for order, name in ORDERS.get(life.state, ()):
                told.append((order, name))
                nodes[name].tell(order, now_s)

    while life.state is not State.CLOSED:
        now_s += LOOK_S
        assert now_s < 1000, life.state
        broken = sum(node.look(now_s) for node in nodes.values()) > 0
        while asks and asks[0][0] <= now_s:
            on(asks.pop(0)[1])
        if nodes[RESULTS].done:
            n_summaries += 1
            on(Event.SUMMARY)
        over = frozenset(name for name, node in nodes.items() if node.done or node.given_up)
        ready = life.state is State.STARTING and now_s >= ready_s
        for event in life.events(Seen(now_s < world["moving_s"], ready, broken, over), now_s):
            on(event)
    assert n_summaries <= 1
    assert told.count(("finish", RESULTS)) <= 1
    # Stopping and closing last for 45 s each at most, once nothing moves any more.
    assert now_s < max(world["stopped_s"], world["moving_s"]) + 95
