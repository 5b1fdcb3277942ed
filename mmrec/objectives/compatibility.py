"""Compatibility: a new model whose vectors can be compared with those of an earlier export.

Legend: R items of this rank that the earlier export has, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmrec.errors import ConfigError

__all__ = ["CompatibilityConfig", "compatibility_loss"]


@dataclass(frozen=True, kw_only=True)
class CompatibilityConfig:
    """Users find items by the vectors of an earlier export, and items stay near those; used where an export is given
    (--compatible-with EXPORT)."""

    weight: float = 1.0
    """Factor of this objective in the sum."""
    items: float = 10.0
    """Of staying near (mean of 1 - cosine over items), beside the next-item loss of users among earlier vectors: more
    keeps old and new vectors exchangeable, less lets the new ones be better among themselves."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"compatibility.weight is {self.weight}; it must be greater than 0")
        if not self.items >= 0:
            raise ConfigError(f"compatibility.items is {self.items}; it must be at least 0")


def compatibility_loss(vectors: Float[Tensor, "R D"], earlier: Float[Tensor, "R D"]) -> Float[Tensor, ""]:
    """Sum over items of 1 - cosine between the new vector and the earlier one, each 0 to 2.

    Source: backward-compatible training (Shen et al. 2020) has the new model do the old task with the old vectors in
    place, which is the next-item loss of users among earlier vectors here; that items stay near their earlier vectors
    lets old users find new ones too.
    """
    return (1 - (vectors * F.normalize(earlier.to(vectors.dtype), dim=-1)).sum(-1)).sum()
