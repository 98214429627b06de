"""How trials are preprocessed, apart from what does it: read where nothing heavy is loaded."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from hvf_core.settings import Settings, setting
from stream.acquire.trials import Window


class FilterSettings(Settings):
    """One Butterworth filter or notch. It delays what passes; train on data filtered alike."""

    kind: Literal["highpass", "lowpass", "notch"]
    freq_hz: float = setting(gt=0)
    order: int = setting(4, ge=1)
    """Of a high-pass or low-pass."""
    quality: float = setting(30.0, gt=0)
    """Of a notch: its frequency over its width at -3 dB."""


class PreprocessSettings(Settings):
    """What is done to a trial. Times are relative to onset; both ends belong to a range (MNE)."""

    channels: tuple[str, ...] = setting(option="--channels")
    """Channels that are taken, which the stream must have; reference and whitening are theirs."""
    output_channels: tuple[str, ...] = setting(option="--output-channels")
    """Channels that the brain encoder sees, in its order."""
    rate_hz: float = setting(option="--rate", gt=0)
    """Rate of the result; a faster stream is resampled."""
    tmin_s: float = setting(option="--tmin")
    """First sample of a trial, after its onset."""
    tmax_s: float = setting(option="--tmax")
    """Last sample of a trial, after its onset."""
    baseline_s: tuple[float, float] | None = (-0.2, 0.0)
    """Whose mean is subtracted, after onset."""
    kernel: Literal["one_sided", "two_sided"] = "one_sided"
    """That resamples; `two_sided` waits for samples after tmax, for 16 ms with a rate of 250 Hz."""
    filters: tuple[FilterSettings, ...] = ()
    """Causal, on the continuous stream, before trials are cut."""
    reference: str = setting("none", option="--reference")
    """`none`, `average` (of `channels`), or the name of one of `channels`."""
    whitening: Literal["none", "mvnn", "given"] = setting("mvnn", option="--whitening")
    """Of the channels, by the noise in the training trials; `given`: others have done so, and no
    stream can be decoded."""
    scaling: Literal["none", "robust"] = setting("none", option="--scaling")
    """`robust` divides each output channel by 1.4826 times its median absolute deviation."""

    @model_validator(mode="after")
    def _consistent(self) -> "PreprocessSettings":
        missing = [name for name in self.output_channels if name not in self.channels]
        if missing or len(set(self.channels)) != len(self.channels):
            raise ValueError(
                f"output channels {missing} are not among the channels, or one is twice"
            )
        if self.reference not in ("none", "average", *self.channels):
            raise ValueError(f"the reference '{self.reference}' is none of the channels")
        if self.tmin_s >= self.tmax_s:
            raise ValueError(f"tmin_s {self.tmin_s:g} must be below tmax_s {self.tmax_s:g}")
        if self.baseline_s is not None and self.baseline_s[0] > self.baseline_s[1]:
            raise ValueError(f"the baseline {self.baseline_s} ends before it begins")
        return self

    @property
    def n_times(self) -> int:
        return Window.of(self.tmin_s, self.tmax_s, self.rate_hz).count


def as_made(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a manifest has them; the older ones' kernel, the only one then, is added."""
    return {"kernel": "two_sided", **preprocessing}


class AdaptationSettings(Settings):
    """How fast, and how far, a session is adapted."""

    prior_trials: float = setting(20.0, gt=0)
    """Trials that the training's covariance counts as. On simulated 1/f noise (63 channels, 1 s)
    chance then moves an unchanged session by 8 % at most (25 % with 1 prior trial), and of a move
    of 34 % there are 16 % left after 20 trials and 9 % after 160 (23 % and 14 % with 80)."""
    rest_trials: float = setting(20.0, gt=0)
    """Trials that a resting recording counts as at most: rest is not quite what trials are."""
    max_gain: float = setting(3.0, ge=1)
    """No direction in the space of channels is amplified more; a flat channel asks for any gain."""
