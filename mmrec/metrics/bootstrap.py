"""Confidence intervals of mean metrics, by resampling users.

Legend: Q queries, U users, M metrics.
"""

from __future__ import annotations

import numpy as np

__all__ = ["LEVEL", "NUM_RESAMPLES", "bootstrap_intervals"]

NUM_RESAMPLES = 1000
LEVEL = 0.95

_DRAWS = 1 << 21  # random numbers held at once


def bootstrap_intervals(
    metrics: dict[str, np.ndarray],
    users: np.ndarray,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap interval of the mean of each metric over the queries.

    Users are drawn with replacement, with all their queries: several queries of one user are not independent. The same
    draw serves all metrics, and equal seeds draw the same users.

    Args:
        metrics: value of each query, arrays (Q,) of one length.
        users: the user of each query, any integers. (Q,)

    Returns:
        (low, high) by name; empty where there are no queries.

    Source: Efron 1979, percentile method; clusters as in Field and Welsh 2007.
    """
    if not metrics or len(users) == 0:
        return {}
    _, place = np.unique(users, return_inverse=True)
    num_users = int(place.max()) + 1
    ones = np.ones(len(users))
    sums = np.stack([np.bincount(place, values) for values in [ones, *metrics.values()]], axis=1)  # (U, 1 + M)
    generator = np.random.default_rng(seed)
    means = []
    rows = max(1, _DRAWS // num_users)
    for start in range(0, num_resamples, rows):
        count = min(rows, num_resamples - start)
        drawn = generator.integers(0, num_users, (count, num_users))
        drawn += np.arange(count)[:, None] * num_users
        times = np.bincount(drawn.ravel(), minlength=count * num_users).reshape(count, num_users)
        totals = times.astype(np.float64) @ sums
        means.append(totals[:, 1:] / totals[:, :1])
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return {name: (float(low[n]), float(high[n])) for n, name in enumerate(metrics)}
