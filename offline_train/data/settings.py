"""Which markers of recordings become trials, and what is done to those."""

from hvf_core.settings import Settings, setting
from stream.acquire.markers import MarkerRule
from stream.acquire.reject import RejectSettings
from stream.acquire.settings import AdaptationSettings, PreprocessSettings
from stream.sources.settings import ReadSettings


class RecordingPart(ReadSettings):
    """What of each recording is read."""

    stop_s: float | None = setting(None, option="--stop")
    """End so far into the recording; at its end by default."""
    pickles: bool = setting(False, option="--pickles")
    """Read what is saved as a pickle: arrays and plain values of it, and no code."""


class CutSettings(Settings):
    """How recordings become trials."""

    recording: RecordingPart = RecordingPart()
    """What of each recording is read."""
    markers: MarkerRule = MarkerRule()
    """Which markers are stimuli."""
    reject: RejectSettings = RejectSettings()
    """Trials that are refused."""
    channel_map: dict[str, str] = setting({}, option="--rename")
    """Channels that the recordings call otherwise than the model does: MINE=ITS,MINE=ITS."""
    true_rate_hz: float | None = setting(None, option="--true-rate", gt=0)
    """Of recordings that declare a wrong one."""
    workers: int | None = setting(None, option="--workers", ge=1)
    """Processes that cut recordings side by side; as many as cores and memory allow by default."""


class PrepareSettings(CutSettings):
    """How training recordings become a trial set."""

    preprocessing: PreprocessSettings
    """What is done to a trial; it goes into the bundle."""
    per_session: bool = setting(False, option="--per-session")
    """Whiten and scale every session by itself, as THINGS-EEG2 is preprocessed."""
    classes: bool = setting(False, option="--classes")
    """Stimuli are classes (`mbp --labels`), and training and test may show the same ones."""


class PrepareTestSettings(CutSettings):
    """How recordings become trials that a bundle is tried on, as a live session cuts them."""

    adaptation: AdaptationSettings | None = setting(None, option="--adapt")
    """Adapt to each recording's covariance, as live."""
