"""Search over Milvus: a server names images in time, or this machine finds them itself."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from hvf_core.problem import Problem
from hvf_core.swift import Aside
from index.gallery import Gallery
from index.search.approximate import Approximate
from index.search.base import Scores, Search
from index.search.dense import places_in
from index.search.kinds import MILVUS
from index.search.measure import Figures
from index.search.milvus.indexes import INDEXES
from index.search.milvus.kept import (
    N_CANDIDATES,
    Provenance,
    read_kept,
    read_moments,
    refuse_other,
)
from index.search.milvus.server import CONNECT_S, FIRST_S, Lost, Server
from index.search.milvus.settings import TOKEN, MilvusSettings, in_the_clear, token
from index.search.remainder import Moments

Say = Callable[[str, Mapping[str, Any]], None]
"""Takes a sentence that a person should know, and facts for the summary."""
_AGAIN_S, _AGAIN_MOST_S = 1.0, 30.0
"""After a failure the server is asked again so much later, each time twice as long."""


class Named:
    """What a server's index names, as an `index.search.approximate.Index`.

    One question is on its way at a time, on a thread of its own: nobody waits for it longer than
    the deadline, whatever the client does.

    Args:
        server: which.
        collection: on it.
        made_of: what the collection is.
        counted: the rows that count, rising; None for all.
        deadline_s: how long a question may take.
    """

    def __init__(
        self,
        server: Server,
        collection: str,
        made_of: Provenance,
        counted: NDArray[np.int64] | None,
        deadline_s: float,
    ) -> None:
        self.ntotal = made_of.n_rows
        self._server, self._collection = server, collection
        self._how = INDEXES[made_of.index].search
        self._counted, self._deadline_s = counted, deadline_s
        self._aside = Aside()

    def search(
        self, queries: np.ndarray, k: int, *, params: faiss.SearchParameters
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows that are named for the one query, as FAISS gives them; without cosines.

        Raises:
            Lost: the server fails, or takes too long.
        """
        asked = self._aside.begin(partial(self._ask, queries[0], k, 2 * self._deadline_s))
        try:
            rows = asked.result(self._deadline_s)
        except TimeoutError:
            raise self._late() from None
        if self._counted is not None:
            rows = rows[places_in(self._counted, rows)[1]]
        return np.empty((1, len(rows)), np.float32), rows[None]

    def ask(self, query: np.ndarray, timeout_s: float) -> None:
        """Asks for nobody, as the first question takes longer; then several threads may ask.

        Raises:
            Lost: as above.
        """
        self._aside.begin(partial(self._ask, query, N_CANDIDATES, timeout_s)).result()

    def ask_aside(self, query: np.ndarray, gallery: Gallery) -> Future[None]:
        """Asks whether the server is there again, in time and with the same collection."""

        def ask() -> None:
            refuse_other(self._server, self._collection, gallery)
            began_s = time.perf_counter()
            self._ask(query, N_CANDIDATES, CONNECT_S)
            if time.perf_counter() - began_s > self._deadline_s:
                raise self._late()

        return self._aside.begin(ask)

    def _ask(self, query: np.ndarray, k: int, timeout_s: float) -> NDArray[np.int64]:
        rows = self._server.nearest(self._collection, query, k, self._how, timeout_s)
        return rows[rows < self.ntotal]  # it may have grown since, for a gallery that did

    def _late(self) -> Lost:
        return Lost(
            f"the Milvus server at {self._server.uri} did not answer within "
            f"{1e3 * self._deadline_s:g} ms"
        )


