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
    """Item vectors stay near those of an earlier export; used where one is given (--compatible-with EXPORT)."""

    weight: float = 1.0
    """Factor of this objective in the sum: more keeps old and new vectors exchangeable, less lets the new ones be
    better among themselves."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"compatibility.weight is {self.weight}; it must be greater than 0")


def compatibility_loss(vectors: Float[Tensor, "R D"], earlier: Float[Tensor, "R D"]) -> Float[Tensor, ""]:
    """Sum over items of 1 - cosine between the new vector and the earlier one, each 0 to 2.

    Source: alignment to the old representation, as in backward-compatible training (Shen et al. 2020, section 3) in its
    simplest form; a user's score of an item is an inner product, so items that stay in place keep users' scores.
    """
    return (1 - (vectors * F.normalize(earlier.to(vectors.dtype), dim=-1)).sum(-1)).sum()
