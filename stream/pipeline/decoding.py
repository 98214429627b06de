"""A session's decoder, as its config asks for it: the same one live and decoded again offline."""

from collections.abc import Callable

import torch

from decoder.anytime import Shares, shares_of
from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle
from decoder.engines.graph import Scored, UnitLength
from decoder.engines.open import Engine, open_engine
from decoder.live import LiveDecoder
from hvf_core.artifact import cache_folder
from index.gallery import Gallery, check_space
from index.ranking import Ranker
from index.search.flat import Flat
from stream.pipeline.wire.config import SessionConfig

_SCORED_UP_TO = 50_000  # images: on a GPU a larger gallery is searched by the CPU

Say = Callable[[str, dict], None]
"""Takes a sentence that a person should know, and facts for the summary."""


def open_decoder(
    config: SessionConfig, bundle: Bundle, gallery: Gallery, clock: Callable[[], float], say: Say
) -> LiveDecoder:
    """Makes the decoder of a session; `clock`, in seconds, stamps its answers.

    Raises:
        Problem: the bundle cannot be used, or the gallery is of another space.
    """
    manifest, settings = bundle.manifest, config.decoding
    marks = manifest.marks(settings.tmax_s)
    shares = shares_of(load_brain_encoder(bundle), marks)
    decoder = LiveDecoder(
        manifest,
        shares,
        marks,
        *looked_up_in(gallery, config, bundle, shares, say),
        evidence=settings.evidence,
        top_k=config.top_k,
        min_confidence=settings.min_confidence,
        clock=clock,
        say=lambda sentence: say(sentence, {}),
    )
    if manifest.calibration is None:
        say("the bundle is not calibrated: its probabilities are not to be believed", {})
    return decoder


def looked_up_in(
    gallery: Gallery, config: SessionConfig, bundle: Bundle, shares: Shares, say: Say
) -> tuple[Ranker, Engine]:
    """What answers are looked up with: in a new decoder, or by `LiveDecoder.look_up_in`.

    On a GPU the engine of averaged evidence searches the gallery in the same pass; what is added
    is no embedding of the engine's.

    Raises:
        Problem: the gallery is of another space than the bundle.
    """
    check_space(gallery, bundle.manifest.space)
    settings = config.decoding
    network = UnitLength(shares.rest)
    searches = torch.cuda.is_available() and len(gallery) <= _SCORED_UP_TO
    if searches and settings.evidence == "mean":
        network = Scored(network, torch.from_numpy(gallery.embeddings))
    engine = open_engine(
        network,
        shares.rest_shape,
        settings.engine,
        precision=settings.precision,
        cache=cache_folder(),
        say=lambda sentence: say(sentence, {}),
    )
    facts = {"engine": engine.name, "precision": engine.precision}
    say(f"the engine is {engine.name} in {engine.precision}", facts)
    return Ranker(Flat(gallery.embeddings), gallery), engine
