"""How a bundle is evaluated."""

from typing import Annotated

from pydantic import Field

from decoder.calibration import Evidence
from hvf_core.settings import Settings, setting


class EvaluateSettings(Settings):
    """At which numbers of repeats and window ends answers are judged."""

    repeats: tuple[Annotated[int, Field(ge=1)], ...] = setting((1,), option="--repeats")
    """Numbers of repeats, as 1,4,20."""
    tmax_s: tuple[float, ...] = setting((), option="--tmax")
    """Times after onset at which to answer as well, as 0.3,0.5; the whole window always."""
    evidence: Evidence = setting("mean", option="--evidence")
    """Of repeats: average their EEG, or add log-likelihoods."""
    seen: bool = setting(False, option="--seen")
    """Take trials that the bundle was trained on, and say so in all that comes of it."""
    seed: int = setting(0, option="--seed", ge=0)
    """Of the draws of repeats."""
