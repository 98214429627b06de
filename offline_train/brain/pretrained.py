"""Brain encoders that begin with weights of others, which are then learnt more slowly."""

from collections.abc import Sequence
from typing import Any

from pydantic import JsonValue
from torch import nn

from decoder.brain.base import BrainEncoder
from decoder.brain.names import BRAINDECODE
from decoder.brain.of_braindecode import OfBraindecode, Weights, find_weights
from decoder.brain.registry import make_brain_encoder
from hvf_core.problem import Problem
from offline_train.brain.settings import TrainSettings
from offline_train.data.trial_set import TrialFormat


def weights_of(settings: TrainSettings, format: TrialFormat) -> Weights | None:
    """The weights that a training begins with; None where all are drawn.

    Raises:
        Problem: they are not there, or not for this brain encoder or trials of this rate.
    """
    source = settings.encoder_weights
    if source is None:
        return None
    if settings.encoder not in BRAINDECODE:
        raise Problem(
            f"the weights '{source}' are for an encoder of braindecode, and '{settings.encoder}' "
            f"is none: give --encoder, one of {', '.join(BRAINDECODE)}"
        )
    found = find_weights(source)
    if found.rate_hz not in (None, format.rate_hz):
        raise Problem(
            f"the weights '{source}' were trained at {found.rate_hz:g} Hz, the trials have "
            f"{format.rate_hz:g} Hz: prepare them with --rate {found.rate_hz:g}"
        )
    return found


def refuse_unfit(settings: TrainSettings, format: TrialFormat) -> str:
    """Tries an encoder of braindecode and its weights on such trials; says whose they are.

    Raises:
        Problem: it cannot be imported or does not take them, or the weights do not fit.
    """
    weights = weights_of(settings, format)
    if settings.encoder not in BRAINDECODE:
        return ""
    sizes = (len(format.channels), format.n_times, settings.dim, settings.hidden)
    brain = make_brain_encoder(settings.encoder, *sizes, **told_of(format, weights))
    begin_with(brain, weights)
    if weights is None:
        return f"{settings.encoder} is of braindecode, and begins without weights"
    licence = weights.licence or "not said there: read what their authors say of it"
    return f"{settings.encoder} begins with the weights '{weights.source}', licence: {licence}"


def told_of(format: TrialFormat, weights: Weights | None) -> dict[str, Any]:
    """What `make_brain_encoder` is told of trials and weights, for encoders of braindecode."""
    options = {} if weights is None else weights.options
    return {"channels": format.channels, "rate_hz": format.rate_hz, "options": options}


def begin_with(brain: BrainEncoder, weights: Weights | None) -> list[nn.Parameter]:
    """Gives the encoder its weights, and back the parameters that have them.

    Raises:
        Problem: they do not fit it, or are damaged.
    """
    if weights is None or not isinstance(brain, OfBraindecode):
        return []
    return brain.take(weights.tensors(), weights.source)


def by_rate(model: nn.Module, begun: Sequence[nn.Parameter], share: float) -> list[dict[str, Any]]:
    """What an optimiser is told: `share` of the learning rate for what has weights of others."""
    theirs = {id(parameter) for parameter in begun}
    ours = [one for one in model.parameters() if id(one) not in theirs]
    groups: list[dict[str, Any]] = [{"params": [*begun], "share": share}] if begun else []
    return [*groups, {"params": ours, "share": 1.0}]


def told(weights: Weights) -> dict[str, JsonValue]:
    """What a bundle says of them."""
    return {"source": weights.source, "sha256": weights.sha256, "licence": weights.licence}
