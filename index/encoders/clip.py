"""Image encoders of CLIP's kind, by open_clip."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

from PIL import Image
from torch import Tensor, nn

from hvf_core.specs import is_path
from hvf_core.torchvision_ops import declare_missing_ops
from index.encoders.parts import Parts
from index.encoders.spec import EncoderSpec


def open_visual(
    architecture: str | None, source: str, size_px: int | None = None
) -> tuple[nn.Module, Callable[..., Tensor]]:
    """A model's image half, and its own preprocessing of a PIL image.

    Raises what open_clip does where weights cannot be had, and ValueError for a file of pickles.
    """
    declare_missing_ops()
    import open_clip

    if is_path(source) and Path(source).suffix != ".safetensors":
        raise ValueError("only .safetensors files are read, as others can run code")
    with warnings.catch_warnings():
        if str(architecture).startswith("RN"):  # only the other half of these has GELUs
            warnings.filterwarnings("ignore", "QuickGELU mismatch")
        model, _, preprocess = open_clip.create_model_and_transforms(
            architecture, pretrained=source, force_image_size=size_px
        )
    return model.visual, preprocess


def load(spec: EncoderSpec) -> Parts:
    """Loads one; raises as `open_visual` does."""
    visual, preprocess = open_visual(spec.architecture, spec.source, spec.size_px or None)
    return Parts(
        visual, lambda image: preprocess(Image.fromarray(image)), visual, _unusual(spec, visual)
    )


def _unusual(spec: EncoderSpec, visual: nn.Module) -> Mapping[str, object]:
    """What decides the embeddings besides weights, where it is not as OpenAI's networks have it."""
    import open_clip
    from open_clip.transform import PreprocessCfg

    usual, actual = asdict(PreprocessCfg()), cast(dict[str, object], visual.preprocess_cfg)
    told = {
        name: value for name, value in actual.items() if name != "size" and value != usual[name]
    }
    if (open_clip.get_model_config(spec.architecture) or {}).get("quick_gelu"):
        told["quick_gelu"] = True
    return told
