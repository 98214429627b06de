"""Every form of every data set that `prepare` takes: how it is made, prepared, and played."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.lookalikes import bids, epochs, sessions, things, things_eeg2, things_meg
from tests.lookalikes.bids import NUMBERED
from tests.lookalikes.things import TEST, TRAIN


class Stream(NamedTuple):
    """What is played of a data set: how many trials, at which rate, in which unit, a channel."""

    n_trials: int
    rate_hz: float
    unit: str
    channel: str


class Form(NamedTuple):
    """A data set, and what of it is learnt and asked about: its splits, or where it has none parts.

    Of a form that has no stream nothing can be played, and no session decodes it: others have
    whitened its trials, as no amplifier does.
    """

    make: Callable[[Path], Path]
    stream: Stream | None
    how: tuple[object, ...] = ()
    learnt: tuple[str, ...] = TRAIN
    asked: tuple[str, ...] = TEST
    parts: tuple[str, str] | None = None

    @property
    def chance(self) -> float:
        """How often the right image comes first by chance."""
        return 1 / len(self.asked)


def _named(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """With the table of images beside the data."""

    def made(folder: Path) -> Path:
        make(folder)
        things.write_metadata(folder)
        return folder

    return made


def _hub(folder: Path) -> Path:
    place = folder / "raw_eeg" / "sub-08" / "session_02" / "block_01"
    place.mkdir(parents=True)
    bids.hub_recording(place / "Subject 8, Session 2, Block 1.edf")
    return folder


def _said(folder: Path) -> Path:
    return bids.nm000133(folder, column="stim_id")


def _epochs(beside: bool) -> Callable[[Path], Path]:
    return lambda folder: epochs.saved_epochs(folder, beside=beside)


PLAIN = ("--whitening", "none")
BY_SESSION = ("--per-session", "--tmax", 0.246)
ALLJOINED = (NUMBERED[:30], NUMBERED[30:])
MEG = (things_meg.TRAIN, things_meg.TEST)
FORMS = {
    "things-eeg2-preprocessed": Form(_named(things_eeg2.gifford), None),
    "things-eeg2-nice": Form(_named(things_eeg2.nice), None),
    "things-eeg2-ubp": Form(things_eeg2.ubp, None),
    "things-eeg2-raw": Form(
        _named(things_eeg2.raw),
        Stream(16, 1000, "microvolts", "Oz"),
        ("--per-session", "--tmax", 0.196),
    ),
    "nm000232": Form(
        bids.nm000232, Stream(8, 1000, "microvolts", "Oz"), ("--per-session", "--tmax", 0.196)
    ),
    "ds003825": Form(bids.ds003825, Stream(12, 1000, "microvolts", "Oz"), ("--tmax", 0.096)),
    "nm000134": Form(bids.nm000134, Stream(30, 256, "microvolts", "Oz"), BY_SESSION, *ALLJOINED),
    "nm000134, hub": Form(_hub, Stream(10, 256, "microvolts", "Oz"), BY_SESSION, *ALLJOINED),
    # It has no split, and its sessions show the same images: what is asked are new trials of them.
    "nm000133": Form(
        bids.nm000133,
        Stream(40, 512, "microvolts", "Oz"),
        ("--tmax", 0.246),
        *(NUMBERED, NUMBERED),
        ("sub-01/ses-01", "sub-01/ses-02"),
    ),
    "bids": Form(_said, Stream(20, 512, "microvolts", "Oz"), BY_SESSION, *ALLJOINED),
    "things-meg": Form(
        things_meg.epochs_fif,
        Stream(48, 200, "", "MLC001-1609"),
        (*PLAIN, "--tmin", 0, "--tmax", 1),
        *MEG,
    ),
    "things-meg-ubp": Form(things_meg.ubp, Stream(48, 200, "", "MEG001"), PLAIN, *MEG),
    "epochs": Form(_epochs(False), Stream(12, 100, "microvolts", "Pz"), PLAIN),
    "epochs, a table beside": Form(_epochs(True), Stream(12, 100, "microvolts", "Pz"), PLAIN),
    "sessions": Form(
        sessions.two_sessions,
        Stream(12, 250, "microvolts", "Oz"),
        ("--tmax", 0.196),
        parts=("first", "second"),
    ),
}
