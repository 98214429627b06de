"""A session's decoder, as its config asks for it: the same one live and decoded again offline."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from decoder.anytime import Shares, shares_of
from decoder.brain.registry import load_brain_encoder
from decoder.bundle import Bundle
from decoder.calibration import CALIBRATE
from decoder.devices import device_of
from decoder.engines.compiled import can_run
from decoder.engines.graph import Scored, UnitLength
from decoder.engines.open import Engine, open_engine
from decoder.live import LiveDecoder
from hvf_core.artifact import cache_folder
from hvf_core.problem import Problem, needed
from index.gallery import Gallery, check_space
from index.ranking import Ranker
from index.search.base import Search
from index.search.kinds import AUTO, EXACT, FEWEST, MILVUS
from index.search.measure import Figures
from index.search.open import open_search
from stream.pipeline.galleries import open_accepted
from stream.pipeline.trials import adapted_of
from stream.pipeline.wire.config import SessionConfig

_SCORED_UP_TO = 50_000  # images: on a GPU a larger gallery is searched after the network has run

Say = Callable[[str, Mapping[str, Any]], None]
"""Takes a sentence that a person should know, and facts for the summary."""


def open_decoder(
    config: SessionConfig, bundle: Bundle, gallery: Gallery, clock: Callable[[], float], say: Say
) -> LiveDecoder:
    """Makes the decoder of a session; `clock`, in seconds, stamps its answers.

    Raises:
        Problem: the bundle cannot be used, or the gallery is of another space.
    """
    manifest, settings = bundle.manifest, config.decoding
    if (found := adapted_of(config)) is not None:
        manifest = found[0].applied_to(manifest)
    check_space(gallery, manifest)
    shares = shares_of(load_brain_encoder(bundle), manifest.marks(settings.tmax_s))
    decoder = LiveDecoder(
        manifest,
        shares,
        Ranker(_search(gallery, config, say), gallery),
        _engine(gallery, shares, config, say),
        evidence=settings.evidence,
        top_k=config.top_k,
        min_confidence=settings.min_confidence,
        clock=clock,
        say=lambda sentence: say(sentence, {}),
    )
    if manifest.calibration is None:
        untrue = "the bundle is not calibrated: its probabilities are not to be believed"
        say(f"{untrue}; {CALIBRATE}", {})
    return decoder


class Prepared(NamedTuple):
    """A gallery that is ready to be searched."""

    gallery: Gallery
    ranker: Ranker
    engine: Engine | None
    """What finds its cosines as it embeds; None where there is none yet, or any engine will do."""
    said: "Later"
    """What there is to say of it."""


class Later:
    """What a search says: kept until the decoder looks up in it, and passed on from then."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Mapping[str, Any]]] = []
        self._say: Say = lambda *one: self.kept.append(one)

    def __call__(self, sentence: str, facts: Mapping[str, Any]) -> None:
        self._say(sentence, facts)

    def pass_on(self, say: Say) -> None:
        """To whom it is said, now and later."""
        self._say = say
        for sentence, facts in self.kept:
            say(sentence, facts)


def prepare(config: SessionConfig, decoder: LiveDecoder) -> Prepared:
    """Makes the gallery of a session ready, beside a decoder that looks up in another.

    Its embeddings are gone through once: the first answer would else wait for the pages of a file
    that was just mapped, 80 ms with 100,000 images.

    Raises:
        Problem: it cannot be opened, or not be searched in this way, or is of another space.
    """
    gallery = open_accepted(config)
    check_space(gallery, decoder.manifest)
    said = Later()
    search = _search(gallery, config, said)
    search.scores(gallery.embeddings[gallery.rows[0]])
    engine = None
    if not _on_gpu(config) and _may_search(config, decoder.shares):
        engine = _engine(gallery, decoder.shares, config, said)
    return Prepared(gallery, Ranker(search, gallery), engine, said)


