"""What a data set has to say of a session, and a session does not know."""

from hvf_core.settings import Settings, setting
from stream.pipeline.books.about import Label, MainsHz


class BidsFacts(Settings):
    """The facts of a session, in the words of BIDS; without those that are required none is made.

    What is left out stands there as `n/a`.
    """

    subject: Label | None = setting(None, option="--subject")
    """Label of the participant, as 01."""
    session: Label | None = setting(None, option="--session")
    """Label of the session, where a participant has several."""
    task: Label | None = setting(None, option="--task")
    """Label of the task, as rsvp."""
    run: int | None = setting(None, option="--run", ge=1)
    """Number of the run, where a session has several."""
    line_hz: MainsHz | None = setting(None, option="--line-freq")
    """Frequency of the mains, 50 or 60."""
    experimenter: str | None = setting(None, option="--experimenter")
    """Who ran the session."""
    cap: str | None = setting(None, option="--cap")
    """Of the electrodes, as its maker calls it."""
    reference: str | None = setting(None, option="--reference")
    """Where the reference electrode was, as FCz."""
    ground: str | None = setting(None, option="--ground")
    """Where the ground electrode was."""
    manufacturer: str | None = setting(None, option="--manufacturer")
    """Of the amplifier."""
    montage: str | None = setting(None, option="--montage")
    """Template places of the electrodes, by MNE's name, as colin27_1020."""
    name: str = setting("EEG of a session of hvf-live", option="--name")
    """Of a data set that is new."""
    authors: tuple[str, ...] = setting((), option="--authors")
    """Of a data set that is new."""
    license: str | None = setting(None, option="--license")
    """Of a data set that is new, as CC0."""


REQUIRED = ("subject", "task", "line_hz")
"""Without them there is no data set."""
