"""How a session makes and announces its trials: for the reader, and who is in its place."""

from stream.acquire.adaptation import Adaptation
from stream.acquire.markers import Event
from stream.acquire.preprocess import Preprocessing
from stream.acquire.trial_stream import TrialPlan
from stream.pipeline.wire.config import LiveSource, SessionConfig, SessionSettings
from stream.pipeline.wire.messages import MarkerSeen, TrialRef


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


def trial_ref(session: str, number: int, event: Event) -> TrialRef:
    """What messages of a trial are about."""
    return TrialRef(
        session=session,
        trial=number,
        stimulus=event.stimulus,
        group=event.group,
        repeat=event.repeat,
        onset_s=event.onset_s,
        block=event.block,
    )


def announcement(session: str, number: int, event: Event) -> MarkerSeen:
    """The message of a marker that opens a trial."""
    return MarkerSeen(
        about=trial_ref(session, number, event),
        readable_s=event.readable_s,
        text=event.text,
        sent_s=event.sent_s,
        mark=event.mark,
    )
