"""Hit rate, recall, precision, NDCG, MAP and MRR of queries from the ranks of their targets.

Every formula is written for fractional ranks: where scores tie, r is the expected place under a random order of ties.

Legend: Q queries, T targets of all queries, n targets of one query, k cutoff, r 0-based rank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from mmrec.errors import ConfigError, unknown_name

__all__ = ["CUTOFFS", "METRICS", "check_metric", "metric_of", "ranking_metrics"]

CUTOFFS = (1, 5, 10, 20, 50)


def hit_rate(ranks: np.ndarray, target_offsets: np.ndarray, k: int) -> np.ndarray:
    """``hr@k = 1 if any r < k else 0``. (Q,)

    Source: Deshpande and Karypis 2004, section 6.1.
    """
    return np.minimum(_num_hits(ranks, target_offsets, k), 1.0)


def recall(ranks: np.ndarray, target_offsets: np.ndarray, k: int) -> np.ndarray:
    """``recall@k = #(r < k) / n``; not divided by min(k, n), which some libraries do. (Q,)

    Source: Manning, Raghavan and Schuetze 2008, eq. 8.2.
    """
    return _num_hits(ranks, target_offsets, k) / np.diff(target_offsets)


def precision(ranks: np.ndarray, target_offsets: np.ndarray, k: int) -> np.ndarray:
    """``precision@k = #(r < k) / k``, also where fewer than k items are left to show. (Q,)

    Source: Manning, Raghavan and Schuetze 2008, eq. 8.1.
    """
    return _num_hits(ranks, target_offsets, k) / k


def ndcg(ranks: np.ndarray, target_offsets: np.ndarray, k: int) -> np.ndarray:
    """``ndcg@k = sum over r < k of 1 / log2(r + 2), over the same sum for r = 0 .. min(k, n) - 1``. (Q,)

    Source: Jaervelin and Kekaelaeinen 2002, binary gains, discount of Burges et al. 2005.
    """
    starts, num_targets = target_offsets[:-1], np.diff(target_offsets)
    gains = np.where(ranks < k, 1.0 / np.log2(ranks + 2.0), 0.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))
    return np.add.reduceat(gains, starts) / ideal[np.minimum(num_targets, k) - 1]


def average_precision(ranks: np.ndarray, target_offsets: np.ndarray, k: int) -> np.ndarray:
    """``map@k = sum over the hits, best first, of i / (r_i + 1), over min(k, n)``; its mean over queries is MAP. (Q,)

    i counts the hits up to this one. TREC divides by n, so that no list of k can be perfect where n > k.

    Source: Buckley and Voorhees 2000, cut off at k.
    """
    starts, num_targets = target_offsets[:-1], np.diff(target_offsets)
    query = np.repeat(np.arange(len(num_targets)), num_targets)
    ordered = ranks[np.lexsort((ranks, query))]
    place = np.arange(len(ranks)) - np.repeat(starts, num_targets) + 1.0
    gains = np.where(ordered < k, place / (ordered + 1.0), 0.0)
    return np.add.reduceat(gains, starts) / np.minimum(num_targets, k)


def reciprocal_rank(ranks: np.ndarray, target_offsets: np.ndarray, k: int | None = None) -> np.ndarray:
    """``mrr@k = 1 / (1 + r)`` of the best target, 0 if r >= k; without k over the whole catalogue. (Q,)

    Source: Voorhees 1999.
    """
    best = np.minimum.reduceat(ranks, target_offsets[:-1])
    return np.where(best < (np.inf if k is None else k), 1.0 / (1.0 + best), 0.0)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "hr": hit_rate,
    "recall": recall,
    "precision": precision,
    "ndcg": ndcg,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def ranking_metrics(
    ranks: np.ndarray, target_offsets: np.ndarray, cutoffs: Sequence[int] = CUTOFFS
) -> dict[str, np.ndarray]:
    """Metrics of each query; their means over the queries are what is reported.

    Args:
        ranks: from :func:`mmrec.retrieval.rank_targets`. (T,)
        target_offsets: query q owns ``ranks[target_offsets[q]:target_offsets[q + 1]]``, at least one. (Q + 1,)

    Returns:
        float64 arrays (Q,) under "<metric>@<k>" for each of ``METRICS`` and each cutoff, and "mrr" without cutoff.
    """
    if len(target_offsets) == 1:  # reduceat has no answer for nothing
        names = [f"{name}@{k}" for name in METRICS for k in cutoffs]
        return {name: np.zeros(0) for name in [*names, "mrr"]}
    found = {f"{name}@{k}": of(ranks, target_offsets, k) for k in cutoffs for name, of in METRICS.items()}
    return found | {"mrr": reciprocal_rank(ranks, target_offsets)}


def metric_of(name: str, ranks: np.ndarray, target_offsets: np.ndarray) -> np.ndarray:
    """One metric by name, at any cutoff. (Q,)

    Raises: ConfigError if the name is not known.
    """
    kind, k = check_metric(name)
    if k is None:
        return reciprocal_rank(ranks, target_offsets)
    return METRICS[kind](ranks, target_offsets, k)


def check_metric(name: str) -> tuple[str, int | None]:
    """Kind and cutoff of a metric's name, such as "ndcg@10" or "mrr"; a cutoff may be larger than the catalogue.

    Raises: ConfigError if it is not known; the message names the nearest one.
    """
    found = re.fullmatch(r"([a-z]+)@([1-9][0-9]*)", name)
    if name == "mrr":
        return name, None
    if found is None or found[1] not in METRICS:
        known = [f"{kind}@{found[2] if found else 10}" for kind in METRICS]
        raise ConfigError(f"{unknown_name('metric', name, [*known, 'mrr'])}; @ may be followed by any number above 0")
    return found[1], int(found[2])


def _num_hits(ranks: np.ndarray, target_offsets: np.ndarray, k: int) -> np.ndarray:
    return np.add.reduceat((ranks < k).astype(np.float64), target_offsets[:-1])
