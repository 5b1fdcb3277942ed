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

__all__ = ["SASRec", "SASRecConfig"]


@dataclass(frozen=True, kw_only=True)
class SASRecConfig:
    """Causal self-attention over the last ``max_length`` events."""

    max_length: int = 50
    """Longest history that is read, in events; older events are left out."""
    num_blocks: int = 2
    """Attention + feed-forward blocks."""
    num_heads: int = 2
    """Attention heads; must divide the model width."""
    dropout: float = 0.2
    """Share of activations dropped in training, in embeddings, attention and feed-forward."""

    def build(self, dim: int) -> SASRec:
        return SASRec(dim, self)


class SASRec(nn.Module):
    """User vector after each event from the events up to it: a recency-weighted mean and what attention adds to it.

    The blocks start as the identity, so that an untrained model recommends what resembles the latest items; with
    ready-made vectors that is a strong content recommender already, and training adds to it. Attention knows distance
    by a learned bias for each head. Everything but the attention itself works on packed events; attention pads at the
    end of each row, where causality alone keeps real events from seeing the padding.

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
        self.decay = nn.Parameter(torch.tensor(0.5))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(dim, config) for _ in range(config.num_blocks))

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        if not len(sequences):  # a rank without histories; DistributedDataParallel waits for all its gradients
            return items + sum(parameter.sum() * 0.0 for parameter in self.parameters())
        recent = F.normalize(self._recent(items, sequences), dim=-1)
        start = self.dropout(items)
        hidden = start
        for block in self.blocks:
            hidden = block(hidden, sequences)
        return recent + (hidden - start)

    def _recent(self, items: Tensor, sequences: SequenceBatch) -> Tensor:
        """Sum of the items up to each event, each weighted with sigmoid(decay) ** age. (N, D)"""
        rows = to_rows(items, sequences)  # (B, L, D)
        age = _age(rows.shape[1], items.device)
        weights = torch.where(age >= 0, torch.sigmoid(self.decay) ** age.clamp(min=0), 0.0)  # (L, L)
        return from_rows(weights @ rows, sequences)


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
        for start in (self.distance_bias, self.attention_out, last):
            nn.init.zeros_(start.weight)
        nn.init.zeros_(self.attention_out.bias)
        nn.init.zeros_(last.bias)

    def forward(self, hidden: Tensor, sequences: SequenceBatch) -> Tensor:
        hidden = hidden + F.dropout(self._attend(hidden, sequences), self.dropout, self.training)
        return hidden + self.feed_forward(hidden)

    def _attend(self, hidden: Tensor, sequences: SequenceBatch) -> Tensor:
        packed = self.query_key_value(self.attention_norm(hidden))  # (N, 3 D)
        rows = to_rows(packed, sequences).unflatten(2, (3, self.num_heads, -1))  # (B, L, 3, H, D / H)
        query, key, value = rows.permute(2, 0, 3, 1, 4)  # each (B, H, L, D / H)
        age = _age(rows.shape[1], hidden.device)
        bias = self.distance_bias(age.clamp(min=0)).permute(2, 0, 1)  # (H, L, L)
        bias = bias.masked_fill(age < 0, -torch.inf).to(query.dtype)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        return self.attention_out(from_rows(attended.transpose(1, 2).flatten(2), sequences))


def _age(length: int, device: torch.device) -> Tensor:
    """How many events before event i event j lies; negative for later ones. (L, L)"""
    place = torch.arange(length, device=device)
    return place[:, None] - place
