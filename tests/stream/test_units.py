"""Every spelling of a unit in use means what it says, and what cannot be EEG is said aloud."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.acquire.units import EEG, MICROVOLTS, Signal, kept_as, odd_size, unknown_units


@pytest.mark.parametrize(
    ("spellings", "kept"),
    [
        ("microvolts microvolt uV µV μV UV Micro-Volts micro_volt", (MICROVOLTS, 1.0)),
        ("-6 -6.0 -06", (MICROVOLTS, 1.0)),
        ("V v volt Volts 0 +0 0.0", (MICROVOLTS, 1e6)),
        ("mV millivolt MilliVolts -3", (MICROVOLTS, 1e3)),
        ("nV nanovolts -9", (MICROVOLTS, 1e-3)),
        ("fT femtotesla FemtoTeslas", ("femtoteslas", 1.0)),
        ("pT", ("femtoteslas", 1e3)),
        ("T tesla Teslas", ("femtoteslas", 1e15)),
        ("fT/cm femtoteslas/cm", ("femtoteslas/cm", 1.0)),
        ("T/m teslas/meter tesla/metre", ("femtoteslas/cm", 1e13)),
    ],
)
def test_a_unit_in_any_spelling(spellings, kept):
    for spelling in spellings.split():
        assert kept_as(spelling) == kept
        assert kept_as(kept[0]) == (kept[0], 1.0)


@pytest.mark.parametrize(
    ("kind", "kept"),
    [("mag", ("femtoteslas", 1e15)), ("MEG", ("femtoteslas", 1e15)), ("eeg", (MICROVOLTS, 1e6))],
)
def test_a_power_of_ten_is_of_what_the_channel_measures(kind, kept):
    assert kept_as("0", kind) == kept
    assert kept_as("0", "grad") == ("femtoteslas/cm", 1e13)


@given(st.sampled_from(["", "Boolean", "n/a", "1e-6", "uV/s", "V/m", "g", "m/s", "t/s", "volts2"]))
def test_a_unit_that_is_not_known_stays_as_it_is_and_is_named(unit):
    assert kept_as(unit) == (unit, 1.0)
    sentence = unknown_units({"Cz": MICROVOLTS, "AUX": unit})
    assert (f"AUX ('{unit}')" if unit else "AUX is") in sentence
    assert "Cz" not in sentence
    assert unknown_units({"Cz": MICROVOLTS, "Mag": "femtoteslas"}) is None


@pytest.mark.parametrize(
    ("factor", "is_odd"), [(1e-6, True), (1e-3, True), (1.0, False), (1e3, True), (1e6, True)]
)
def test_eeg_in_another_unit_than_it_says_cannot_be_eeg(factor, is_odd):
    rng = np.random.default_rng(0)
    eeg = rng.normal(0, [3, 20, 60, 100], (250, 4)) + 20_000  # an offset of the electrodes
    samples = (eeg * factor).astype(np.float32)
    assert (odd_size(samples, EEG) is not None) is is_odd
    assert odd_size(samples, Signal("meg", "femtoteslas")) is None


def test_what_does_not_move_says_nothing_of_the_unit():
    assert odd_size(np.full((250, 3), 7.0), EEG) is None
    assert odd_size(np.full((250, 3), np.nan), EEG) is None
