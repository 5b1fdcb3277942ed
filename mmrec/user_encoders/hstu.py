"""HSTU: pointwise attention over the history, with a bias for distance in events and in time.

Legend: B users, N events (packed), L longest history of the batch, H heads, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.user_encoders.packing import from_rows, to_rows
from mmrec.user_encoders.sequential import BlockConfig, BlockEncoder, ages

__all__ = ["HSTU", "HSTUConfig", "time_buckets"]

# Powers of two of seconds: the last bucket begins after 2 ** 30 s, 34 years.
TIME_BUCKETS = 32


@dataclass(frozen=True, kw_only=True)
class HSTUConfig(BlockConfig):
    """Pointwise attention over the last ``max_length`` events."""

    def build(self, dim: int) -> HSTU:
        return HSTU(dim, self)


class HSTU(BlockEncoder):
    """Pointwise attention blocks as the network of a :class:`BlockEncoder`.

    Weights are ``SiLU(q k / sqrt(d) + bias) / number of events so far`` and not normalised to sum to one, so that how
    often something was taken is not lost. The bias is learned for each head, distance in events and, where events have
    times, for each power of two of the seconds between two events. The time at which the next item will be asked for
    is not known to the model: distances are measured from the last event.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    Source: Zhai et al. 2024, "Actions Speak Louder than Words", eqs. 1 to 3.
    """

    def __init__(self, dim: int, config: BlockConfig) -> None:
        super().__init__(dim, config, _PointwiseBlock)


class _PointwiseBlock(nn.Module):
    def __init__(self, dim: int, config: BlockConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.norm, self.attended_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.inputs, self.out = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)
        self.distance_bias = nn.Embedding(config.max_length, config.num_heads)
        self.time_bias = nn.Embedding(TIME_BUCKETS, config.num_heads)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.zeros_(self.distance_bias.weight)
        nn.init.zeros_(self.time_bias.weight)

    def forward(self, hidden: Tensor, sequences: SequenceBatch) -> Tensor:
        gate, attending = F.silu(self.inputs(self.norm(hidden))).split([hidden.shape[1], 3 * hidden.shape[1]], dim=1)
        rows = to_rows(attending, sequences).unflatten(2, (3, self.num_heads, -1))  # (B, L, 3, H, D / H)
        query, key, value = rows.permute(2, 0, 3, 1, 4)  # each (B, H, L, D / H)
        age = ages(rows.shape[1], hidden.device)
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        scores = scores + self.distance_bias(age.clamp(min=0)).permute(2, 0, 1)
        if sequences.timestamps is None:
            scores = scores + 0.0 * self.time_bias.weight.sum()  # DistributedDataParallel waits for its gradient
        else:
            scores = scores + self.time_bias(time_buckets(sequences)).permute(0, 3, 1, 2)
        so_far = torch.arange(1, rows.shape[1] + 1, device=hidden.device)
        weights = F.silu(scores).masked_fill(age < 0, 0.0) / so_far[:, None]
        attended = from_rows((weights @ value).transpose(1, 2).flatten(2), sequences)
        return hidden + self.dropout(self.out(self.attended_norm(attended) * gate))


def time_buckets(sequences: SequenceBatch) -> Int[Tensor, "B L L"]:
    """floor(log2(1 + seconds)) between each two events of a history, at most 31; 0 for later events and padding."""
    assert sequences.timestamps is not None, "the caller knows that there are times"
    rows = to_rows(sequences.timestamps[:, None].double(), sequences)[..., 0]  # float64 holds seconds exactly
    seconds = (rows[:, :, None] - rows[:, None]).clamp(min=0)
    return torch.log2(1.0 + seconds).floor().long().clamp(max=TIME_BUCKETS - 1)
