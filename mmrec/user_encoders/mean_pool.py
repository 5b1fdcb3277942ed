"""Mean pooling: for histories that are sets, and the plain comparison for those that are not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.dropout import Dropout
from mmrec.user_encoders.base import UserEncoder, UserEncoderSettings, UserState
from mmrec.user_encoders.packing import positions

__all__ = ["MeanPool", "MeanPoolConfig"]


@dataclass(frozen=True, kw_only=True)
class MeanPoolConfig(UserEncoderSettings):
    """Mean of the history's item vectors and a learned residual of it; the order of events has no influence."""

    max_length: int = 200
    """Longest history that is read, in events; older events are left out."""

    def build(self, dim: int) -> MeanPool:
        return MeanPool(dim, self)


class MeanPool(UserEncoder):
    """User vector after event n = m + MLP(m), m the mean of the item vectors up to n.

    Args:
        dim: D, width of item and user vectors.
        config: length and dropout.
    """

    def __init__(self, dim: int, config: MeanPoolConfig) -> None:
        super().__init__(dim, config.max_length)
        self.norm = nn.LayerNorm(dim)
        self.first, self.last = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        """Raises: DataError if a history is longer than ``max_length``."""
        self._refuse_longer(int(sequences.lengths.max()) if len(sequences) else 0, self.max_length)
        place = positions(sequences)
        running = torch.cumsum(items.double(), dim=0)  # float64: the difference of two long sums
        before = torch.cat([running.new_zeros(1, items.shape[1]), running])[sequences.offsets[:-1]]
        before = torch.repeat_interleave(before, sequences.lengths, dim=0)
        return self._corrected(((running - before) / (place + 1)[:, None]).to(items.dtype), sequences.keys)

    def _corrected(self, mean: Float[Tensor, "N D"], keys: Tensor | None) -> Float[Tensor, "N D"]:
        return mean + self.last(self.dropout(F.gelu(self.first(self.norm(mean))), keys))

    def _grown(self, state: UserState, query_time: int | None) -> Float[Tensor, " D"]:
        """Times have no influence."""
        mean = torch.stack(state.items).double().mean(0).to(state.items[0].dtype)
        return self._corrected(mean[None], None)[0]
