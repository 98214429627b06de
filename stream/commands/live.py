"""`live`: decodes the LSL streams of an amplifier and of a stimulus program."""

from hvf_core.options import Asked, with_settings
from hvf_core.problem import WrongUsage, needed
from stream.commands.common import Headless, Out, new_config, new_id, run
from stream.pipeline.wire.config import SessionSettings


@with_settings(SessionSettings, without=("demo", "replay"))
def live(asked: Asked[SessionSettings], out: Out = None, headless: Headless = False) -> None:
    """Decodes streams that are there; without a bundle it cuts, accounts and saves.

    Example: python run_realtime.py live --eeg BrainVision --markers PsychoPy --bundle my-bundle
    """
    settings = asked.settings({"source": {}})
    source = needed(settings.source)
    is_left_out = asked.given("source.markers") is None  # `none` asks for a session without trials
    if is_left_out and source.markers is None and settings.trigger is None:
        raise WrongUsage("give --markers, or --trigger, or both to compare them")
    with new_config(settings, out, new_id()) as config:
        run(config, headless, f"live '{source.eeg}'")
