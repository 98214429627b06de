"""Image encoders of CLIP's kind, by open_clip."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from hvf_core.specs import is_path
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.parts import Parts
from index.encoders.spec import EncoderSpec


def open_visual(architecture: str | None, source: str) -> tuple[nn.Module, Callable[..., Tensor]]:
    """A model's image half, and its own preprocessing of a PIL image.

    Raises what open_clip does where weights cannot be had, and ValueError for a file of pickles.
    """
    declare_missing_ops()
    import open_clip

    if is_path(source) and Path(source).suffix != ".safetensors":
        raise ValueError("only .safetensors files are read, as others can run code")
    model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=source)
    return model.visual, preprocess


def load(spec: EncoderSpec) -> Parts:
    """Loads one; raises as `open_visual` does."""
    visual, preprocess = open_visual(spec.architecture, spec.source)
    return Parts(visual, lambda image: preprocess(Image.fromarray(image)), visual)
