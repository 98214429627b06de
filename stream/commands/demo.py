"""`demo`: a simulated subject sees images, which are decoded and painted as they are seen."""

import sys
from typing import Annotated

from hvf_core.options import Asked, Flag, as_arguments, with_settings
from hvf_core.problem import needed
from stream.commands.common import Headless, Out, new_config, new_id, own_streams, run
from stream.dashboard.ports import has_screen
from stream.pipeline.wire.config import SessionSettings


@with_settings(
    SessionSettings,
    *("demo", "decoding", "painting", "outputs", "about.form"),
    without=("decoding.rest", "painting.prior", "painting.base"),
)
def demo(
    asked: Asked[SessionSettings],
    no_paint: Annotated[bool, Flag("--no-paint", help="Decode, and paint nothing")] = False,
    no_dashboard: Annotated[
        bool, Flag("--no-dashboard", help="No page in the browser, as there is where one can open")
    ] = False,
    out: Out = None,
    headless: Headless = False,
) -> None:
    """A simulated subject sees images; every image is decoded as it is seen, and painted.

    Example: python run_realtime.py --trials 40 --repeats 4
    """
    from demo.model import ready_model
    from demo.settings import ASSETS, PRIOR
    from demo.stimuli import schedule

    if no_paint:
        asked = asked.without("painting", "--no-paint")
    if no_dashboard:
        asked = asked.without("outputs.page", "--no-dashboard")
    usual: dict[str, object] = {"demo": {}}
    usual |= {"outputs.page": {}} if sys.stdout.isatty() and has_screen() else {}
    models = {"bundle": ASSETS, "painting.prior": PRIOR, "painting.base": str(ASSETS)}
    settings = asked.settings({**usual, **models})
    shown, painting = needed(settings.demo), settings.painting
    # Refuses numbers that do not fit before anything is begun.
    schedule(shown.trials, shown.repeats, shown.seed)
    if painting is not None and "seed" not in painting.model_fields_set:
        painting = painting.model_copy(update={"seed": shown.seed})
    model = ready_model()
    session = new_id()
    streams, name = own_streams("hvf-demo", session)
    source = [sys.executable, "-m", "demo.live_subject", "--wait-for-go", "--name", name]
    source += as_arguments(shown)
    own = {"source": streams, "bundle": model.bundle, "gallery": model.gallery}
    own |= {"painting": painting, "seed": shown.seed, "simulated": True}
    with new_config(settings, out, session, **own) as config:
        run(config, headless, "simulated subject", source=source, n_trials=shown.trials)