class Milvus:
    """Asks a server, and searches on this machine where it fails; see `index.search.base.Search`.

    A server that has failed is asked again beside answers, which do not wait for it: it is taken
    back when it has answered such a question in time.

    Args:
        found: what the server names, with exact cosines.
        named: the same server.
        local: finds what the server does not.
        gallery: what is searched.
        say: hears, on the thread that searches, when the server is lost and when it is back.
    """

    kind, exact = MILVUS, False

    def __init__(
        self, found: Approximate, named: Named, local: Search, gallery: Gallery, say: Say
    ) -> None:
        self.among = found.among
        self._found, self._named, self._local = found, named, local
        self._gallery, self._say = gallery, say
        self._is_lost, self._wait_s, self._again_s = False, _AGAIN_S, 0.0
        self._asked: Future[None] | None = None
        self.n_local = 0
        """How many answers were found on this machine, as the server had failed."""
        self._told = 0

    def scores(self, vector: np.ndarray) -> Scores:
        if self._is_lost and not self._is_back(vector):
            return self._locally(vector)
        try:
            return self._found.scores(vector)
        except Lost as lost:
            self._is_lost, self._again_s = True, time.monotonic() + self._wait_s
            self._told = 2 * (self.n_local + 1)
            where = f"on this machine ('{self._local.kind}') until it does"
            facts = {"milvus_fallbacks": self.n_local + 1}
            self._say(f"{lost}; answers are found {where}", facts)
            return self._locally(vector)

    def _locally(self, vector: np.ndarray) -> Scores:
        self.n_local += 1
        if self.n_local >= self._told > 0:
            self._told *= 2
            said = (
                f"{self.n_local} answers were found on this machine in place of the Milvus server"
            )
            self._say(said, {"milvus_fallbacks": self.n_local})
        return self._local.scores(vector)

    def _is_back(self, vector: np.ndarray) -> bool:
        """Looks for an answer to what was asked beside, or asks it."""
        if self._asked is None:
            if time.monotonic() >= self._again_s:
                query = np.array(vector, np.float32)
                self._asked = self._named.ask_aside(query, self._gallery)
            return False
        if not self._asked.done():
            return False
        failed, self._asked = self._asked.exception(), None
        if failed is not None:
            self._wait_s = min(2 * self._wait_s, _AGAIN_MOST_S)
            self._again_s = time.monotonic() + self._wait_s
            return False
        self._is_lost, self._wait_s, self._told = False, _AGAIN_S, 0
        said = f"the Milvus server answers again, after {self.n_local} answers without it"
        self._say(said, {"milvus_fallbacks": self.n_local})
        return True


def named_by(
    gallery: Gallery,
    server: Server,
    collection: str,
    made_of: Provenance,
    moments: Moments,
    deadline_s: float,
) -> tuple[Approximate, Named]:
    """Search among what a server names, and what asks it; it has read its index by then.

    Raises:
        Lost: it fails, or takes longer than `FIRST_S`.
    """
    rows = gallery.rows if len(gallery.removed) else None
    named = Named(server, collection, made_of, rows, deadline_s)
    named.ask(gallery.embeddings[gallery.rows[0]], FIRST_S)
    return Approximate(gallery.embeddings, named, 0.0, N_CANDIDATES, moments, rows), named


def open_milvus(
    gallery: Gallery,
    settings: MilvusSettings,
    local: Search,
    say: Say,
) -> tuple[Search, Figures]:
    """The search of a gallery over the server that holds its index.

    Args:
        gallery: what is searched.
        settings: the server.
        local: finds what the server does not.
        say: as in `Milvus`.

    Returns:
        It, and how good it was when the gallery was loaded.

    Raises:
        Problem: the gallery was not loaded, the collection is another's or not whole, or the server
            is not reached or of another version.
    """
    kept = read_kept(gallery)
    moments = read_moments(gallery, kept)
    server = Server(settings.uri)
    try:
        refuse_other(server, kept.collection, gallery)
        found, named = named_by(
            gallery, server, kept.collection, kept.made_of, moments, settings.deadline_s
        )
    except Problem:
        server.close()
        raise
    if in_the_clear(settings.uri):
        also = f", and the token of {TOKEN}" if token() else ""
        say(
            f"embeddings of the brain go to {settings.uri}{also}, for all to read who are on the "
            "way: give an https:// address",
            {},
        )
    return Milvus(found, named, local, gallery, say), kept.figures
