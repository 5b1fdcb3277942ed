"""SASRec: causal self-attention over the history, pre-norm.

Legend: B users, N events (packed), L longest history of the batch, H heads, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.errors import ConfigError
from mmrec.user_encoders.packing import from_rows, positions, to_rows

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
    """User vector after each event from the events up to it.

    Everything but the attention itself works on packed events; attention pads at the end of each row, where causality
    alone keeps real events from seeing the padding.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    Source: Kang and McAuley 2018; pre-norm as in Xiong et al. 2020.
    """

    def __init__(self, dim: int, config: SASRecConfig) -> None:
        super().__init__()
        if dim % config.num_heads:
            raise ConfigError(f"num_heads is {config.num_heads}; it must divide the model width {dim}")
        self.max_length = config.max_length
        self.position = nn.Embedding(config.max_length, dim)
        nn.init.normal_(self.position.weight, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(dim, config.num_heads, config.dropout) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        hidden = self.dropout(items + self.position(positions(sequences)))
        for block in self.blocks:
            hidden = block(hidden, sequences)
        return self.norm(hidden)


class _Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 4 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * dim, dim),
            nn.Dropout(dropout),
        )

    def forward(self, hidden: Tensor, sequences: SequenceBatch) -> Tensor:
        hidden = hidden + F.dropout(self._attend(hidden, sequences), self.dropout, self.training)
        return hidden + self.feed_forward(hidden)

    def _attend(self, hidden: Tensor, sequences: SequenceBatch) -> Tensor:
        packed = self.query_key_value(self.attention_norm(hidden))  # (N, 3 D)
        rows = to_rows(packed, sequences).unflatten(2, (3, self.num_heads, -1))  # (B, L, 3, H, D / H)
        query, key, value = rows.permute(2, 0, 3, 1, 4)  # each (B, H, L, D / H)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
        return self.attention_out(from_rows(attended.transpose(1, 2).flatten(2), sequences))
