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
from mmrec.errors import ConfigError
from mmrec.user_encoders.packing import from_rows, to_rows
from mmrec.user_encoders.recency import RecencyMean, ages

__all__ = ["SASRec", "SASRecConfig"]


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """Causal self-attention over the last ``max_length`` events."""

    max_length: int = 50
    """Longest history that is read, in events; older events are left out."""
    num_blocks: int = 1
    """Attention + feed-forward blocks."""
    num_heads: int = 2
    """Attention heads; must divide the model width."""
    dropout: float = 0.2
    """Share of activations dropped in training, in embeddings and at the ends of attention and feed-forward."""

    def build(self, dim: int) -> SASRec:
        return SASRec(dim, self)


class SASRec(nn.Module):
    """User vector after each event from the events up to it: a recency-weighted mean, and two learned corrections.

    ``mean(x) + M mean'(x) + W LayerNorm(blocks(x)) / sqrt(D)``: the first mean recommends what resembles the latest
    items; M is a linear map from an item to those that follow it; the causal attention blocks add what depends on
    order and combination. M and W start at zero and the blocks' part is scaled down, so that an untrained model is a
    content recommender and one step of Adam cannot outweigh it: every correction has to earn its place. Attention
    knows distance by a learned bias for each head. Everything but attention and means works on packed events; those
    two pad at the end of each row, where causality alone keeps real events from seeing the padding.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    Source: Kang and McAuley 2018; pre-norm as in Xiong et al. 2020; distance bias as in T5 (Raffel et al. 2020).
    """

    def __init__(self, dim: int, config: SASRecConfig) -> None:
        super().__init__()
        if dim % config.num_heads:
            raise ConfigError(f"num_heads is {config.num_heads}; it must divide the model width {dim}")
        self.max_length = config.max_length
        self.scale = dim**0.5
        self.recent = RecencyMean()
        self.recent_before_transition = RecencyMean()
        self.transition = nn.Linear(dim, dim, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(dim, config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.transition.weight)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        if not len(sequences):  # a rank without histories; DistributedDataParallel waits for all its gradients
            return items + sum(parameter.sum() * 0.0 for parameter in self.parameters())
        recent = self.recent(items, sequences)
        next_items = self.transition(self.dropout(self.recent_before_transition(items, sequences)))
        hidden = self.dropout(self.scale * items)  # unit vectors have entries of about 1 / sqrt(D)
        for block in self.blocks:
            hidden = block(hidden, sequences)
        return recent + next_items + self.out(self.dropout(self.norm(hidden))) / self.scale


class _Block(nn.Module):
    def __init__(self, dim: int, config: SASRecConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.distance_bias = nn.Embedding(config.max_length, config.num_heads)
        self.attention_out = nn.Linear(dim, dim)
        hidden, last = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        dropout = nn.Dropout(config.dropout)
        self.feed_forward = nn.Sequential(nn.LayerNorm(dim), hidden, nn.GELU(), dropout, last, dropout)
        nn.init.zeros_(self.distance_bias.weight)

    def forward(self, hidden: Tensor, sequences: SequenceBatch) -> Tensor:
        hidden = hidden + F.dropout(self._attend(hidden, sequences), self.dropout, self.training)
        return hidden + self.feed_forward(hidden)

    def _attend(self, hidden: Tensor, sequences: SequenceBatch) -> Tensor:
        packed = self.query_key_value(self.attention_norm(hidden))  # (N, 3 D)
        rows = to_rows(packed, sequences).unflatten(2, (3, self.num_heads, -1))  # (B, L, 3, H, D / H)
        query, key, value = rows.permute(2, 0, 3, 1, 4)  # each (B, H, L, D / H)
        age = ages(rows.shape[1], hidden.device)
        bias = self.distance_bias(age.clamp(min=0)).permute(2, 0, 1)  # (H, L, L)
        bias = bias.masked_fill(age < 0, -torch.inf).to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.attention_out(from_rows(attended.transpose(1, 2).flatten(2), sequences))
