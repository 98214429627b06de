"""What minutes before a session have told of today, as a folder that the session is given.

Three things, each where it was measured: the covariance that adaptation goes on from, a factor of
the bundle's temperatures, and how much later than their markers the images are lit.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from pydantic import AwareDatetime, Field, PositiveFloat, PositiveInt
from safetensors.numpy import load_file

from decoder.bundle import MANIFEST as BUNDLE
from decoder.bundle import BundleManifest
from hvf_core.artifact import (
    check_files,
    check_finite,
    file_sha256,
    read_manifest,
    sealed_directory,
    write_manifest,
    write_tensors,
)
from hvf_core.problem import Problem
from hvf_core.specs import Frozen

MANIFEST, _STATE = "adapted.json", "covariance.safetensors"
_VERSION = 1
_WAY_OUT = "run `adapt` again"
_CLOCKS_APART_H = 0.5
"""What the clock of the machine that recorded may be ahead."""


class Compared(Frozen):
    """A figure without and with what was fitted, which is never that of trials fitted on."""

    what: str
    n: PositiveInt
    """Trials."""
    before: tuple[float, float, float]
    """Value, and the ends of its 95 % interval."""
    after: tuple[float, float, float]
    difference: tuple[float, float, float]
    """After minus before, paired."""


class Adapted(Frozen):
    """All but the covariance; it holds for one bundle, one cap and some hours."""

    schema_version: int = _VERSION
    created_by: str
    made: AwareDatetime
    bundle: str
    """SHA-256 of its manifest."""
    channels: tuple[str, ...]
    """Of the stream, in its order, as the bundle calls them."""
    rate_hz: PositiveFloat
    n_trials: PositiveInt
    """That the covariance is made of: those without blinks and the like."""
    n_labelled: int = Field(ge=0)
    """Of which the gallery knows what was seen."""
    temperature: float | None = Field(ge=1e-3, le=1e5)
    """By which the bundle's temperatures are multiplied; None: not fitted."""
    light_s: float | None = Field(ge=-1, le=1)
    """From marker to light; None: not measured."""
    compared: tuple[Compared, ...]
    simulated: bool
    files: Mapping[str, str] = {}

    def check(self, bundle: Path, for_h: float) -> None:
        """Refuses what is of another bundle, of the future, or older than so many hours."""
        age_h = (datetime.now(UTC) - self.made) / timedelta(hours=1)
        if self.bundle != file_sha256(bundle / BUNDLE):
            raise Problem(
                f"what --adapted names was made for another bundle than '{bundle}', or before that "
                f"was calibrated anew: {_WAY_OUT}, or leave --adapted out"
            )
        if age_h < -_CLOCKS_APART_H:
            raise Problem(
                f"what --adapted names is of {self.made:%Y-%m-%d %H:%M} UTC, which is to come: "
                f"put the clock right, here or where it was recorded, and {_WAY_OUT}"
            )
        if age_h > for_h:
            raise Problem(
                f"what --adapted names is {age_h:.1f} hours old, at most {for_h:g} are allowed, as "
                f"caps move: {_WAY_OUT}, or allow more with --set decoding.adapted_for_h="
            )

    def check_cap(self, channels: Sequence[str], rate_hz: float) -> None:
        """Refuses the channels, or the rate, of another cap."""
        if self.channels != tuple(channels) or self.rate_hz != rate_hz:
            other = [name for name in channels if name not in self.channels]
            told = f"has {', '.join(other[:5])}" if other else "has them in another order"
            if self.channels == tuple(channels):
                told = f"comes at {rate_hz:g} Hz"
            raise Problem(
                f"what --adapted names was made with {len(self.channels)} channels at "
                f"{self.rate_hz:g} Hz, and this stream of {len(channels)} {told}: {_WAY_OUT} with "
                "this cap, or leave --adapted out"
            )

    def applied_to(self, manifest: BundleManifest) -> BundleManifest:
        """The bundle's, with today's temperatures."""
        if self.temperature is None or (fitted := manifest.calibration) is None:
            return manifest
        mean = tuple(tuple(self.temperature * value for value in row) for row in fitted.mean)
        # Those of added evidence come on top of these.
        return manifest.model_copy(update={"calibration": fitted.model_copy(update={"mean": mean})})

    def sentence(self) -> str:
        """What it does to a session."""
        told = [f"the covariance of {self.n_trials} trials"]
        if self.temperature is not None:
            sure = "less sure" if self.temperature > 1 else "surer"
            told.append(f"temperatures times {self.temperature:.2f} (answers are {sure})")
        if self.light_s is not None:
            told.append(f"images seen {1e3 * self.light_s:.1f} ms after their markers")
        return (
            f"adapted to the cap as of {self.made.astimezone():%Y-%m-%d %H:%M}: {', '.join(told)}"
        )


def save_adapted(folder: Path, adapted: Adapted, state: Mapping[str, np.ndarray]) -> None:
    """Writes it whole or not at all; `state` is that of an `Adaptation`."""
    with sealed_directory(folder, MANIFEST) as draft:
        files = {_STATE: write_tensors(draft / _STATE, state)}
        write_manifest(draft / MANIFEST, adapted.model_copy(update={"files": files}))


def open_adapted(folder: Path) -> tuple[Adapted, dict[str, np.ndarray]]:
    """Opens and verifies it, with the state for an `Adaptation`.

    Raises:
        Problem: it is missing or damaged.
    """
    adapted = read_manifest(folder, MANIFEST, Adapted, _VERSION, [_STATE])
    check_files(folder, adapted.files)
    state = load_file(folder / _STATE)
    check_finite(str(folder / _STATE), state)
    return adapted, state
