"""What a session cannot know of itself and exports ask for: who, what, with what."""

from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from hvf_core.settings import Settings, setting

KEPT_AS_IT_IS = "kept as it is"
"""The context in which a config is read: sessions from before there were rules stay readable."""


def _label(text: str, info: ValidationInfo) -> str:
    if info.context == KEPT_AS_IT_IS:
        return text
    if len(text) > 60:  # or names of files are too long
        raise ValueError(f"'{text[:60]}…' must be at most 60 letters and digits")
    if not (text.isascii() and text.isalnum()):
        raise ValueError(f"'{text}' must be letters and digits alone, as BIDS has its labels")
    return text


def label_in(text: str) -> str | None:
    """The letters and digits of a name, as a label; None where it has none."""
    return "".join(one for one in text if one.isascii() and one.isalnum())[:60] or None


def _mains(hz: float) -> float:
    if hz not in (50, 60):
        raise ValueError(f"the mains have 50 or 60 Hz, and not {hz:g}")
    return hz


Label = Annotated[str, AfterValidator(_label)]
MainsHz = Annotated[float, AfterValidator(_mains)]


class AboutSettings(Settings):
    """The facts of a session beside its subject, in the words of BIDS; `export` takes them."""

    form: bool = setting(False, option="--form")
    """Begin when somebody has filled in the form of the page, or says `start`."""
    session: Label | None = setting(None, option="--session", live=True)
    """Label of the session, where a participant has several."""
    task: Label | None = setting(None, option="--task", live=True)
    """Label of the task, as rsvp."""
    run: int | None = setting(None, option="--run", live=True, ge=1)
    """Number of the run, where a session has several."""
    experimenter: str | None = setting(None, option="--experimenter", live=True)
    """Who runs the session."""
    cap: str | None = setting(None, option="--cap", live=True)
    """Of the electrodes, as its maker calls it."""
    line_hz: MainsHz | None = setting(None, option="--line-freq", live=True)
    """Frequency of the mains, 50 or 60."""


FORM = ("subject", *(f"about.{name}" for name in AboutSettings.model_fields if name != "form"))
"""The settings of a session that a person fills in, by path."""
