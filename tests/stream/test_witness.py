"""Each marker counts once, whoever hears of it first; times at which nobody listened are told."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.acquire.markers import Marker, MarkerReader, MarkerRule
from stream.pipeline.wire.config import NUMBERS, RESERVED
from stream.pipeline.wire.messages import MarkerSeen
from stream.pipeline.witness import (
    Announced,
    Attendance,
    FreeNumbers,
    Numbers,
    Parting,
    Switch,
    Witness,
    last_announced,
    last_number,
    read_parting,
)
from tests.refs import about

NEVER = float("inf")


def marker(raw_s, text="a", readable_s=None):
    return Marker(raw_s, text, raw_s if readable_s is None else readable_s)


@pytest.fixture
def witness(tmp_path):
    return Witness(MarkerRule(), tmp_path / "kept" / "switch")


def missed(witness, until_s=NEVER, since_s=0.0):
    return [(event.onset_s, event.stimulus) for event in witness.missed(since_s, until_s)]


def test_what_both_have_heard_is_the_readers_whoever_was_first(witness):
    witness.saw(marker(1.0))
    assert witness.announced(marker(1.0).mark) is None
    assert witness.announced(marker(2.0).mark) is None
    witness.saw(marker(2.0))
    assert missed(witness) == []


def test_what_the_reader_never_announces_is_missed_once_it_is_sure(witness):
    for raw_s in (1.0, 2.0, 3.0):
        witness.saw(marker(raw_s))
    assert witness.sure_until_s(9.0) == 1.0
    assert missed(witness, until_s=2.5) == [(1.0, "a"), (2.0, "a")]
    assert witness.sure_until_s(9.0) == 3.0
    assert missed(witness, until_s=2.5) == []
    witness.announced(marker(3.0).mark)
    assert witness.sure_until_s(9.0) == 9.0


def test_what_comes_in_the_very_moment_until_which_all_is_told_is_missed_too(witness, tmp_path):
    left_s = 124.4815151153614  # nanoseconds are not enough
    Parting("finish", left_s).keep(tmp_path / "parting")
    witness.saw(marker(left_s))
    assert missed(witness, until_s=read_parting(tmp_path / "parting").at_s) == [(left_s, "a")]


def test_what_the_reader_announces_too_late_is_known_by_its_number(witness):
    witness.saw(marker(1.0))
    (event,) = witness.missed(0.0, NEVER)
    witness.entered(event.mark, 17)
    assert witness.announced(event.mark) == 17
    assert witness.announced(marker(1.5).mark) is None


def test_only_stimuli_are_witnessed_as_the_rule_has_it(tmp_path):
    rule = MarkerRule(stimulus="^stim/(?P<id>.+)$", start="^go$")
    witness = Witness(rule, tmp_path / "switch")
    for raw_s, text in enumerate(["stim/x", "go", "stim/y", "break"]):
        witness.saw(marker(float(raw_s), text))
    assert missed(witness) == [(2.0, "y")]


def test_what_came_before_the_session_is_let_go(witness):
    for raw_s in (1.0, 2.0):
        witness.saw(marker(raw_s))
    assert missed(witness, since_s=1.5) == [(2.0, "a")]
    assert missed(witness) == []


def test_stamps_that_are_no_number_and_any_text_are_the_same_marker_twice(witness):
    for raw_s, text in ((float("nan"), "a"), (float("inf"), "b"), (1.0, "\ud800")):
        witness.saw(marker(raw_s, text, 1.0))
        witness.announced(marker(raw_s, text, 1.0).mark)
    assert missed(witness) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.randoms(use_true_random=False))
def test_twins_count_as_often_as_they_were_seen(stamps, random):
    """Each is seen; some are announced, before or after; the sum is theirs."""
    witness = Witness(MarkerRule(), Path("never written"))
    announced = [raw_s for raw_s in stamps if random.random() < 0.5]
    acts = [("saw", raw_s) for raw_s in stamps] + [("announced", raw_s) for raw_s in announced]
    random.shuffle(acts)
    for act, raw_s in acts:
        one = marker(float(raw_s))
        if act == "saw":
            witness.saw(one)
        else:
            assert witness.announced(one.mark) is None
    left = Counter(map(float, stamps)) - Counter(map(float, announced))
    assert Counter(onset_s for onset_s, _ in missed(witness)) == left


def test_whoever_reads_markers_next_knows_whether_they_open_trials(tmp_path):
    rule, path = MarkerRule(start="^go$", stop="^halt$"), tmp_path / "kept" / "switch"

    def reader():
        reads = MarkerReader(rule)
        return reads, Switch(path, reads)

    reads, switch = reader()
    assert reads.read(marker(1.0)) is None
    for text, is_on in (("go", True), ("halt", False), ("go", True)):
        reads.read(marker(2.0, text))
        switch.look()
        assert reader()[0].is_on == is_on
    witness = Witness(rule, path)
    witness.saw(marker(3.0))
    assert missed(witness) == [(3.0, "a")]
    witness.saw(marker(4.0, "halt"))  # while there is no reader
    assert not reader()[0].is_on


def test_whoever_reads_markers_next_goes_on_in_the_block_that_it_is(tmp_path):
    rule, path = MarkerRule(reset="^block"), tmp_path / "kept" / "switch"
    reads = MarkerReader(rule)
    switch = Switch(path, reads)
    for stamp_s in (1.0, 2.0):
        assert reads.read(marker(stamp_s, "block")) is None
        switch.look()
    witness = Witness(rule, path)
    witness.saw(marker(2.0, "block"))  # which the reader has heard as well
    witness.saw(marker(2.0, "block"))
    again = MarkerReader(rule)
    Switch(path, again)
    assert (again.block, again.read(marker(3.0)).block) == (2, 2)
    witness.saw(marker(4.0, "block"))  # while there is no reader
    again = MarkerReader(rule)
    Switch(path, again)
    assert again.block == 3
    assert [file.name for file in path.parent.iterdir()] == ["switch"]


# --- numbers --------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["trial", "missed", "reader", "results"]), max_size=30))
def test_no_number_is_given_twice_whoever_dies_and_they_go_on(acts):
    """Trials of readers, told or not before they die, and markers that none has announced."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept" / "numbers"
        first, given, ledger = 1, [], []
        numbers, free = Numbers(path), FreeNumbers()
        for act in acts:
            if act == "trial":
                given.append(max(first, last_number(path) + 1))
                numbers.give(given[-1])
            elif act == "missed":
                given.append(free.next)
                assert free.use(given[-1])
                ledger.append(given[-1])
            elif act == "reader":
                first = last_number(path) + RESERVED + 1
                numbers = Numbers(path)
                free.reader_begins(first)
                ledger.append((first,))
            else:  # is started again, and reads its ledger
                free = FreeNumbers()
                for one in ledger:
                    free.reader_begins(*one) if isinstance(one, tuple) else free.use(one)
        assert len(set(given)) == len(given)
        assert not any(map(FreeNumbers().use, [n for n in given if n < NUMBERS]))
        below = [n for n in given if n < NUMBERS]
        assert max(below, default=0) <= len(acts) * (RESERVED + 1)


