"""Modality alignment: what two modalities say of one item should be more alike than what they say of two.

Legend: M modalities, R items of this rank, I items of the step, D model width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmrec.objectives.contrastive import info_nce

__all__ = ["ModalityAlignmentConfig", "modality_alignment"]


@dataclass(frozen=True, kw_only=True)
class ModalityAlignmentConfig:
    """InfoNCE between the content modalities of one item, against the other items of the step."""

    weight: float = 0.0
    """Factor of this objective in the sum; 0 switches it off."""


def modality_alignment(
    vectors: Float[Tensor, "M R D"],
    present: Bool[Tensor, "M R"],
    all_vectors: Float[Tensor, "M I D"],
    all_present: Bool[Tensor, "M I"],
    columns: Int[Tensor, " R"],
    scale: Float[Tensor, ""] | float,
) -> tuple[Float[Tensor, ""], int]:
    """Sum of InfoNCE over this rank's items and ordered pairs of modalities that an item has both.

    Of a pair (a, b), an item's vector in a is to find its vector in b among those of all items of the step that have b.

    Args:
        vectors: unit vectors of this rank's items, by modality; those that are not present are not looked at.
        present: True = the item has the modality.
        all_vectors, all_present: the same of all items of the step, over all ranks.
        columns: which of the step's items each of this rank's is.
        scale: 1 / temperature.

    Returns: the sum, in nats, with a gradient path to ``vectors`` also where it is 0; and the number of terms in the
        whole step, by which the sum over all ranks is to be divided.
    Source: Radford et al. 2021 (CLIP), here for any number of modalities, some of them missing.
    """
    total, num_terms = vectors[:0].sum() + all_vectors[:0].sum(), 0  # 0, with a path back to both
    for a, b in itertools.permutations(range(len(vectors)), 2):
        num_terms += int((all_present[a] & all_present[b]).sum())
        mine = present[a] & present[b]
        candidates = torch.nonzero(all_present[b])[:, 0]
        if not mine.any():
            continue
        place = torch.searchsorted(candidates, columns[mine])
        found = info_nce(vectors[a][mine], all_vectors[b][candidates], place, columns[mine], candidates, scale)
        total = total + found.sum()
    return total, num_terms
