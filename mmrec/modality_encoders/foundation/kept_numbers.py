"""Whole numbers of an item (steps of its sound, rows and columns of its picture) that travel with its hidden state.

Legend: P items, K numbers of an item, T positions of the hidden state, W its width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["as_row", "from_row"]


def as_row(numbers: Int[Tensor, "P K"], like: Float[Tensor, "P T W"]) -> Float[Tensor, "P 1 W"]:
    """Whole numbers below 2^30 as a row to be kept beside a hidden state, in digits that float16 holds exactly."""
    digits = torch.stack([numbers >> 10 * place & 1023 for place in range(3)], -1).flatten(1)  # (P, 3 K)
    return F.pad(digits, (0, like.shape[-1] - digits.shape[1])).to(like.dtype)[:, None]


def from_row(row: Float[Tensor, "P W"], num_numbers: int) -> Int[Tensor, "P K"]:
    """The numbers of :func:`as_row`."""
    digits = row[:, : 3 * num_numbers].long().unflatten(1, (num_numbers, 3))
    return (digits << torch.tensor([0, 10, 20], device=row.device)).sum(-1)
