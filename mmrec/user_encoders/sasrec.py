"""SASRec: causal self-attention over the history, pre-norm.

Legend: B users, N events (packed), L longest history of the batch, H heads, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.user_encoders.packing import from_rows, to_rows
from mmrec.user_encoders.sequential import BlockConfig, BlockEncoder, ages

__all__ = ["CausalAttention", "SASRec", "SASRecConfig"]


@dataclass(frozen=True, kw_only=True)
class SASRecConfig(BlockConfig):
    """Causal self-attention over the last ``max_length`` events."""

    def build(self, dim: int) -> SASRec:
        return SASRec(dim, self)


class SASRec(BlockEncoder):
    """Pre-norm transformer blocks as the network of a :class:`BlockEncoder`.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    Source: Kang and McAuley 2018; pre-norm as in Xiong et al. 2020.
    """

    def __init__(self, dim: int, config: BlockConfig) -> None:
        super().__init__(dim, config, _Block)


class _Block(nn.Module):
    def __init__(self, dim: int, config: BlockConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = CausalAttention(dim, config.num_heads, config.max_length)
        dropout = nn.Dropout(config.dropout)
        self.dropout = dropout
        hidden, last = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.feed_forward = nn.Sequential(nn.LayerNorm(dim), hidden, nn.GELU(), dropout, last, dropout)

    def forward(self, hidden: Tensor, sequences: SequenceBatch) -> Tensor:
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), sequences))
        return hidden + self.feed_forward(hidden)


class CausalAttention(nn.Module):
    """Softmax attention of each event to those up to it, with a learned bias for each distance and head.

    Projections work on packed events; the attention itself pads at the end of each row, where causality alone keeps
    real events from seeing the padding.

    Source: Vaswani et al. 2017; distance bias as in T5 (Raffel et al. 2020).
    """

    def __init__(self, dim: int, num_heads: int, max_length: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.distance_bias = nn.Embedding(max_length, num_heads)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.distance_bias.weight)

    def forward(self, hidden: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        rows = to_rows(self.query_key_value(hidden), sequences).unflatten(2, (3, self.num_heads, -1))
        query, key, value = rows.permute(2, 0, 3, 1, 4)  # each (B, H, L, D / H)
        age = ages(rows.shape[1], hidden.device)
        bias = self.distance_bias(age.clamp(min=0)).permute(2, 0, 1)  # (H, L, L)
        bias = bias.masked_fill(age < 0, -torch.inf).to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out(from_rows(attended.transpose(1, 2).flatten(2), sequences))
