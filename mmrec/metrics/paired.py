"""Is one run better than another on the same queries? Paired tests over users, corrected for their number.

Legend: Q queries, U users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
        p_wilcoxon: two-sided, of the signed-rank test on the users' mean differences; 1 where all are zero.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_wilcoxon: float


def compare_paired(first: np.ndarray, second: np.ndarray, users: np.ndarray, *, seed: int = 0) -> PairedComparison:
    """Compare two runs by a metric of each query.

    If the runs were equally good, the difference of each user could as well have had the other sign. The queries of a
    user keep one sign together, because they are not independent.

    Args:
        first, second: the metric of each query under each run, in one order. (Q,)
        users: the user of each query, any integers. (Q,)

    Source: Fisher's randomisation test and Wilcoxon 1945, as compared for retrieval by Smucker et al. 2007. Users
    without a difference take part in the ranking (Pratt 1959), for they are the most in leave-one-out.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    _, place = np.unique(users, return_inverse=True)
    sums = np.bincount(place, differences)  # (U,)
    means = sums / np.bincount(place)
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
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=(extreme + 1) / (NUM_PERMUTATIONS + 1),
        p_wilcoxon=_wilcoxon(means),
    )


def _wilcoxon(differences: np.ndarray) -> float:
    from scipy.stats import wilcoxon  # most of its import time is not needed elsewhere

    if not differences.any():
        return 1.0
    # Sums in another order differ in their last bits, which must not tell equal sizes apart.
    found: Any = wilcoxon(np.round(differences, 12), zero_method="pratt", method="asymptotic")
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, corrected so that one below .05 holds although there were many to choose from.

    Source: Holm 1979: of n, the k-th smallest (from 0) is multiplied by n - k, made no smaller than the one before and
    no larger than 1.
    """
    corrected, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - place)))
        corrected[index] = largest
    return corrected
