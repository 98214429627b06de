"""A Milvus server: the few things that are asked of it, each with a time-out and a sentence."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvf_core.problem import Problem
from index.search.milvus.settings import TOKEN, token

CONNECT_S, CALL_S, FLUSH_S = 10.0, 60.0, 600.0
"""How long is waited for a connection, for one call, and for the server's disk."""
FIRST_S = 30.0
"""How long a session's first question may take, for which a server may have to read its index."""
OLDEST, NEWEST = (2, 3), (3, 99)
"""Versions of the server whose answers are known."""
INSTALL = 'install it with `pip install -c constraints.txt -e ".[milvus]"`'
ROW, EMBEDDING = "row", "embedding"
"""The fields of a collection."""
PROPERTY = "hvf_live"
"""The collection's property that says of what it was made."""
_FEW = 1024
"""Of a segment's rows: for fewer Milvus builds no index, and looks at all."""


class Lost(Problem):
    """A server that is not reached, does not answer in time, or answers with a fault."""


def refuse_without_client() -> None:
    """Refuses to go on where the client is not installed.

    Raises:
        Problem: it is not.
    """
    if find_spec("pymilvus") is None:
        raise Problem(f"Milvus is asked through pymilvus, which is not installed: {INSTALL}")


class Server:
    """A connection to a Milvus server; it may be used by several threads.

    Args:
        uri: its address.
        timeout_s: for the connection, and for what is not waited for longer by its nature.

    Raises:
        Lost: it is not reached in time, or refuses the token.
        Problem: it is of a version that is not known, or there is no client.
    """

    def __init__(self, uri: str, timeout_s: float = CONNECT_S) -> None:
        refuse_without_client()
        from pymilvus import MilvusClient

        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it is all said in a sentence
        self.uri, self._timeout_s = uri, timeout_s
        with self._told("is not reached"):
            self._client = MilvusClient(uri, token=token(), timeout=timeout_s, dedicated=True)
        self._refuse_version()

    @cached_property
    def version(self) -> str:
        with self._told("does not say its version"):
            return str(self._client.get_server_version(timeout=self._timeout_s))

    def _refuse_version(self) -> None:
        found = re.search(r"(\d+)\.(\d+)", self.version)
        if found is None or not OLDEST <= (int(found[1]), int(found[2])) <= NEWEST:
            self.close()
            known = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}"
            raise Problem(
                f"the Milvus server at {self.uri} is of version '{self.version}', known are "
                f"{known}: use such a one, or another --search"
            )

    def close(self) -> None:
        self._client.close()

    def said_of(self, collection: str) -> str | None:
        """What a collection says it was made of, as it was written; None where there is none.

        Raises:
            Problem: the collection is another program's.
        """
        with self._told(f"does not tell of '{collection}'"):
            if not self._client.has_collection(collection, timeout=self._timeout_s):
                return None
            told = self._client.describe_collection(collection, timeout=self._timeout_s)
        said: Mapping[str, str] = told.get("properties") or {}
        if PROPERTY not in said:
            raise Problem(
                f"the collection '{collection}' at {self.uri} was not made by this program: give "
                "`gallery load-milvus` another --collection"
            )
        return said[PROPERTY]

    def create(
        self, collection: str, dim: int, said: str, kind: str, build: Mapping[str, Any]
    ) -> None:
        """Makes an empty collection of rows and embeddings, with an index by inner product."""
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ROW, DataType.INT64, is_primary=True)
        schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=dim)
        index = self._client.prepare_index_params()
        index.add_index(EMBEDDING, index_type=kind, metric_type="IP", params=dict(build))
        with self._told(f"does not make the collection '{collection}'"):
            self._client.create_collection(
                collection,
                schema=schema,
                index_params=index,
                properties={PROPERTY: said},
                timeout=CALL_S,
            )

    def say_of(self, collection: str, said: str) -> None:
        """Writes down anew what a collection is made of."""
        with self._told(f"does not change '{collection}'"):
            self._client.alter_collection_properties(
                collection, properties={PROPERTY: said}, timeout=CALL_S
            )

    def drop(self, collection: str) -> None:
        """Takes a collection away, if it is there."""
        with self._told(f"does not drop '{collection}'"):
            self._client.drop_collection(collection, timeout=CALL_S)

    def count(self, collection: str, before: int) -> int:
        """How many rows below a number the collection holds, those too that came just now."""
        with self._told(f"does not count the rows of '{collection}'"):
            found = self._client.query(
                collection,
                filter=f"{ROW} < {before}",
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
        return int(found[0]["count(*)"])

    def write(self, collection: str, first: int, embeddings: np.ndarray, *, anew: bool) -> None:
        """Writes embeddings (n, dim) into the rows from `first` on.

        Args:
            collection: which.
            first: row of the first one.
            embeddings: float32.
            anew: some of these rows may be there already.
        """
        rows = [{ROW: first + at, EMBEDDING: one} for at, one in enumerate(embeddings)]
        with self._told(f"did not take rows {first} to {first + len(rows) - 1} of '{collection}'"):
            write = self._client.upsert if anew else self._client.insert
            write(collection, rows, timeout=CALL_S)

    def make_ready(self, collection: str, timeout_s: float) -> None:
        """Has a collection in the server's memory, where it may not be any more."""
        with self._told(f"does not make '{collection}' ready"):
            self._client.load_collection(collection, timeout=timeout_s)

    def settle(self, collection: str) -> None:
        """Has what was written on the server's disk."""
        with self._told(f"does not write '{collection}' to its disk"):
            self._client.flush(collection, timeout=FLUSH_S)

    def n_unindexed(self, collection: str, n: int) -> int:
        """How many of a collection's n rows the server does not search by their index yet.

        Built, it is loaded a while later; until then rows that came just now are searched by what
        finds little: 46 % of the best five, of 10,000 images on Milvus 2.3.5.
        """
        with self._told(f"does not tell of the index of '{collection}'"):
            told = self._client.describe_index(collection, EMBEDDING, timeout=self._timeout_s)
            if pending := int((told or {}).get("pending_index_rows", 0)):
                return pending
            try:
                loaded = self._client.list_loaded_segments(collection, timeout=self._timeout_s)
            except Exception as error:
                if _code_of(error) == "UNIMPLEMENTED":  # as by Milvus Lite
                    return 0
                raise
        ready = (one.num_rows for one in loaded if one.index_name or one.num_rows < _FEW)
        return max(0, n - sum(ready)) if n >= _FEW else 0

    def nearest(
        self,
        collection: str,
        query: np.ndarray,
        k: int,
        how: Mapping[str, Any],
        timeout_s: float,
    ) -> NDArray[np.int64]:
        """The rows that the collection's index finds nearest to a query (dim,): k, or fewer."""
        with self._told(f"did not search '{collection}'"):
            hits = self._client.search(
                collection,
                data=[query],
                anns_field=EMBEDDING,
                limit=k,
                output_fields=[ROW],
                search_params={"params": dict(how)},
                consistency_level="Eventually",  # nothing is written while it is searched
                timeout=timeout_s,
            )[0]
            rows: Sequence[int] = hits.ids
            return np.array(rows, np.int64)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # its client raises what gRPC, its parsers and itself do
            raise Lost(
                f"the Milvus server at {self.uri} {what} ({_why(error)}): see that it runs, and is "
                "reached from here"
            ) from None


def _code_of(error: Exception) -> str:
    """What gRPC calls it; empty where it does not."""
    code = getattr(error, "code", None)
    return str(getattr(code() if callable(code) else code, "name", ""))


def _why(error: Exception) -> str:
    """In some words: what the client says goes over many lines."""
    name = _code_of(error)
    if name == "UNAUTHENTICATED" or "auth check failure" in str(error):
        return f"it refuses the token, which {TOKEN} should hold"
    if name == "DEADLINE_EXCEEDED":
        return "no answer in time"
    said = getattr(error, "details", None)
    text = str(said()) if callable(said) else str(getattr(error, "message", error))
    return " ".join(text.split())[:160] or type(error).__name__
