"""Is one run better than another on the same queries? A paired permutation test over users.

Legend: Q queries, U users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmrec.metrics.bootstrap import bootstrap_intervals

__all__ = ["NUM_PERMUTATIONS", "PairedComparison", "compare_paired", "holm"]

NUM_PERMUTATIONS = 9999

_DRAWS = 1 << 22  # signs held at once


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Mean difference of a metric, first minus second.

    Attributes:
        difference: mean over queries.
        low, high: 95 % bootstrap interval of it, over users.
        p_value: two-sided, of the permutation test; at least 1 / (permutations + 1).
    """

    difference: float
    low: float
    high: float
    p_value: float


def compare_paired(first: np.ndarray, second: np.ndarray, users: np.ndarray, *, seed: int = 0) -> PairedComparison:
    """Compare two runs by a metric of each query.

    If the runs were equally good, the difference of each user could as well have had the other sign. The queries of a
    user keep one sign together, because they are not independent.

    Args:
        first, second: the metric of each query under each run, in one order. (Q,)
        users: the user of each query, any integers. (Q,)

    Source: Fisher's randomisation test, as compared for retrieval by Smucker et al. 2007.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    _, place = np.unique(users, return_inverse=True)
    sums = np.bincount(place, differences)  # (U,)
    sums = sums[sums != 0]
    generator = np.random.default_rng(seed)
    observed, extreme, done = abs(sums.sum()), 0, 0
    while done < NUM_PERMUTATIONS:
        count = min(max(1, _DRAWS // max(len(sums), 1)), NUM_PERMUTATIONS - done)
        signs = generator.integers(0, 2, (count, len(sums)), dtype=np.int8) * 2 - 1
        # Sums in another order differ in their last bits: what is equal must not count as less.
        extreme += int((np.abs(signs @ sums) >= observed * (1 - 1e-12)).sum())
        done += count
    low, high = bootstrap_intervals({"difference": differences}, users, seed=seed)["difference"]
    return PairedComparison(
        difference=float(differences.mean()), low=low, high=high, p_value=(extreme + 1) / (NUM_PERMUTATIONS + 1)
    )


def holm(p_values: list[float], level: float = 0.05) -> list[bool]:
    """Which of several comparisons hold at ``level`` together.

    Source: Holm 1979: the k-th smallest of n is compared with level / (n - k), up to the first that fails.
    """
    holds = [False] * len(p_values)
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] > level / (len(p_values) - place):
            break
        holds[index] = True
    return holds
