"""Channels by the name of a set, by a list or by a file, and lists that a recording cannot give."""

from pathlib import Path

import pytest

from tests.lookalikes import things, things_eeg2, things_meg
from tests.lookalikes.things_eeg2 import CHANNELS_17, CHANNELS_63
from tests.lookalikes.way import prepared, refused


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """THINGS-EEG2 with 17 channels in `gifford`, with 63 in `nice`."""
    folder = tmp_path_factory.mktemp("data")
    things.write_metadata(folder)
    things_eeg2.gifford(folder / "gifford")
    things_eeg2.nice(folder / "nice")
    return folder


def test_sets_have_names_and_an_order(data: Path, tmp_path: Path) -> None:
    paper = tuple(name for name in CHANNELS_63 if name in CHANNELS_17)
    for n, (asked, expected) in enumerate(
        (
            (("--channels", 17), paper),
            (("--output-channels", 17), paper),
            (("--channels", 63), None),
        )
    ):
        found = prepared(tmp_path / str(n), data / "nice", *asked)
        assert found.format.channels == (expected or tuple(CHANNELS_63))
        taken = found.format.preprocessing["channels"]
        assert len(taken) == (17 if asked == ("--channels", 17) else 63)


def test_a_file_or_a_list_names_channels(data: Path, tmp_path: Path) -> None:
    names = tmp_path / "mine.txt"
    names.write_text("Oz, O1\nPz\n")
    for n, asked in enumerate((names, "Oz,O1,Pz", "oz,o1,PZ")):
        found = prepared(tmp_path / str(n), data / "gifford", "--channels", asked)
        assert found.format.channels == ("Oz", "O1", "Pz")


@pytest.mark.slow
def test_all_of_things_meg_are_271(tmp_path: Path) -> None:
    data = things_meg.ubp(tmp_path / "data")
    found = prepared(tmp_path / "trials", data, "--whitening", "none", "--channels", 271)
    assert len(found.format.channels) == 271


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            "63",
            "lacks 46 of the 63 channels that are asked for: missing Fp1, Fp2, AF7, AF3, AFz, "
            "AF4, AF8, F7 and 38 more; it has P7, P5, P3, P1, Pz, P2, P4, P6 and 9 more: ",
        ),
        ("Oz,Qz", "lacks 1 of the 2 channels that are asked for: missing Qz; it has "),
        ("271", "has 17 channels of EEG or MEG, and 271 means all MEG of THINGS-MEG"),
        ("64", "missing 64; it has "),
        ("no/such.txt", "there is no file 'no/such.txt' of channels"),
    ],
)
def test_a_wrong_list_is_told_with_what_there_is(data: Path, asked: str, told: str) -> None:
    sentence = refused(data / "gifford", "--pickles", "--channels", asked)
    assert told in sentence, sentence
