"""Weights that others have published: where they are, how large, and how a loader comes by them.

What this machine's cache holds is taken without a question to the network. For what it lacks, the
hub is asked once whether it is there: its own library would ask for minutes, for each file, and say
each time that it does.
"""

import logging
import queue
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from hvf_core.hub.download import download
from hvf_core.problem import Problem
from hvf_core.specs import Frozen

T = TypeVar("T")
CHECKPOINTS = "checkpoints"
"""Where torch, in its cache, keeps the files of addresses; and `fetch` in the hub's, beside it."""
PATIENCE_S = 5.0
"""How long a hub may take to answer: a machine without a network is told so by then."""
TIMEOUT_S = 20.0
"""How long what has begun may stand still."""


class Source(Frozen):
    """Files of one repository on the hub, or the one file at an https address."""

    place: str
    files: tuple[str, ...] = ()
    """Patterns of names; of `A|B`, B counts where there is no A."""
    bytes: int = 0
    """How large they are, about; 0: not known."""
    licence: str = ""


def chosen(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a source's pattern means."""
    every = list(names)
    found = ([n for n in every if fnmatchcase(n, one)] for one in pattern.split("|"))
    return next(filter(None, found), [])


def as_size(n_bytes: float) -> str:
    """`13.9 GB`, `335 MB`, `2 kB`: as disks and the hub count."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"


def size_of(sources: Iterable[Source]) -> str:
    """Of all together, in words; nothing where one is not known."""
    each = [source.bytes for source in sources]
    return as_size(sum(each)) if all(each) else ""


def from_hub(what: str, sources: Iterable[Source], fetch: str, load: Callable[[], T]) -> T:
    """What `load` makes of weights that its library looks for in its cache, then on the hub.

    Args:
        what: what a `Problem` calls them, and what is lacking without them.
        sources: what `offline_train fetch` brings for them.
        fetch: what it calls that, if it does.
        load: is called with the hub out of reach first, then with it.

    Raises:
        Problem: they are not here, and the hub does not answer.
        Exception: whatever else `load` raises.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    was_offline = constants.HF_HUB_OFFLINE
    with _quiet():
        try:
            constants.HF_HUB_OFFLINE = True
            return load()
        except (OSError, RuntimeError) as fault:
            # Libraries make one of their own of what the hub's client raises.
            if not _is_from(fault, LocalEntryNotFoundError, OfflineModeIsEnabled):
                raise
        finally:
            constants.HF_HUB_OFFLINE = was_offline
        _refuse_silence(what, sources, fetch, constants.ENDPOINT)
        return load()


def file_at(what: str, address: str, sources: Iterable[Source], fetch: str) -> Path:
    """The one file at an address, from the caches of torch and of the hub, or else from there.

    Args:
        what, sources, fetch: as in `from_hub`.

    Raises:
        Problem: it is not here and nothing answers there, or it is damaged.
        huggingface_hub.errors.HTTPError: it cannot be had.
    """
    from huggingface_hub import constants
    from torch.hub import get_dir

    own = Path(get_dir()) / CHECKPOINTS / name_at(address)
    for file in (own, Path(constants.HF_HUB_CACHE) / CHECKPOINTS / own.name):
        if file.is_file():
            return file
    _refuse_silence(what, sources, fetch, address)
    print(f"downloading {address}", file=sys.stderr)
    draft = own.with_name(f"{own.name}.part")
    download(address, draft, digest_at(address))
    draft.replace(own)
    return own


def name_at(address: str) -> str:
    """The name that the file at an address is kept by."""
    return urlsplit(address).path.rpartition("/")[2]


def digest_at(address: str) -> str:
    """The beginning of its SHA-256, where its name has it, as those of torch's files do."""
    found = re.search(r"-([0-9a-f]{8,})\.", name_at(address))
    return found[1] if found else ""


def _refuse_silence(what: str, sources: Iterable[Source], fetch: str, address: str) -> None:
    """Raises a `Problem` that says how to come by weights if nothing answers at an address."""
    fault = silence_of(address)
    if fault is None:
        return
    size = size_of(sources)
    way_out = "connect to the network once"
    if fetch:
        way_out = (
            f"where there is a network, run `python -m offline_train fetch {fetch} --to DIR`"
            f"{f' ({size})' if size else ''}, copy DIR here, and set HF_HOME to its path"
        )
    raise Problem(f"there is no copy of {what} on this machine and {fault}: {way_out}")


def silence_of(address: str) -> str | None:
    """Why nothing can be had from an address, or None: whatever it answers, it is there."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    told: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            get_session().head(address, timeout=PATIENCE_S)
            told.put(None)
        except (HTTPError, OSError) as fault:
            told.put(f"{address} cannot be reached ({fault})")

    # Looking up a name, and trying each of its addresses, has no time-out that covers it all.
    threading.Thread(target=ask, daemon=True).start()
    try:
        return told.get(timeout=PATIENCE_S)
    except queue.Empty:
        return f"{address} cannot be reached (no answer in {PATIENCE_S:g} s)"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps libraries from telling of each try; what comes of them is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Of an argument that diffusers still gives to the hub's client.
            warnings.filterwarnings("ignore", ".*local_dir_use_symlinks.*")
            yield
    finally:
        logging.disable(before)


def _is_from(fault: BaseException | None, *kinds: type[BaseException]) -> bool:
    """Whether an exception, or one that it was made of, is of one of these kinds."""
    while fault is not None and not isinstance(fault, kinds):
        fault = fault.__cause__ or fault.__context__
    return fault is not None
