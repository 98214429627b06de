"""Encodes SDXL's empty prompt once, so that nothing that paints needs a text encoder."""

from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from decoder.painting.base import ModelFiles, empty_prompt_file
from decoder.painting.spec import BaseSpec
from hvf_core.artifact import usual_mode, whole_file
from hvf_core.problem import Problem

# Once decoder.painting.base has made it importable.
from diffusers import StableDiffusionXLPipeline  # isort: skip


def encode_empty_prompt(spec: BaseSpec) -> dict[str, tuple[int, ...]]:
    """Writes the empty prompt of a base model where `load_base` looks for it.

    SDXL's two text encoders, 3.3 GB, are loaded for this once. The prompt is really encoded, as in
    the training of IP-Adapters; it is not zeros.

    Returns:
        The shapes of what was written, by name.

    Raises:
        Problem: transformers is not installed, or the text encoders cannot be had.
    """
    tensors = ModelFiles(spec).get("the text encoders", spec.source, lambda: _encoded(spec.source))
    file = empty_prompt_file(spec)
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as draft, usual_mode(draft):
        save_file({name: t.half().contiguous() for name, t in tensors.items()}, draft)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@torch.inference_mode()
def _encoded(source: str) -> dict[str, Tensor]:
    try:
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
    except ImportError:
        raise Problem(
            "the empty prompt is encoded with transformers, which is not installed: run "
            "`pip install -c constraints.txt -e '.[sdxl]'`"
        ) from None
    kinds: dict[str, Any] = {
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
    }
    parts = {
        name: kind.from_pretrained(source, subfolder=name, use_safetensors=True)
        for name, kind in kinds.items()
    }
    encoder: Any = StableDiffusionXLPipeline(
        **parts, vae=None, unet=None, scheduler=None, add_watermarker=False
    )
    prompt, _, pooled, _ = encoder.encode_prompt("", do_classifier_free_guidance=False)
    return {"prompt_embeds": prompt, "pooled_prompt_embeds": pooled}
