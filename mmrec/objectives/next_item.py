"""Next-item objective: a softmax over the catalogue, estimated from candidates drawn for the step.

Legend: N events with a known next item, C candidates of the step, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmrec.errors import ConfigError
from mmrec.objectives.blocked_softmax import blocked_logsumexp
from mmrec.objectives.excluded import Excluded, Runs

__all__ = ["NextItemConfig", "log_inclusion_probability", "next_item_loss", "no_negatives"]


@dataclass(frozen=True, kw_only=True)
class NextItemConfig:
    """Softmax or binary cross-entropy of the item taken next against candidates that the global batch shares."""

    loss: Literal["softmax", "gbce"] = "softmax"
    """softmax: cross-entropy. gbce: generalised binary cross-entropy of gSASRec."""
    negatives: Literal["mixed", "uniform", "in_batch"] = "mixed"
    """uniform: items drawn uniformly. in_batch: the targets of the global batch, over all processes. mixed: both."""
    num_negatives: int = 4096
    """Items drawn uniformly without replacement for each step; all training items where there are fewer: the loss is
    then the full softmax. None are drawn for in_batch."""
    log_q: bool = True
    """Correct a softmax for how likely each candidate was to be drawn; without it frequent items are pushed down."""
    refresh_steps: int = 0
    """0: every candidate is encoded in its step. k: all training items are candidates, in a full softmax; those that a
    step does not encode have the vectors of the last refresh, at most k - 1 steps old, and receive no gradient."""
    calibration: float = 0.75
    """gbce only: 0 is plain binary cross-entropy, 1 makes its probabilities those of a full catalogue of negatives."""
    exclude_seen: bool = True
    """Items of the history read so far are no negatives: evaluation and recommendation leave them out too."""
    weight: float = 1.0
    """Factor of this objective in the sum."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.calibration <= 1.0:
            raise ConfigError(f"calibration is {self.calibration}; it must lie between 0 and 1")
        if self.num_negatives < 1 and self.negatives != "in_batch":
            raise ConfigError(f"num_negatives is {self.num_negatives}; give at least 1, or negatives in_batch")
        if self.refresh_steps < 0:
            raise ConfigError(f"refresh_steps is {self.refresh_steps}; it must be 0 (off) or more")


def next_item_loss(
    users: Float[Tensor, "N D"],
    targets: Float[Tensor, "N D"],
    target_idx: Int[Tensor, " N"],
    candidates: Float[Tensor, "C D"],
    candidate_idx: Int[Tensor, " C"],
    log_inclusion: Float[Tensor, " C"],
    scale: Float[Tensor, ""] | float,
    seen: Runs | None = None,
) -> Float[Tensor, " N"]:
    """Cross-entropy of the item taken next, in nats per event.

    ``-log(exp(s+) / (exp(s+) + sum over candidates j other than the target of exp(s_j) / P(j is drawn)))``: the sum is
    an unbiased estimate of the softmax's denominator. The positive is always in its own sum, so that it alone is not
    corrected; a candidate that *is* the target (an accidental hit) is masked by item id.

    Args:
        users: user vectors after each event.
        targets: vectors of the items taken next, row i belongs to ``users[i]``.
        target_idx: their catalogue indices.
        candidates: vectors of the step's distinct candidates.
        candidate_idx: their catalogue indices, ascending.
        log_inclusion: log probability that each candidate is among the candidates; 0 for all gives the full softmax.
        scale: 1 / temperature, multiplied into every inner product.
        seen: runs of events and the candidate that is no negative of theirs: :class:`mmrec.objectives.Excluded`'s
            (columns, starts, stops).

    Returns: at least 0; 0 where an event has no negative at all.

    Source: Bengio and Senecal 2008 (sampled softmax); Yi et al. 2019 (logQ); the positive left uncorrected as in
        "Correcting the LogQ Correction" (Khrylchenko et al. 2025).
    """
    positive = scale * (users * targets).sum(-1)  # (N,)
    excluded = no_negatives(target_idx, candidate_idx, seen)
    negatives = blocked_logsumexp(users, candidates, scale, log_inclusion, excluded)
    positive = positive.to(negatives.dtype)
    return torch.logaddexp(positive, negatives) - positive


def no_negatives(target_idx: Int[Tensor, " N"], candidate_idx: Int[Tensor, " C"], seen: Runs | None) -> Excluded:
    """Accidental hits, in which the candidate is the event's target, and what was seen."""
    nothing = Excluded.nothing(len(target_idx), target_idx.device)
    place = torch.searchsorted(candidate_idx, target_idx)
    hit = torch.searchsorted(candidate_idx, target_idx, right=True) > place
    own = torch.where(hit, place, nothing.own)
    if seen is None:
        return replace(nothing, own=own)
    columns, starts, stops = seen
    return Excluded(own=own, columns=columns, starts=starts, stops=stops)


def log_inclusion_probability(
    frequency: Float[Tensor, " C"], num_targets: int, num_drawn: int, num_items: int
) -> Float[Tensor, " C"]:
    """Log probability that an item is a candidate: drawn uniformly, or a target somewhere in the global batch.

    Args:
        frequency: the item's share of all training targets, 0 to 1.
        num_targets: targets in the global batch; 0 where targets are no candidates.
        num_drawn: items drawn uniformly without replacement out of ``num_items``; 0 where none are.

    Returns: at most 0; -inf for an item that can be no candidate, such as a cold one where none are drawn.
    """
    drawn = num_drawn / num_items
    missed = (1.0 - drawn) * (1.0 - frequency.double()) ** num_targets
    return torch.log1p(-missed).float()
