"""Indexes of a Milvus server that are offered, as data; nothing here imports its client."""

from collections.abc import Mapping
from typing import Any

from hvf_core.specs import Frozen


class ServerIndex(Frozen):
    """An index of Milvus, and how it is searched."""

    kind: str
    build: Mapping[str, Any] = {}
    search: Mapping[str, Any] = {}


INDEXES: Mapping[str, ServerIndex] = {
    "hnsw": ServerIndex(kind="HNSW", build={"M": 32, "efConstruction": 256}, search={"ef": 1500}),
    "ivf-sq8": ServerIndex(kind="IVF_SQ8", build={"nlist": 1024}, search={"nprobe": 128}),
    "flat": ServerIndex(kind="FLAT"),
}
