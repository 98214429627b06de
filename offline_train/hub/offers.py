"""What `fetch` can bring: image encoders, diffusion models, and networks that score paintings."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from decoder.painting.spec import BASE, read_base_spec
from decoder.painting.spec import PRESETS as BASES
from hvf_core.hub.load import Source
from hvf_core.problem import Problem
from index.encoders.published import to_fetch
from index.encoders.spec import ENCODERS, read_specs
from index.encoders.spec import PRESETS as ENCODER_PRESETS
from offline_train.paintings.spec import SCORES, SOURCES


class Offer(NamedTuple):
    """Something that has a name."""

    name: str
    about: str
    sources: tuple[Source, ...]


def offers() -> Iterator[Offer]:
    """All that has a name."""
    for name, preset in ENCODER_PRESETS.items():
        yield Offer(name, preset.about, _once(s for e in preset.encoders for s in to_fetch(e)[0]))
    for name, named in ENCODERS.items():
        yield Offer(name, named.about, to_fetch(named.spec)[0])
    for name, base in BASES.items():
        steps = "1 step" if base.steps == 1 else f"{base.steps} steps"
        yield Offer(name, f"paints, in {steps} at {base.size_px} px", base.sources)
    yield Offer(SCORES, "the networks that paintings are scored by", SOURCES)


def sources_named(what: str) -> tuple[Source, ...] | None:
    """Where that is which a person calls so; None for what can only be a bundle.

    Raises:
        Problem: it is nothing of what there is, or has nothing that could be fetched.
    """
    for offer in offers():
        if offer.name == what:
            return offer.sources
    path = Path(what)
    if path.is_dir() or path.name == BASE:
        found = read_base_spec(path).sources
    elif path.is_file() or any(sign in what for sign in ":,@"):
        found = _once(source for spec in read_specs(what) for source in to_fetch(spec)[0])
    elif "/" in what:
        return None
    else:
        raise Problem(
            f"'{what}' is nothing that can be fetched: give a name of those that `python -m "
            "offline_train fetch` shows, an image encoder (docs/encoders.md), a folder with "
            f"{BASE}, or a bundle as OWNER/NAME"
        )
    if not found:
        raise Problem(f"'{what}' is all on this machine: there is nothing of it to fetch")
    return found


def _once(sources: Iterator[Source]) -> tuple[Source, ...]:
    return tuple(dict.fromkeys(sources))
