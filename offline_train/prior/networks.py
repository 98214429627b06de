"""The part of a Fusion Prior that is learnt, around a UNet that is not."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from decoder.hvf import HVF
from decoder.painting.attention import cross_attentions
from decoder.painting.base import DiffusionBase
from decoder.painting.prior import make_projector
from decoder.painting.sampler import N_TOKENS
from hvf_core.torchvision_ops import declare_missing_ops

declare_missing_ops()

from diffusers.models.attention_processor import (  # noqa: E402 - the line above: importable
    IPAdapterAttnProcessor2_0,
)
from diffusers.models.embeddings import ImageProjection  # noqa: E402


class PriorNetworks(nn.Module):
    """HVF, projector and IP-Adapter; the frozen base is used and is no part of it.

    The maps to keys and values begin as copies of the UNet's own, so that image tokens speak the
    language of text tokens from the first step on.

    Args:
        base: the diffusion model; its UNet has the adapter's processors from now on.
        dims: width of each image encoder's embedding, by the encoder's name.
        dim: width of z_f and z_c.
        hvf_hidden: inner width of the HVF's residual block.
        projector_hidden: inner width of the projector.
    """

    def __init__(
        self,
        base: DiffusionBase,
        dims: Mapping[str, int],
        dim: int,
        hvf_hidden: int,
        projector_hidden: int,
    ) -> None:
        super().__init__()
        self.hvf = HVF(dims, dim, hvf_hidden, dropout=0.0)
        self.projector = make_projector(dim, projector_hidden)
        self.image_proj = ImageProjection(dim, base.cross_attention_dim, N_TOKENS)
        self.maps = nn.ModuleDict()
        # In a list, so that the frozen networks are neither trained, saved nor sent to other GPUs.
        self._base = [base]
        self.processors = dict(base.unet.attn_processors)
        for i, (name, attention) in cross_attentions(base.unet).items():
            processor = IPAdapterAttnProcessor2_0(
                attention.inner_dim, base.cross_attention_dim, N_TOKENS
            )
            processor.to_k_ip[0].load_state_dict(attention.to_k.state_dict())
            processor.to_v_ip[0].load_state_dict(attention.to_v.state_dict())
            self.maps[str(i)] = self.processors[name] = processor
        self.use()

    def use(self) -> None:
        """Puts the processors into the UNet, again after a sampler has put in its own."""
        self._base[0].unet.set_attn_processor(dict(self.processors))

    def forward(
        self,
        noisy: Tensor,
        times: Tensor,
        embeddings: Mapping[str, Tensor],
        dropped: Tensor,
        condition: Mapping[str, Tensor],
    ) -> Tensor:
        """The noise that is seen in latents, (n, 4, h, w).

        Args:
            noisy: latents (n, 4, h, w).
            times: noise levels (n,).
            embeddings: of the images, (n, dim_k) by the encoder's name.
            dropped: (n,), true where the condition is to be zeros.
            condition: `text_embeds` and `time_ids`, as the UNet takes them.
        """
        base = self._base[0]
        z_f = self.hvf(embeddings)
        z_c = self.projector(z_f).masked_fill(dropped[:, None], 0.0)
        tokens = self.image_proj(z_c)[:, None]
        prompt = base.prompt_embeds.expand(len(noisy), -1, -1)
        return base.unet(noisy, times, (prompt, [tokens]), added_cond_kwargs=condition).sample

    def adapter(self) -> dict[str, dict[str, Tensor]]:
        """`image_proj` and `ip_adapter`, as stock diffusers names them."""
        projection = {
            name.replace("image_embeds.", "proj."): tensor.detach()
            for name, tensor in self.image_proj.state_dict().items()
        }
        maps = {
            f"{i}.to_{kind}_ip.weight": getattr(processor, f"to_{kind}_ip")[0].weight.detach()
            for i, processor in self.maps.items()
            for kind in "kv"
        }
        return {"image_proj": projection, "ip_adapter": maps}

    @torch.no_grad()
    def start_from(self, adapter: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes the weights of an IP-Adapter, named as by `adapter`; raises KeyError, RuntimeError.

        An image projection from another width of embeddings is left as it was made.
        """
        own = self.adapter()
        for name, tensor in own["ip_adapter"].items():
            tensor.copy_(adapter["ip_adapter"][name])
        given = adapter["image_proj"]
        if given["proj.weight"].shape == own["image_proj"]["proj.weight"].shape:
            for name, tensor in own["image_proj"].items():
                tensor.copy_(given[name])
