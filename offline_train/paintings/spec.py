"""Which networks score painted pictures: data, not code. Nothing here imports torch."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from hvf_core.hub.load import Source
from hvf_core.specs import Frozen, read_presets, read_spec, source_from


class FeatureNetSpec(Frozen):
    """One layer of one network, and how pictures are compared by it.

    By `kind`:

    - `torchvision`: `architecture` is a model of torchvision, `source` the name of its weights
      there, the https address of a checkpoint of it, or a .safetensors file.
    - `open_clip`: `source` is a pretrained tag of `architecture`, or a .safetensors file; the
      image embedding is taken. The architecture says which GELU is used: what OpenAI trained needs
      one of `...-quickgelu`, and gives other features with the plain one without any other sign.
    - `classifier`: `source` is a .safetensors file of `index.encoders.classifier.SemanticNet`.
    """

    name: str
    kind: Literal["torchvision", "open_clip", "classifier"]
    architecture: str | None = None
    source: str
    layer: str | None = None
    """Name of the module whose output is taken; None: what the network gives."""
    size_px: int = Field(gt=0)
    score: Literal["two_way", "distance"] = "two_way"
    published: Source | None = None
    """Where its weights are fetched from, if `source` does not say it."""


PAPER = tuple(read_presets(Path(__file__).with_name("paper.toml"), FeatureNetSpec).values())
"""The paper's, with the layers and sizes of MindEye2's evaluation, which it follows."""
SCORES = "scores"
"""What `offline_train fetch` calls them."""
SOURCES = tuple({one.place: one for one in (net.published for net in PAPER) if one}.values())


def read_feature_nets(file: Path) -> tuple[FeatureNetSpec, ...]:
    """Reads a JSON list of specs; their paths are taken relative to the file's folder.

    Raises:
        Problem: it cannot be read, or is no such list.
    """
    specs = read_spec(file, tuple[FeatureNetSpec, ...], "the list of feature networks")
    return tuple(
        spec.model_copy(update={"source": source_from(file.parent, spec.source)}) for spec in specs
    )
