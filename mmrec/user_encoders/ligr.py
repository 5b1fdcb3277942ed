"""LiGR: transformer blocks whose additions are gated by what they are added to.

Legend: N events (packed), D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrec.dropout import Dropout
from mmrec.user_encoders.packing import Mixing
from mmrec.user_encoders.sasrec import SelfAttention, SoftmaxAttentionConfig
from mmrec.user_encoders.sequential import BlockEncoder

__all__ = ["LiGR", "LiGRConfig"]


@dataclass(frozen=True, kw_only=True)
class LiGRConfig(SoftmaxAttentionConfig):
    """Gated causal self-attention and SwiGLU over the last ``max_length`` events."""

    def build(self, dim: int) -> LiGR:
        return LiGR(dim, self)


class LiGR(BlockEncoder):
    """Gated blocks as the network of a :class:`BlockEncoder`; the encoder of eSASRec.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    Source: LiGR (Borisyuk et al. 2025); eSASRec (Tikhonovich et al. 2025); SwiGLU (Shazeer 2020).
    """

    def __init__(self, dim: int, config: LiGRConfig) -> None:
        super().__init__(dim, config, lambda: _GatedBlock(dim, config))


class _GatedBlock(nn.Module):
    def __init__(self, dim: int, config: LiGRConfig) -> None:
        super().__init__()
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, config)
        self.gate_and_value, self.last = nn.Linear(dim, 4 * dim), nn.Linear(2 * dim, dim)
        self.attention_gate, self.feed_forward_gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.attention_dropout, self.hidden_dropout, self.last_dropout = (Dropout(config.dropout) for _ in range(3))

    def forward(self, hidden: Tensor, mixing: Mixing) -> Tensor:
        added = self.attention(self.attention_norm(hidden), mixing)
        hidden = hidden + torch.sigmoid(self.attention_gate(hidden)) * self.attention_dropout(added, mixing.keys)
        gate, value = self.gate_and_value(self.feed_forward_norm(hidden)).chunk(2, dim=-1)
        added = self.last(self.hidden_dropout(F.silu(gate) * value, mixing.keys))
        return hidden + torch.sigmoid(self.feed_forward_gate(hidden)) * self.last_dropout(added, mixing.keys)
