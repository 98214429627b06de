"""How a session makes and announces its trials: for the reader, and who is in its place."""

import shutil

import numpy as np

from hvf_core.artifact import file_sha256
from hvf_core.problem import naming
from stream.acquire.adaptation import Adaptation
from stream.acquire.adapted import MANIFEST, Adapted, open_adapted
from stream.acquire.markers import Event
from stream.acquire.preprocess import Preprocessing
from stream.acquire.trial_stream import TrialPlan
from stream.pipeline.wire.config import LiveSource, SessionConfig, SessionSettings
from stream.pipeline.wire.messages import MarkerSeen, TrialRef

TAKEN_ALONG = "adapted"
"""In the session folder: what it was adapted by, so that it can be decoded again."""


def take_along(config: SessionConfig) -> SessionConfig:
    """Copies what a session is adapted by into its folder, and applies what is of its markers."""
    source = config.decoding.adapted
    if source is None:
        return config
    kept = config.folder / TAKEN_ALONG
    with naming(kept):
        shutil.copytree(source, kept)
    adapted, _ = open_adapted(kept)
    rule = config.marker_rule
    shifted = rule.model_copy(update={"shift_s": rule.shift_s + (adapted.light_s or 0.0)})
    checksum = file_sha256(kept / MANIFEST)
    return config.model_copy(update={"marker_rule": shifted, "adapted_sha256": checksum})


def adapted_of(config: SessionConfig) -> tuple[Adapted, dict[str, np.ndarray]] | None:
    """What a session was adapted by before it began, as it has kept it."""
    return None if config.adapted_sha256 is None else open_adapted(config.folder / TAKEN_ALONG)


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
        adaptation = Adaptation(preprocessing, settings.adaptation)
        if (found := adapted_of(config)) is not None:
            adaptation.go_on_from(found[1])
        return adaptation
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
