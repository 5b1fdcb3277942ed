"""BERT4Rec: attention to both sides, trained to fill in masked events.

Legend: B users, N events (packed), D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.errors import ConfigError
from mmrec.user_encoders.base import UserState
from mmrec.user_encoders.packing import Packed
from mmrec.user_encoders.sasrec import SoftmaxAttentionConfig, TransformerBlock
from mmrec.user_encoders.sequential import BlockEncoder

__all__ = ["BERT4Rec", "BERT4RecConfig"]


@dataclass(frozen=True, kw_only=True)
class BERT4RecConfig(SoftmaxAttentionConfig):
    """Self-attention to both sides over the last ``max_length`` events, trained on masked events."""

    mask_share: float = 0.2
    """Share of a history's events that a step masks and asks for; the last one always."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.mask_share < 1.0:
            raise ConfigError(f"mask_share is {self.mask_share}; it must be at least 0 and less than 1")

    def build(self, dim: int) -> BERT4Rec:
        return BERT4Rec(dim, self)


class BERT4Rec(BlockEncoder):
    """Transformer blocks that see both sides, as the network of a :class:`BlockEncoder`.

    Where ``sequences.masked``, an event is a learned vector in place of its item, and its user vector tells what stands
    there. Without masks (inference) a masked event is put behind each history, and what it finds is the vector after
    the history's last event; the other events, which would see their future, get zeros.

    Args:
        dim: D, width of item and user vectors.
        config: sizes and dropout.

    Raises: ConfigError if ``num_heads`` does not divide ``dim``.
    Source: Sun et al. 2019.
    """

    def __init__(self, dim: int, config: BERT4RecConfig) -> None:
        super().__init__(dim, config, lambda: TransformerBlock(dim, config, causal=False))
        self.mask = nn.Parameter(torch.randn(dim) * dim**-0.5)

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        """Raises: DataError if a history is longer than ``max_length``, one more in training."""
        if not len(items):
            return super().forward(items, sequences)
        if sequences.masked is not None:
            items = torch.where(sequences.masked[:, None], self.mask.to(items.dtype), items)
            return self._encode(items, self._packed(sequences, self.max_length + 1), sequences.masked)
        self._packed(sequences, self.max_length)
        filled = sequences.lengths > 0
        offsets = sequences.offsets + torch.cat([filled.new_zeros(1), filled]).cumsum(0)  # one more event each
        slots = offsets[1:][filled] - 1
        masked = torch.zeros(int(offsets[-1]), dtype=torch.bool, device=items.device)
        masked[slots] = True
        longer = self.mask.to(items.dtype).expand(len(masked), -1).index_put((~masked,), items)
        batch = replace(sequences, offsets=offsets, masked=masked, timestamps=None, query_times=None)
        found = self._encode(longer, Packed(batch), masked)[slots]
        last = sequences.offsets[1:][filled] - 1
        return torch.zeros_like(items).index_put((last,), found)

    def _grown(self, state: UserState, query_time: int | None) -> Float[Tensor, " D"]:
        """Raises: ConfigError always: each event sees the later ones, so that all change with every new one."""
        raise ConfigError("bert4rec cannot add an event to a kept state; encode the history again, or use sasrec")
