"""Which markers of recordings become trials, and what is done to those."""

from hvf_core.settings import Settings, setting
from stream.acquire.markers import MarkerRule
from stream.acquire.reject import RejectSettings
from stream.acquire.settings import AdaptationSettings, PreprocessSettings


class PrepareSettings(Settings):
    """How training recordings become a trial set."""

    markers: MarkerRule = MarkerRule()
    """Which markers are stimuli."""
    reject: RejectSettings = RejectSettings()
    """Trials that are refused."""
    channel_map: dict[str, str] = setting({}, option="--rename")
    """Channels that the recordings call otherwise than they are to be called: MINE=ITS,MINE=ITS."""
    preprocessing: PreprocessSettings
    """What is done to a trial; it goes into the bundle."""
    per_session: bool = setting(False, option="--per-session")
    """Whiten and scale every session by itself, as THINGS-EEG2 is preprocessed."""


class PrepareTestSettings(Settings):
    """How recordings become trials that a bundle is tried on, as a live session cuts them."""

    markers: MarkerRule = MarkerRule()
    """Which markers are stimuli."""
    reject: RejectSettings = RejectSettings()
    """Trials that are refused."""
    channel_map: dict[str, str] = setting({}, option="--rename")
    """Channels that the recordings call otherwise than the bundle: MINE=ITS,MINE=ITS."""
    adaptation: AdaptationSettings | None = setting(None, option="--adapt")
    """Adapt to each recording's covariance, as live."""