def test_where_all_that_were_left_free_are_used_numbers_are_beyond_those_of_readers():
    free = FreeNumbers()
    free.reader_begins(RESERVED + 38)
    for number in [*range(38, RESERVED + 38), NUMBERS + 1, NUMBERS + 2]:
        assert free.next == number
        assert free.use(number)
    free.reader_begins(5000 + RESERVED)
    assert free.next == 5000


def test_of_what_a_reader_announces_the_last_are_kept_and_those_that_are_too_long_are_not(tmp_path):
    path = tmp_path / "kept" / "reader-1"
    assert last_announced(path) == []
    said, announced = [], Announced(path)
    for trial in range(1, 401):
        text = "日" * (1000 if trial % 7 == 3 else 500)
        told = MarkerSeen(about=about(trial), readable_s=0.5, text=text, sent_s=0.25, mark="00")
        announced.keep(told)
        said.append(told)
    # Where the newest was too long, the place has one of before, which is told already.
    newest = [one for one in last_announced(path) if one.about.trial > 400 - 256]
    assert newest == [one for one in said[-256:] if len(one.text) == 500]


# --- who listened when ---------------------------------------------------------------------------


@pytest.fixture
def attendance(tmp_path):
    made = Attendance(tmp_path / "attendance")
    made.begin(10.0)
    return made


