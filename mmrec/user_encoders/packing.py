"""From packed events to rows of equal length and back, for the operations that need them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmrec.batch import SequenceBatch

__all__ = ["from_rows", "positions", "to_rows"]


def positions(sequences: SequenceBatch) -> Int[Tensor, " N"]:
    """Place of each event in its history, 0 for the oldest."""
    starts = torch.repeat_interleave(sequences.offsets[:-1], sequences.lengths)
    return torch.arange(len(sequences.item_idx), device=starts.device) - starts


def to_rows(packed: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "B L D"]:
    """One row a user, padded with zeros at the end up to the longest history of the batch."""
    longest = int(sequences.lengths.max()) if len(sequences) else 0
    rows = packed.new_zeros(len(sequences), longest, packed.shape[1])
    return rows.index_put(_cells(sequences), packed)


def from_rows(rows: Float[Tensor, "B L D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
    """Inverse of :func:`to_rows`."""
    return rows[_cells(sequences)]


def _cells(sequences: SequenceBatch) -> tuple[Tensor, Tensor]:
    users = torch.arange(len(sequences), device=sequences.offsets.device)
    return torch.repeat_interleave(users, sequences.lengths), positions(sequences)
