"""User-item contrastive objective over the global batch, in both directions.

Legend: R rows of this rank, B rows of the global batch, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["ContrastiveConfig", "info_nce", "sigmoid_contrastive"]


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """Each user's last vector with the item taken next, against those of the other users of the global batch."""

    form: Literal["info_nce", "sigmoid"] = "info_nce"
    """info_nce: a softmax over the batch, in both directions. sigmoid: each pair on its own, as in SigLIP."""

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
    logits = _logits(rows, columns, scale)
    other, is_positive = _pairs(positive, row_item_idx, column_item_idx)
    return F.cross_entropy(logits.masked_fill(~(other | is_positive), -torch.inf), positive, reduction="none")


def sigmoid_contrastive(
    rows: Float[Tensor, "R D"],
    columns: Float[Tensor, "B D"],
    positive: Int[Tensor, " R"],
    row_item_idx: Int[Tensor, " R"],
    column_item_idx: Int[Tensor, " B"],
    scale: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float,
) -> Float[Tensor, " R"]:
    """``-sum over columns of log sigmoid(z (scale row . column + bias))``, z 1 for the row's own and -1 for others.

    Each pair is judged on its own, and swapping rows and columns changes nothing: one direction is both.

    Args:
        bias: learned, added to every logit.
        rows, columns, positive, row_item_idx, column_item_idx, scale: as of :func:`info_nce`.

    Source: Zhai et al. 2023, "Sigmoid loss for language image pre-training", eq. 1; masked as :func:`info_nce`.
    """
    logits = _logits(rows, columns, scale) + bias
    other, is_positive = _pairs(positive, row_item_idx, column_item_idx)
    return F.softplus(torch.where(is_positive, -logits, logits)).masked_fill(~(other | is_positive), 0.0).sum(1)


def _logits(
    rows: Float[Tensor, "R D"], columns: Float[Tensor, "B D"], scale: Float[Tensor, ""] | float
) -> Float[Tensor, "R B"]:
    """In float32 at least, whatever autocast says: at a scale of 100 the digits of bfloat16 are not enough."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    with torch.autocast(rows.device.type, enabled=False):
        return scale * (rows.to(dtype) @ columns.to(dtype).T)


def _pairs(
    positive: Int[Tensor, " R"], row_item_idx: Int[Tensor, " R"], column_item_idx: Int[Tensor, " B"]
) -> tuple[Bool[Tensor, "R B"], Bool[Tensor, "R B"]]:
    """Columns with another item than the row's, and the row's own column."""
    column = torch.arange(len(column_item_idx), device=positive.device)
    return row_item_idx[:, None] != column_item_idx, column == positive[:, None]