def look_up_in(new: Prepared, decoder: LiveDecoder, config: SessionConfig, say: Say) -> None:
    """Gives a decoder another gallery; what repeats have shown is kept.

    On a GPU its engine is made here: while a thread captures a graph, none may use the card.
    """
    engine = new.engine
    if _on_gpu(config) and _may_search(config, decoder.shares):
        engine = _engine(new.gallery, decoder.shares, config, say)
    if engine is not None:
        decoder.engine = engine
    decoder.ranker = new.ranker
    new.said.pass_on(say)


def _search(gallery: Gallery, config: SessionConfig, say: Say) -> Search:
    settings = config.decoding
    if settings.search != MILVUS:
        return _search_here(gallery, settings.search, config, say)
    from index.search.milvus.search import open_milvus  # Milvus's client takes its time

    said = Later()
    local = _search_here(gallery, AUTO, config, said)
    try:
        search, figures = open_milvus(gallery, needed(settings.milvus), local, say)
    except Problem as problem:
        say(f"{problem}; meanwhile the gallery is searched on this machine", {})
        said.pass_on(say)
        return local
    _tell(search, figures, len(gallery), say)
    for sentence, _ in said.kept:
        say(f"should the server be lost: {sentence}", {})
    return search


def _search_here(gallery: Gallery, kind: str, config: SessionConfig, say: Say) -> Search:
    on_gpu = _on_gpu(config)

    def open_it(kind: str) -> Search:
        return open_search(gallery, kind, lambda sentence: say(sentence, {}), on_gpu=on_gpu)

    try:
        search = open_it(kind)
    except Problem as problem:  # as where its index was not made anew with the gallery
        say(f"{problem}; meanwhile the gallery is searched exactly", {})
        search = open_it(EXACT)
    if search.exact:
        facts: dict[str, Any] = {"search": search.kind, "is_exact": True}
        say(f"the search of {len(gallery)} images is exact", facts)
        return search
    from index.search.stored import read_search  # it has read it already

    _tell(search, needed(read_search(gallery)).chosen, len(gallery), say)
    return search


def _tell(search: Search, told: Figures, n_images: int, say: Say) -> None:
    """How good a search was that is not exact."""
    facts = told.model_dump(include={"recall_5", "log_p_error", "p_error", "queries"})
    say(
        f"the search of {n_images} images is '{search.kind}', which is not exact: with "
        f"{told.queries} queries it found {told.recall_5:.1%} of the best five, and probabilities "
        f"were {told.p_error:.2%} off",
        {"search": search.kind, "is_exact": False, **facts},
    )


def _may_search(config: SessionConfig, shares: Shares) -> bool:
    """Whether engines of this encoder may look at the gallery in the same pass: not for what is
    added, which is no embedding of theirs, and on a CPU the compiled one only, since BLAS does not
    give equal images equal cosines.
    """
    settings = config.decoding
    if settings.evidence != "mean":
        return False
    if _on_gpu(config):
        return True
    return settings.engine in ("auto", "compiled") and can_run(UnitLength(shares.rest))


def _on_gpu(config: SessionConfig) -> bool:
    return device_of(config.decoding.device).type == "cuda"


def _engine(gallery: Gallery, shares: Shares, config: SessionConfig, say: Say) -> Engine:
    settings, on_gpu = config.decoding, _on_gpu(config)
    unit = UnitLength(shares.rest)

    def open_it(network: torch.nn.Module) -> Engine:
        return open_engine(
            network,
            shares.rest_shape,
            settings.engine,
            precision=settings.precision,
            device=settings.device,
            cache=cache_folder(),
            say=lambda sentence: say(sentence, {}),
        )

    is_small = gallery.n_rows <= _SCORED_UP_TO
    if not on_gpu:  # fewer than an index is ever made of
        is_small = gallery.n_rows < FEWEST and settings.search in (AUTO, EXACT)
    searches = is_small and _may_search(config, shares)
    engine = open_it(Scored(unit, torch.from_numpy(gallery.embeddings)) if searches else unit)
    if searches and not on_gpu and engine.name != "compiled":
        engine = open_it(unit)
    facts = {
        "engine": engine.name,
        "precision": engine.precision,
        "device": str(device_of(settings.device)),
    }
    say(f"the engine is {engine.name} in {engine.precision}", facts)
    return engine
