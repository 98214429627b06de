"""ATM's brain encoder: attention among the channels, then NICE's convolutions."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from decoder.brain.base import BrainEncoder
from decoder.brain.convolutional import ConvolutionalEncoder, ts_conv

_WIDTH = 250  # of a channel's token: the samples of the paper's window
_HEADS = 4
_HEAD_WIDTH = _WIDTH // _HEADS
_FEED_FORWARD = 256


class ATM(BrainEncoder):
    """Adaptive Thinking Mapper (ATM, NeurIPS 2024).

    Each channel's samples become one token, one more token stands for the subject, and after the
    attention the channels' tokens are read as a trial of 250 samples. One subject token serves
    everyone, as the authors' does for subjects that they have not seen. The authors' code keeps
    the subject's token and drops the last channel's; here the subject's is dropped.

    Args:
        n_channels, n_times, dim: as in `BrainEncoder`.
        dropout: of all layers, in training only; None takes the paper's 0.25 in the attention and
            0.5 after it.
    """

    def __init__(
        self, n_channels: int, n_times: int, dim: int = 1024, dropout: float | None = None
    ) -> None:
        super().__init__(n_channels, n_times, dim)
        early, late = (0.25, 0.5) if dropout is None else (dropout, dropout)
        self.tokens = nn.Linear(n_times, _WIDTH)
        self.subject = nn.Parameter(torch.randn(1, 1, _WIDTH))
        self.dropout = nn.Dropout(early)
        self.attention = AttentionLayer(early)
        self.norm = nn.LayerNorm(_WIDTH)
        self.readout = ConvolutionalEncoder(
            ts_conv(n_channels, late), n_channels, _WIDTH, dim, late
        )

    def embed(self, trials: Tensor) -> Tensor:
        subject = self.subject.expand(trials.shape[0], -1, -1)
        tokens = self.dropout(torch.cat([self.tokens(trials), subject], dim=1))
        return self.readout(self.norm(self.attention(tokens))[:, : self.n_channels])


class AttentionLayer(nn.Module):
    """A layer of the iTransformer (ICLR 2024): (n, tokens, 250) -> the same shape.

    Both of its parts are added to what they read and normalised after that. The keys have no bias:
    the softmax would take it away.

    Args:
        dropout: of the attention and of both parts, in training only.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        inner = _HEADS * _HEAD_WIDTH
        self.query = nn.Linear(_WIDTH, inner)
        self.key = nn.Linear(_WIDTH, inner, bias=False)
        self.value = nn.Linear(_WIDTH, inner)
        self.out = nn.Linear(inner, _WIDTH)
        self.expand = nn.Linear(_WIDTH, _FEED_FORWARD)
        self.contract = nn.Linear(_FEED_FORWARD, _WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(_WIDTH)
        self.norm2 = nn.LayerNorm(_WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm1(tokens + self.dropout(self._attend(tokens)))
        hidden = self.dropout(functional.gelu(self.expand(tokens)))
        return self.norm2(tokens + self.dropout(self.contract(hidden)))

    def _attend(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            linear(tokens).unflatten(2, (_HEADS, _HEAD_WIDTH)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        # Written out, so that exported graphs hold plain matrix products.
        weights = torch.softmax(query @ key.transpose(2, 3) / _HEAD_WIDTH**0.5, dim=-1)
        return self.out((self.dropout(weights) @ value).transpose(1, 2).flatten(2))
