"""How a session makes its trials, as its config says; for the reader and for who decodes again."""

from stream.acquire.adaptation import Adaptation
from stream.acquire.preprocess import Preprocessing
from stream.acquire.trial_stream import TrialPlan
from stream.pipeline.wire.config import LiveSource, SessionConfig, SessionSettings


def trial_plan(config: SessionSettings) -> TrialPlan:
    """What the settings of a session say of its trials; its models add what they know."""
    has_markers = not isinstance(config.source, LiveSource) or config.source.markers is not None
    return TrialPlan(
        window_s=(config.trials.tmin_s, config.trials.tmax_s),
        marker_rule=config.marker_rule,
        reject=config.reject,
        trigger=config.trigger,
        cross_check=config.trigger is not None and has_markers,
        history_s=config.trials.history_s,
        no_data_after_s=config.trials.no_data_after_s,
    )


def starting_adaptation(config: SessionConfig, preprocessing: Preprocessing) -> Adaptation | None:
    """The adaptation that a session begins with; None where it has none.

    Raises:
        Problem: the bundle has no trial covariance, or the resting recording cannot be used.
    """
    settings = config.decoding
    if settings.adaptation is None:
        return None
    if settings.rest is None:
        return Adaptation(preprocessing, settings.adaptation)
    # Here, as MNE takes a second to import.
    from stream.sources.cut_recording import rest_windows
    from stream.sources.read import read_recording

    rest = read_recording(settings.rest).corrected(config.channel_map, config.true_rate_hz)
    windows = rest_windows(rest, preprocessing)
    return Adaptation.from_rest(preprocessing, windows, settings.adaptation)