def test_it_begins_with_the_first_reader(tmp_path):
    attendance = Attendance(tmp_path / "attendance")
    attendance.listened("witness", 1.0, 5.0)
    assert attendance.gaps("witness") == []
    attendance.begin(10.0)
    attendance.begin(20.0)
    assert (attendance.since_s, attendance.until_s) == (10.0, 10.0)


def test_one_who_listens_is_enough(attendance):
    attendance.listened("reader-1", 10.0, 20.0)
    attendance.listened("witness", 12.0, 30.0)
    attendance.listened("reader-2", 25.0, 28.0)
    assert attendance.gaps("reader-2") == []
    assert attendance.until_s == 30.0


def test_a_time_at_which_nobody_listened_ends_with_whoever_was_back_first(attendance):
    attendance.listened("reader-1", 10.0, 20.0)
    attendance.listened("witness", 23.0, 40.0)
    assert attendance.until_s == 20.0  # the reader may live, and only be slow to say so
    attendance.listened("reader-2", 26.0, 30.0)
    assert attendance.gaps("reader-2") == [(20.0, 23.0)]
    assert attendance.until_s == 40.0


def test_several_gaps_are_told_apart(attendance):
    attendance.listened("witness", 15.0, 16.0)
    attendance.listened("reader-2", 20.0, 30.0)
    assert attendance.gaps("reader-2") == [(10.0, 15.0), (16.0, 20.0)]


def test_a_reader_that_lived_all_the_time_leaves_no_gap_however_late_it_speaks(attendance):
    attendance.listened("witness", 15.0, 60.0)
    attendance.listened("reader-1", 10.0, 30.0)
    assert attendance.gaps("reader-1") == []
    assert attendance.until_s == 60.0


def test_the_next_process_goes_on_from_what_was_kept(attendance, tmp_path):
    attendance.listened("reader-1", 10.0, 20.25)
    attendance.keep()
    after = Attendance(tmp_path / "attendance")
    assert (after.since_s, after.until_s) == (10.0, 20.25)
    after.begin(30.0)
    after.listened("reader-2", 30.0, 31.0)
    assert after.gaps("reader-2") == [(20.25, 30.0)]


def test_whoever_listens_beside_it_after_the_end_leaves_one_gap_up_to_the_end(attendance):
    attendance.listened("results", 15.0, 15.0)
    attendance.listened("witness", 20.0, 25.0)
    assert attendance.gaps("results") == [(10.0, 15.0)]


def test_when_a_session_has_left_is_read_as_it_was_kept_and_half_of_it_is_nothing(tmp_path):
    path = tmp_path / "kept" / "parting"
    assert read_parting(path) is None
    Parting("stop", 31072.25).keep(path)
    assert read_parting(path) == Parting("stop", 31072.25)
    Parting("failed", 1.5, "no stream 'é', as it says").keep(path)
    assert read_parting(path) == Parting("failed", 1.5, "no stream 'é', as it says")
    for rest in ("", "stop", "stop x", "stop 31072.2"):
        path.write_text(rest)
        assert read_parting(path) is None
    Parting("stop", 1.0).keep(tmp_path / "gone" / "kept" / "parting")  # a folder that was removed
