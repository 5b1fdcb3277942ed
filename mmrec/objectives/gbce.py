"""Generalised binary cross-entropy: next-item classification against sampled negatives without overconfidence.

Legend: N events with a known next item, C candidates of the step, D model width, V items of the catalogue.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmrec.objectives.blocked_softmax import blocked_softplus_sum
from mmrec.objectives.excluded import Runs
from mmrec.objectives.next_item import no_negatives

__all__ = ["gbce_loss"]


def gbce_loss(
    users: Float[Tensor, "N D"],
    targets: Float[Tensor, "N D"],
    target_idx: Int[Tensor, " N"],
    candidates: Float[Tensor, "C D"],
    candidate_idx: Int[Tensor, " C"],
    scale: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float,
    *,
    num_items: int,
    calibration: float,
    seen: Runs | None = None,
) -> Float[Tensor, " N"]:
    """``-(beta log sigmoid(s+) + sum over K negatives of log(1 - sigmoid(s-))) / (K + 1)``, in nats per event.

    Negatives are the candidates that are neither the target nor seen. ``beta = 1 + t (alpha - 1)`` with the sampling
    rate ``alpha = K / (V - 1)`` and the calibration t: the closed form of ``alpha (t (1 - 1/alpha) + 1/alpha)``, which
    also holds for K = 0, where only the positive's term is left.

    Args:
        users, targets, target_idx, candidates, candidate_idx, scale, seen: as of
            :func:`mmrec.objectives.next_item.next_item_loss`.
        bias: learned, added to every logit: inner products of unit vectors alone cannot be negative enough.
        num_items: V, items that could have been drawn.
        calibration: t, 0 to 1.

    Source: Petrov and Macdonald 2023, "gSASRec", eqs. 13 to 17; the bias as in SigLIP (Zhai et al. 2023).
    """
    excluded = no_negatives(target_idx, candidate_idx, seen)
    negatives, count = blocked_softplus_sum(users, candidates, scale, bias, excluded)
    num_negatives = count.to(negatives.dtype)
    positive = (scale * (users * targets).sum(-1) + bias).to(negatives.dtype)
    beta = 1.0 + calibration * (num_negatives / max(num_items - 1, 1) - 1.0)
    return (negatives - beta * F.logsigmoid(positive)) / (num_negatives + 1)
