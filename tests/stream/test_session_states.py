"""A session ends once and for all, whatever happens to it in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from stream.pipeline.states import ORDERS, TABLE, Event, Lifecycle, State
from stream.pipeline.wire.nodes import NODES, READER, RESULTS

ENDS = {Event.FINISH, Event.STOP, Event.READER_OVER, Event.BROKEN}
happenings = st.lists(st.tuples(st.sampled_from(Event), st.floats(0, 400)), max_size=40)


def lived(events, paint_wait_s=None):
    """A lifecycle to which this has happened, and the states that it entered on the way."""
    life, now_s, entered = Lifecycle(0.0, paint_wait_s), 0.0, []
    for event, after_s in events:
        now_s += after_s
        if event is not Event.TIME_UP or life.is_time_up(now_s):
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
        if life.is_time_up(now_s):
            life.on(Event.TIME_UP, now_s)
    assert life.state is State.CLOSED


@given(happenings)
def test_nothing_is_given_up_while_something_moves(events) -> None:
    life, now_s, _ = lived([(Event.READY, 0.0), *events])
    life.moved(now_s)
    for _ in range(100):
        if life.state not in (State.FINISHING, State.STOPPING):
            return
        now_s += 44.0
        assert not life.is_time_up(now_s)
        life.moved(now_s)


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
        life.moved(now_s + longest_s)  # which is no reason to wait for longer
        assert not life.is_time_up(now_s + longest_s)
        assert life.is_time_up(now_s + longest_s + 0.1)
