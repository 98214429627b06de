"""Cross-attention with an IP-Adapter whose keys and values are computed once, not in every step.

The prompt is always empty, so the keys and values of the text are constants of the model; those of
the image tokens are constants of a job. What is left of a layer for each step are the query, two
attentions and the output, equal to those of diffusers' IPAdapterAttnProcessor2_0.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from hvf_core.problem import Problem
from hvf_core.torchvision_ops import declare_missing_ops

declare_missing_ops()

from diffusers.models import UNet2DConditionModel  # noqa: E402 - the line above: importable
from diffusers.models.attention_processor import Attention  # noqa: E402

CROSS = "attn2.processor"


class CachedCrossAttention:
    """The processor of one cross-attention layer.

    Args:
        attention: the layer.
        prompt: (1, tokens, width) of the empty prompt.
        to_k: (inner, width), from an image token to its key.
        to_v: (inner, width), from an image token to its value.
        scale: weight of what the image tokens give; 0 leaves them out.
    """

    def __init__(
        self, attention: Attention, prompt: Tensor, to_k: Tensor, to_v: Tensor, scale: float
    ) -> None:
        self._heads = attention.heads
        self._to_k, self._to_v, self._scale = to_k, to_v, scale
        self._text_k = self._by_head(attention.to_k(prompt))
        self._text_v = self._by_head(attention.to_v(prompt))
        self._image: dict[int, tuple[Tensor, Tensor]] = {}

    def bind(self, tokens: Tensor) -> None:
        """Takes the image tokens of a job, (rows, 4, width): one row of tokens for each image.

        Jobs of as many rows have theirs in the same places, from which captured graphs read them.
        """
        if self._scale == 0:
            return
        k = self._by_head(functional.linear(tokens, self._to_k))
        v = self._by_head(functional.linear(tokens, self._to_v))
        rows = len(tokens)
        if rows not in self._image:
            self._image[rows] = k.contiguous(), v.contiguous()
        for place, made in zip(self._image[rows], (k, v), strict=True):
            place.copy_(made)

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """From (rows, positions, inner) to the same; the other arguments are diffusers'."""
        query = self._by_head(attn.to_q(hidden_states))
        rows = len(query)
        text = functional.scaled_dot_product_attention(
            query, self._text_k.expand(rows, -1, -1, -1), self._text_v.expand(rows, -1, -1, -1)
        )
        found = text.transpose(1, 2).flatten(2)
        if self._scale:
            image = functional.scaled_dot_product_attention(query, *self._image[rows])
            found = found + self._scale * image.transpose(1, 2).flatten(2)
        # to_out[1] is dropout, which a frozen model does not have.
        return attn.to_out[0](found) / attn.rescale_output_factor

    def _by_head(self, x: Tensor) -> Tensor:
        """(rows, n, inner) to (rows, heads, n, inner / heads)."""
        return x.unflatten(-1, (self._heads, -1)).transpose(1, 2)


@torch.no_grad()
def install(
    unet: UNet2DConditionModel,
    prompt: Tensor,
    weights: Mapping[str, Tensor],
    scale: float,
) -> list[CachedCrossAttention]:
    """Puts the processors of an IP-Adapter into a UNet, in place of what was there.

    Args:
        unet: frozen.
        prompt: (1, tokens, width) of the empty prompt, on the UNet's device and in its precision.
        weights: `{i}.to_k_ip.weight` and `{i}.to_v_ip.weight` as in a checkpoint of diffusers,
            where i is the place of the layer among all attentions of the UNet.
        scale: weight of the image tokens.

    Raises:
        Problem: the weights are of a UNet with other layers.
    """
    layers = cross_attentions(unet)
    needed = {f"{i}.to_{kind}_ip.weight" for i in layers for kind in "kv"}
    if weights.keys() != needed:
        raise Problem(
            f"the adapter has {len(weights)} maps to keys and values, the UNet's "
            f"{len(layers)} cross-attentions need {len(needed)}: it is of another base model, "
            "give that one with --base"
        )
    installed = {}
    processors: dict[str, Any] = dict(unet.attn_processors)
    for i, (name, attention) in layers.items():
        to_k, to_v = (weights[f"{i}.to_{kind}_ip.weight"] for kind in "kv")
        shape = (attention.inner_dim, prompt.shape[-1])
        for found in (to_k, to_v):
            if tuple(found.shape) != shape:
                raise Problem(
                    f"the adapter's map {i} has the shape {tuple(found.shape)}, the UNet's layer "
                    f"{name} needs {shape}: it is of another base model, give that one with --base"
                )
        to_k, to_v = (found.to(prompt.device, prompt.dtype) for found in (to_k, to_v))
        installed[name] = CachedCrossAttention(attention, prompt, to_k, to_v, scale)
    unet.set_attn_processor(processors | installed)
    return list(installed.values())


def cross_attentions(unet: UNet2DConditionModel) -> dict[int, tuple[str, Attention]]:
    """Name of the processor, and layer, by its place among all attentions."""
    return {
        i: (name, cast(Attention, unet.get_submodule(name.removesuffix(".processor"))))
        for i, name in enumerate(unet.attn_processors)
        if name.endswith(CROSS)
    }
