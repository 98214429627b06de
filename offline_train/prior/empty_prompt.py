"""Encodes SDXL's empty prompt once, so that nothing that paints needs a text encoder."""

import torch
from safetensors.torch import save_file
from torch import Tensor

from decoder.painting.base import ModelFiles, empty_prompt_file
from decoder.painting.spec import BaseSpec
from hvf_core.problem import Problem


def encode_empty_prompt(spec: BaseSpec, device: str = "cpu") -> dict[str, tuple[int, ...]]:
    """Writes the empty prompt of a base model where `load_base` looks for it.

    SDXL's two text encoders, 3.3 GB, are loaded for this once. The prompt is really encoded, as in
    the training of IP-Adapters; it is not zeros.

    Returns:
        The shapes of what was written, by name.

    Raises:
        Problem: transformers is not installed, or the text encoders cannot be had.
    """
    tensors = ModelFiles(spec).get(
        "the text encoders", spec.source, lambda local: _encoded(spec.source, device, local)
    )
    file = empty_prompt_file(spec)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    save_file({name: t.half().cpu().contiguous() for name, t in tensors.items()}, draft)
    draft.replace(file)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@torch.inference_mode()
def _encoded(source: str, device: str, local: bool) -> dict[str, Tensor]:
    try:
        from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection
    except ImportError:
        raise Problem(
            "the empty prompt is encoded with transformers, which is not installed: run "
            'pip install -e ".[sdxl]"'
        ) from None
    parts = (
        ("tokenizer", "text_encoder", CLIPTextModel),
        ("tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection),
    )
    hidden = []
    for tokenizer_folder, encoder_folder, kind in parts:
        tokenizer = AutoTokenizer.from_pretrained(
            source, subfolder=tokenizer_folder, local_files_only=local
        )
        encoder = kind.from_pretrained(
            source, subfolder=encoder_folder, local_files_only=local, use_safetensors=True
        )
        words = tokenizer(
            "",
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        said = encoder.to(device).eval()(words.input_ids.to(device), output_hidden_states=True)
        hidden.append(said.hidden_states[-2])  # SDXL reads the last but one
    # Of the second encoder, the last; the first has none.
    return {"prompt_embeds": torch.cat(hidden, dim=-1), "pooled_prompt_embeds": said[0]}
