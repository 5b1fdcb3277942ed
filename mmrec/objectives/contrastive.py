"""User-item contrastive objective over the global batch, in both directions.

Legend: R rows of this rank, B rows of the global batch, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ContrastiveConfig", "info_nce"]


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """InfoNCE between each user's last vector and the item taken next, against the other users of the global batch."""

    weight: float = 0.1
    """Factor of this objective in the sum; 0 switches it off."""


def info_nce(
    rows: Float[Tensor, "R D"],
    columns: Float[Tensor, "B D"],
    positive: Int[Tensor, " R"],
    row_item_idx: Int[Tensor, " R"],
    column_item_idx: Int[Tensor, " B"],
    scale: Float[Tensor, ""] | float,
) -> Float[Tensor, " R"]:
    """Pull each row towards its own column, away from the other columns; nats per row.

    Popular items stand in several rows of a batch: a column of another row with the same item is no negative and is
    masked by item id.

    Args:
        rows: users (or items) of this rank.
        columns: items (or users) of the global batch.
        positive: the column that belongs to each row.
        row_item_idx, column_item_idx: catalogue index of the item on each row and column.
        scale: 1 / temperature.

    Source: van den Oord et al. 2018, eq. 4.
    """
    logits = scale * (rows @ columns.T).float()  # (R, B)
    column = torch.arange(columns.shape[0], device=rows.device)
    same_item = row_item_idx[:, None] == column_item_idx
    logits = logits.masked_fill(same_item & (column != positive[:, None]), -torch.inf)
    return F.cross_entropy(logits, positive, reduction="none")
