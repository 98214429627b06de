"""Who is there, who sees what, and how much of it a new person's bundle may learn from."""

from typing import Annotated, Literal

from pydantic import Field

from hvf_core.settings import Settings, setting
from hvf_core.specs import Frozen

PER_MINUTE = 100
"""Pictures, at 0.6 s each."""
Method = Literal["none", "no labels", "labels", "from scratch"]
"""Of calibration: the bundle of the others as it is, `personalise` without and with a gallery, or a
bundle of these minutes alone."""


class UnseenSettings(Settings):
    """All that decides the numbers; every picture is of one of the 1,800 training concepts."""

    people: int = setting(12, option="--people", ge=2, le=200)
    """People of whom the model learns."""
    pictures: int = setting(600, option="--pictures", ge=20)
    """That each of them sees."""
    sessions: int = setting(2, option="--sessions", ge=1)
    """In each of which they see all of these once."""
    unseen: int = setting(4, option="--unseen", ge=1, le=200)
    """Further people, who are decoded."""
    minutes: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (1, 3, 5, 10), option="--minutes", min_length=1
    )
    """Of calibration, in each of which they see 100 new pictures."""
    repeats: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (1, 4), option="--repeats", min_length=1
    )
    """Looks at a test picture from which it is found."""
    asked: int = setting(200, option="--asked", ge=20, le=200)
    """Test pictures, of concepts that nobody else has seen."""
    epochs: int = setting(25, option="--epochs", ge=1)
    """Of every training."""


class Cell(Frozen):
    """One line of the table, of one person."""

    method: Method
    minutes: int
    person: int
    """Number of the head and cap."""
    answers: bool = True
    """False: a person in whom nothing is evoked."""

    @property
    def file(self) -> str:
        """Where its result is kept."""
        who = f"{self.person}" if self.answers else f"{self.person}-nobody"
        return f"{who}-{self.method.replace(' ', '-')}-{self.minutes}.json"


def cells_of(settings: UnseenSettings) -> list[Cell]:
    """All that is measured, person by person; of whom nothing is evoked the most minutes alone."""
    found = []
    numbers = range(settings.people + 1, settings.people + settings.unseen + 1)
    most = max(settings.minutes)
    for person, answers in [*((n, True) for n in numbers), (numbers[0], False)]:
        whose = {"person": person, "answers": answers}
        found.append(Cell(method="none", minutes=0, **whose))
        for minutes in sorted({*settings.minutes}) if answers else [most]:
            for method in ("no labels", "labels", "from scratch"):
                found.append(Cell(method=method, minutes=minutes, **whose))
    return found
