"""Kinds of approximate search, as data; nothing here imports FAISS."""

from collections.abc import Mapping

from pydantic import Field

from hvf_core.specs import Frozen


class Kind(Frozen):
    """An index of FAISS that names the images whose cosines are then computed exactly."""

    factory: str
    """For `faiss.index_factory`; `{dims}` and `{lists}` are filled in."""
    dims: int | None = None
    """Principal components that it is made of, at most all; None for the embeddings as they are."""
    efforts: tuple[float, ...] = Field(min_length=1)
    """What is tried: the share of the lists that is looked into, or the width of a graph's beam."""
    tried_up_to: int | None = None
    """`auto` leaves it out for more images, as it takes long to build; None: for no number."""


_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
_BEAMS = (64.0, 128.0, 256.0, 512.0)

KINDS: Mapping[str, Kind] = {
    "ivf-pq64": Kind(factory="IVF{lists},PQ{dims}x4fs", dims=64, efforts=_SHARES),
    "ivf-pq128": Kind(factory="IVF{lists},PQ{dims}x4fs", dims=128, efforts=_SHARES),
    "ivf-pq256": Kind(factory="IVF{lists},PQ{dims}x4fs", dims=256, efforts=_SHARES),
    "ivf-rabitq": Kind(factory="IVF{lists},RaBitQfs", efforts=_SHARES),
    "ivf-sq8": Kind(factory="IVF{lists},SQ8", dims=128, efforts=_SHARES),
    "hnsw": Kind(factory="HNSW32,SQ8", dims=128, efforts=_BEAMS, tried_up_to=100_000),
}
AUTO, EXACT = "auto", "exact"
GPU, GPU_HALF, GPU_IVF = "faiss-gpu", "faiss-gpu-half", "faiss-gpu-ivf"
OF_GPU_IVF = "ivf-sq8"
"""The kind of index that FAISS has a form of for GPUs."""
NAMES = (AUTO, EXACT, *KINDS, GPU, GPU_HALF, GPU_IVF)
"""What finds images on this machine."""
FEWEST = 1000
"""Fewer images are always searched exactly."""
MILVUS = "milvus"
"""What has a server find them."""
MAKE = "make it again with `python -m offline_train gallery index GALLERY`"
"""The way out wherever an index is of no use."""
