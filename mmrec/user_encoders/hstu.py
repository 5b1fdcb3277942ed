"""HSTU: pointwise attention over the history, with a bias for distance in events and in time.

Legend: N events (packed), H heads, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.dropout import Dropout
from mmrec.errors import ConfigError
from mmrec.user_encoders.packing import Mixing, Packed, View
from mmrec.user_encoders.sequential import BlockConfig, BlockEncoder

__all__ = ["HSTU", "HSTUConfig", "time_buckets"]

# Powers of two of seconds: the last bucket begins after 2 ** 30 s, 34 years.
TIME_BUCKETS = 32


@dataclass(frozen=True, kw_only=True)
class HSTUConfig(BlockConfig):
    """Pointwise attention over the last ``max_length`` events."""

    query_time: Literal["unknown", "known"] = "unknown"
    """known: the model is told when the next item will be asked for, in training and in evaluation; another protocol,
    whose numbers must not stand beside those of models that do not know it."""

    def build(self, dim: int) -> HSTU:
        return HSTU(dim, self)


class HSTU(BlockEncoder):
    """Pointwise attention blocks as the network of a :class:`BlockEncoder`.

    Weights are ``SiLU(q k / sqrt(d) + bias) / number of events so far`` and not normalised to sum to one, so that how
    often something was taken is not lost. The bias is learned for each head, distance in events and, where events have
    times, for each power of two of the seconds between two events. Seconds are measured from the event whose vector is
    asked for, or, if ``query_time`` is known, from the moment at which the next item is asked for; times that go back
    count as no time at all.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    Source: Zhai et al. 2024, "Actions Speak Louder than Words", eqs. 1 to 3.
    """

    reads_times = True

    def __init__(self, dim: int, config: HSTUConfig) -> None:
        super().__init__(dim, config, lambda: _PointwiseBlock(dim, config))
        self.query_time = config.query_time == "known"

    @property
    def keeps_state(self) -> bool:
        """With a known query time earlier events were asked for at times of their own: what deeper blocks kept of them
        is no longer what they would be asked for now."""
        return not self.query_time or len(self.blocks) == 1

    def _packed(self, sequences: SequenceBatch, limit: int) -> Packed:
        if self.query_time and (sequences.timestamps is None or sequences.query_times is None):
            raise ConfigError(
                "this HSTU knows when the next item is asked for (query_time known); give that time and those of the "
                "events, or train with query_time unknown"
            )
        return super()._packed(sequences, limit)


class _PointwiseBlock(nn.Module):
    def __init__(self, dim: int, config: HSTUConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.query_time = config.query_time == "known"
        self.norm, self.attended_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.inputs, self.out = nn.Linear(dim, 4 * dim), nn.Linear(dim, dim)
        self.distance_bias = nn.Embedding(config.max_length, config.num_heads)
        self.time_bias = nn.Embedding(TIME_BUCKETS, config.num_heads)
        self.dropout = Dropout(config.dropout)
        nn.init.zeros_(self.distance_bias.weight)
        nn.init.zeros_(self.time_bias.weight)

    def forward(self, hidden: Float[Tensor, "N D"], mixing: Mixing) -> Float[Tensor, "N D"]:
        gate, attending = F.silu(self.inputs(self.norm(hidden))).split([hidden.shape[1], 3 * hidden.shape[1]], dim=1)
        attended = mixing.attend(attending, self.num_heads, self._attend, query_time=self.query_time)
        # DistributedDataParallel waits for the gradient of every parameter, where events have no time too.
        return (
            hidden
            + self.dropout(self.out(self.attended_norm(attended) * gate), mixing.keys)
            + 0.0 * self.time_bias.weight.sum()
        )

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, view: View) -> Tensor:
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        scores = scores + self.distance_bias(view.age.clamp(min=0)).permute(2, 0, 1)
        if view.seconds is not None:
            scores = scores + self.time_bias(time_buckets(view.seconds)).permute(0, 3, 1, 2)
        # Event n has itself and the n before it: the age of the first event, plus one.
        so_far = view.age[:, :1] + 1
        return F.silu(scores).masked_fill(~view.visible[:, None], 0.0) / so_far @ value


def time_buckets(seconds: Float[Tensor, "*any"]) -> Int[Tensor, "*any"]:
    """floor(log2(1 + seconds)), at most 31."""
    return torch.log2(1.0 + seconds).floor().long().clamp(max=TIME_BUCKETS - 1)
