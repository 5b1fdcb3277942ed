"""What a uniformly random ranking earns, in expectation: the zero of every metric's scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmrec.metrics.ranking import CUTOFFS

__all__ = ["chance_metrics"]


def chance_metrics(
    num_candidates: np.ndarray, num_targets: np.ndarray, cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, np.ndarray]:
    """Expected metrics of each query under a uniformly random order of its candidates.

    Args:
        num_candidates: items that are ranked, the targets among them. (Q,)
        num_targets: at least 1. (Q,)

    Returns:
        arrays (Q,) under the names of :func:`mmrec.metrics.ranking.ranking_metrics`.
    """
    pairs, place = np.unique(np.stack([num_candidates, num_targets]), axis=1, return_inverse=True)
    columns = [_expected(int(candidates), int(targets), cutoffs) for candidates, targets in pairs.T]
    names = columns[0] if columns else _expected(1, 1, cutoffs)
    return {name: np.array([column[name] for column in columns])[place.ravel()] for name in names}


def _expected(candidates: int, targets: int, cutoffs: Sequence[int]) -> dict[str, float]:
    places = np.arange(candidates)
    # free[r]: probability that no target stands at the first r places
    steps = np.maximum(candidates - targets - places, 0) / (candidates - places)
    free = np.concatenate([[1.0], np.cumprod(steps)])
    gains = 1.0 / np.log2(places + 2.0)
    # precisions[r]: expected precision of the first r + 1 places, given that a target stands at place r
    others = (targets - 1) / max(candidates - 1, 1)
    precisions = (1.0 + places * others) / (places + 1.0)
    reciprocal = (free[:-1] - free[1:]) / (places + 1)
    metrics = {}
    for k in cutoffs:
        shown = min(k, candidates)
        ideal = gains[: min(k, targets)].sum()
        metrics[f"hr@{k}"] = 1.0 - free[shown]
        metrics[f"recall@{k}"] = shown / candidates
        metrics[f"precision@{k}"] = targets / candidates * shown / k
        metrics[f"ndcg@{k}"] = targets / candidates * gains[:shown].sum() / ideal
        metrics[f"map@{k}"] = targets / candidates * precisions[:shown].sum() / min(k, targets)
        metrics[f"mrr@{k}"] = float(reciprocal[:shown].sum())
    metrics["mrr"] = float(reciprocal.sum())
    return metrics
