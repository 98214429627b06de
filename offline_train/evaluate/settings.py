"""How a bundle is evaluated."""

from typing import Annotated, Literal

from pydantic import Field

from hvf_core.settings import Settings, setting
from offline_train.evaluate.corrections import Correction

Averaging = Literal["mean", "added", "predictions"]
"""How repeats are put together: as live, or their embeddings are averaged, as NeuralBench does."""


class EvaluateSettings(Settings):
    """At which numbers of repeats and window ends answers are judged."""

    repeats: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (1,), option="--repeats", min_length=1
    )
    """Numbers of repeats, as 1,4,20."""
    tmax_s: tuple[float, ...] = setting((), option="--tmax")
    """Times after onset at which to answer as well, as 0.3,0.5; the whole window always."""
    evidence: tuple[Averaging, ...] = setting(("mean",), option="--evidence", min_length=1)
    """Of repeats: mean averages their EEG, added adds log-likelihoods, predictions averages
    embeddings; several with commas."""
    ways: tuple[Annotated[int, Field(ge=2)], ...] = setting((2, 10, 50, 100, 200), option="--ways")
    """Sizes of smaller galleries, as papers report: what is expected among k images, exactly."""
    transductive: tuple[Correction, ...] = setting((), option="--transductive")
    """Also what all test trials together would tell: whitening, csls, or both with a comma."""
    seen: bool = setting(False, option="--seen")
    """Take trials that the bundle was trained on, and say so in all that comes of it."""
    seed: int = setting(0, option="--seed", ge=0)
    """Of the draws of repeats."""
