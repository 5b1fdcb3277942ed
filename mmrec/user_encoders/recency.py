"""The simplest strong user vector: a mean of the history in which later events weigh more."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmrec.batch import SequenceBatch
from mmrec.user_encoders.packing import from_rows, to_rows

__all__ = ["RecencyMean", "ages"]


class RecencyMean(nn.Module):
    """Mean of the items up to each event, weighted with exp(-decay x age in events); the decay is learned."""

    def __init__(self, decay: float = 0.5) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.tensor(decay))

    def forward(self, items: Float[Tensor, "N D"], sequences: SequenceBatch) -> Float[Tensor, "N D"]:
        rows = to_rows(items, sequences)  # (B, L, D)
        age = ages(rows.shape[1], items.device)
        weights = (-self.decay * age).masked_fill(age < 0, -torch.inf).softmax(-1)  # (L, L)
        return from_rows(weights @ rows, sequences)


def ages(length: int, device: torch.device) -> Tensor:
    """How many events before event i event j lies; negative for later ones. (L, L)"""
    place = torch.arange(length, device=device)
    return place[:, None] - place
