"""Channels by label and kind: renamed without a mix-up, and told from what is no EEG."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvf_core.problem import Problem
from stream.acquire.channels import beside_columns, brain_channels, column_of, order_of, renamed

LABELS = st.lists(st.text(max_size=3), min_size=1, max_size=8, unique=True)


@given(labels=LABELS, names=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=4))
def test_renamed_channels_stay_in_place_and_none_becomes_two(labels, names) -> None:
    expected = [names.get(label, label) for label in labels]
    if len(set(expected)) == len(expected):
        assert list(renamed(labels, names)) == expected
    else:
        with pytest.raises(Problem, match="cannot be called"):
            renamed(labels, names)


def test_two_channels_can_change_their_names() -> None:
    assert renamed(["PO7", "Oz", "Cz"], {"PO7": "Oz", "Oz": "PO7"}) == ("Oz", "PO7", "Cz")


@pytest.mark.parametrize(
    ("labels", "kinds", "brain"),
    [
        (["Cz", "Oz"], [], ["Cz", "Oz"]),
        (["Cz", "ECG", "AUX1", "Oz"], [], ["Cz", "Oz"]),
        (["Cz", "x", "Oz"], ["EEG", "AUX", "EEG"], ["Cz", "Oz"]),
        (["Cz", "Photo", "Resp", "EDA", "T7"], ["eeg"] * 5, ["Cz", "T7"]),
        (["Cz", "VEOG", "Status"], ["eeg", "eeg", "eeg"], ["Cz"]),
        (["M1", "G1", "E1", "s"], ["mag", "grad", "eeg", "stim"], ["M1", "G1", "E1"]),
        (["Cz", "TRIGGER"], ["Data", "Data"], ["Cz"]),
        (["1", "2"], ["", ""], ["1", "2"]),
        (["EOG"], ["EEG"], ["EOG"]),
        (["EMG", "ECG"], ["misc", "misc"], ["EMG", "ECG"]),
    ],
)
def test_the_channels_of_the_brain(labels: list[str], kinds: list[str], brain: list[str]) -> None:
    assert list(brain_channels(labels, kinds)) == brain


@pytest.mark.parametrize(
    ("labels", "kinds", "beside"),
    [
        (["Cz", "Oz"], [], []),
        (["Cz", "TRIG", "Oz", "STI 014", "Status"], [], [1, 3, 4]),
        (["Cz", "x", "y"], ["EEG", "stim", "Misc"], [1, 2]),
        (["1", "1", "1"], ["eeg", "Trigger", "EEG"], [1]),  # the label does not tell them apart
        (["1", "2", "3"], ["Data", "Data", "Stim"], [2]),
        (["1", "2", "3"], ["", "", "misc"], [2]),
        (["M1", "G1", "TRIG"], ["mag", "grad", "mag"], [2]),
        (["EOG"], ["EEG"], [0]),
    ],
)
def test_the_columns_of_what_may_hold_codes(labels, kinds, beside) -> None:
    assert beside_columns(labels, kinds) == beside


@given(labels=LABELS, seed=st.randoms(use_true_random=False))
def test_an_order_puts_channels_back_by_their_labels(labels, seed) -> None:
    there = list(labels)
    seed.shuffle(there)
    assert [there[column] for column in order_of(labels, there)] == labels
    assert order_of(labels, [*there[:-1], "another one"]) is None


def test_labels_that_come_twice_are_clear_in_the_same_order_only() -> None:
    assert order_of(("EEG", "EEG", "A"), ("EEG", "EEG", "A")) == (0, 1, 2)
    assert order_of(("EEG", "EEG", "A"), ("EEG", "A", "EEG")) is None


def test_a_column_is_found_in_other_capitals_unless_two_could_be_meant() -> None:
    assert column_of("FP1", ("Fp1", "Cz")) == 0
    assert column_of("FP1", ("Fp1", "fp1")) is None
    assert column_of("fp1", ("Fp1", "fp1")) == 1
