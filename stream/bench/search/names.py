"""The names of what is measured; nothing here imports what searches."""

from importlib.util import find_spec

from index.search.kinds import AUTO, EXACT, GPU, MILVUS, NAMES
from index.search.milvus.indexes import INDEXES

PEERS = ("IndexFlatIP", *(("usearch",) if find_spec("usearch") else ()))
ON_SERVER = {f"{MILVUS}-{index}": index for index in INDEXES}
"""The kinds of search that a Milvus server takes part in, and the index of each."""
OFFERED = (*NAMES, *ON_SERVER, *PEERS)
USUAL = ",".join((AUTO, EXACT, GPU, *PEERS))
