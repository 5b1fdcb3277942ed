"""Hit rate, recall, NDCG and MRR of queries from the ranks of their targets.

Legend: Q queries, T targets of all queries, r 0-based rank, a fraction where scores tie.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["CUTOFFS", "ranking_metrics"]

CUTOFFS = (1, 5, 10, 20, 50)


def ranking_metrics(
    ranks: np.ndarray, target_offsets: np.ndarray, cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, np.ndarray]:
    """Metrics of each query; their means over the queries are what is reported.

    A target is a hit at k if r < k. ``hr@k``: 1 if any target hits. ``recall@k``: hits / number of targets.
    ``ndcg@k``: the sum of 1 / log2(r + 2) over the hits, divided by that of the best possible order of
    min(k, number of targets) hits. ``mrr``: 1 / (1 + r) of the best target.

    Args:
        ranks: from :func:`mmrec.retrieval.rank_targets`. (T,)
        target_offsets: query q owns ``ranks[target_offsets[q]:target_offsets[q + 1]]``, at least one. (Q + 1,)

    Returns:
        float64 arrays (Q,) under "hr@k", "recall@k", "ndcg@k" for each cutoff, and "mrr".
    """
    starts, num_targets = target_offsets[:-1], np.diff(target_offsets)
    gains = 1.0 / np.log2(ranks + 2.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(max(cutoffs)) + 2.0))
    metrics = {}
    for k in cutoffs:
        hit = (ranks < k).astype(np.float64)
        num_hits = np.add.reduceat(hit, starts)
        metrics[f"hr@{k}"] = np.minimum(num_hits, 1.0)
        metrics[f"recall@{k}"] = num_hits / num_targets
        metrics[f"ndcg@{k}"] = np.add.reduceat(hit * gains, starts) / ideal[np.minimum(num_targets, k) - 1]
    metrics["mrr"] = 1.0 / (1.0 + np.minimum.reduceat(ranks, starts))
    return metrics
