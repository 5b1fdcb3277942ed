"""Are some groups of users served worse than others?

Legend: Q queries, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrec.metrics.bootstrap import bootstrap_intervals

__all__ = ["group_gap"]

_NUM_PERMUTATIONS = 1999


def group_gap(
    values: np.ndarray, users: np.ndarray, group: np.ndarray, names: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """A metric for each group of users, and the gap between the best and the worst served.

    ``gap``: largest group mean - smallest. ``p_value``: how often groups drawn at random, of the same numbers of users,
    have a gap as large; a gap of something is there in any data, most of all between small groups.

    Args:
        values: the metric of each query. (Q,)
        users: the user of each query. (Q,)
        group: number of the user's group, 0 to G - 1, the same for all queries of a user; -1 leaves it out. (Q,)
        names: of the groups.

    Returns: "groups": by name "num_users", "mean", "low", "high" (95 % bootstrap over users); "gap"; "p_value".

    Source: difference of group utilities as in Ekstrand et al. 2018 and Li et al. 2021 (user-oriented fairness, eq. 1
    for more than two groups); permutation test of Fisher 1935.
    """
    kept = group >= 0
    values, users, group = values[kept], users[kept], group[kept]
    _, first, place = np.unique(users, return_index=True, return_inverse=True)
    sums, numbers, of_user = np.bincount(place, values), np.bincount(place), group[first]
    groups = {}
    for n, name in enumerate(names):
        mine = group == n
        if mine.any():
            low, high = bootstrap_intervals({"": values[mine]}, users[mine], seed=seed)[""]
            groups[str(name)] = {
                "num_users": int((of_user == n).sum()), "mean": float(values[mine].mean()), "low": low, "high": high,
            }  # fmt: skip
    if len(groups) < 2:
        return {"groups": groups, "gap": None, "p_value": None}
    generator, extreme = np.random.default_rng(seed), 0
    observed = _gap(sums, numbers, of_user, len(names))
    for _ in range(_NUM_PERMUTATIONS):
        extreme += _gap(sums, numbers, generator.permutation(of_user), len(names)) >= observed * (1 - 1e-12)
    return {"groups": groups, "gap": observed, "p_value": (int(extreme) + 1) / (_NUM_PERMUTATIONS + 1)}


def _gap(sums: np.ndarray, numbers: np.ndarray, of_user: np.ndarray, num_groups: int) -> float:
    total, count = np.bincount(of_user, sums, num_groups), np.bincount(of_user, numbers, num_groups)
    means = total[count > 0] / count[count > 0]
    return float(means.max() - means.min())
