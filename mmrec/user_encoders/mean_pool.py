"""Mean pooling: for histories that are sets, and the plain comparison for those that are not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.dropout import Dropout
from mmrec.user_encoders.packing import positions
from mmrec.user_encoders.sequential import UserState

__all__ = ["MeanPool", "MeanPoolConfig"]


@dataclass(frozen=True, kw_only=True)
class MeanPoolConfig:
    """Mean of the history's item vectors and a learned residual of it; the order of events has no influence."""

    max_length: int = 200
    """Longest history that is read, in events; older events are left out."""
    dropout: float = 0.2
    """Share of the residual's hidden units dropped in training."""

    def build(self, dim: int) -> MeanPool:
        return MeanPool(dim, self)


class MeanPool(nn.Module):
    """User vector after event n = m + MLP(m), m the mean of the item vectors up to n.

    Args:
        dim: D, width of item and user vectors.
        config: length and dropout.
    """

    query_time = False

    def __init__(self, dim: int, config: MeanPoolConfig) -> None:
        super().__init__()
        self.max_length = config.max_length
        self.residual = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), Dropout(config.dropout), nn.Linear(2 * dim, dim)
        )

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        place = positions(sequences)
        running = torch.cumsum(items.double(), dim=0)  # float64: the difference of two long sums
        before = torch.cat([running.new_zeros(1, items.shape[1]), running])[sequences.offsets[:-1]]
        before = torch.repeat_interleave(before, sequences.lengths, dim=0)
        mean = ((running - before) / (place + 1)[:, None]).to(items.dtype)
        return mean + self.residual(mean)

    def append(
        self, state: UserState, item: Float[Tensor, " D"], *, timestamp: int | None = None,
        query_time: int | None = None,
    ) -> Float[Tensor, " D"]:  # fmt: skip
        """The user's vector after one more event; see :meth:`SequentialEncoder.append`. Times have no influence."""
        state.items = [*state.items, item][-self.max_length :]
        mean = torch.stack(state.items).double().mean(0).to(item.dtype)
        return mean + self.residual(mean)
