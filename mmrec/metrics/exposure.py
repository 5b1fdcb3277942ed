"""Who is shown: the attention that groups of items get from the lists, beside what they merit.

Legend: Q queries, k length of a list, V items of the catalogue, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmrec.metrics.bootstrap import LEVEL, NUM_RESAMPLES

__all__ = ["exposure_by_group", "modality_completeness", "popularity_deciles"]


def exposure_by_group(
    lists: np.ndarray,
    targets: np.ndarray,
    target_offsets: np.ndarray,
    users: np.ndarray,
    group: np.ndarray,
    names: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Exposure and merit of each group of items.

    ``exposure``: share of attention, a place r of a list having ``1 / log2(r + 2)``. ``merit``: share of the held-out
    targets, what users really took next. ``ratio``: exposure / merit; below 1 the group is shown less than it is taken
    (the disparate treatment of Singh and Joachims 2018, section 3.2, with held-out targets as merit; None where the
    group merits nothing). ``low``, ``high``: 95 % bootstrap interval of the ratio, over users.

    Args:
        lists: catalogue indices, -1 where a list ended. (Q, k)
        targets, target_offsets: of the queries, as in :class:`mmrec.data.splits.Queries`.
        users: the user of each query. (Q,)
        group: number of each item's group, 0 to G - 1; -1 leaves an item out. (V,)
        names: of the groups, G of them; those without items are left out.
    """
    num_groups, num_queries = len(names), len(lists)
    of = np.append(group, -1)
    attention = np.tile(1.0 / np.log2(np.arange(lists.shape[1]) + 2.0), num_queries)
    query = np.repeat(np.arange(num_queries), lists.shape[1])
    _, place = np.unique(users, return_inverse=True)
    shown = _sums(place[query], of[lists.ravel()], attention, int(place.max(initial=-1)) + 1, num_groups)
    asked = np.repeat(np.arange(num_queries), np.diff(target_offsets))
    taken = _sums(place[asked], of[targets], np.ones(len(targets)), len(shown), num_groups)
    items = np.bincount(group[group >= 0], minlength=num_groups)
    exposure, merit = _share(shown.sum(axis=0)), _share(taken.sum(axis=0))
    low, high = _interval(shown, taken, seed)
    return {
        str(names[n]): {
            "items": int(items[n]),
            "catalogue": float(items[n] / items.sum()),
            "exposure": float(exposure[n]),
            "merit": float(merit[n]),
            "ratio": float(exposure[n] / merit[n]) if merit[n] > 0 else None,
            "low": float(low[n]) if merit[n] > 0 else None,
            "high": float(high[n]) if merit[n] > 0 else None,
        }
        for n in range(num_groups)
        if items[n]
    }


def popularity_deciles(train_counts: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Items in ten groups that have about a tenth of the training events each, the least popular first.

    Items without a training event are a group of their own, "new". Items of equal count share the group of the last of
    them, so that groups do not depend on an order of ties; a very popular item may fill more than one decile.
    """
    order = np.argsort(train_counts, kind="stable")
    reached = np.cumsum(train_counts[order]) / max(train_counts.sum(), 1)
    last_of_count = np.searchsorted(train_counts[order], train_counts, side="right") - 1
    decile = np.clip(np.ceil(reached[last_of_count] * 10 - 1e-9).astype(np.int64), 1, 10)
    names = ["new", *(f"decile {n}" for n in range(1, 11))]
    return np.where(train_counts == 0, 0, decile), names


def modality_completeness(present: dict[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Items grouped by which modalities they have, the most complete first; names such as "image + text". (V,)"""
    if not present:
        return np.zeros(0, dtype=np.int64), []
    columns = np.stack(list(present.values()), axis=1)
    patterns, group = np.unique(columns, axis=0, return_inverse=True)
    order = np.lexsort((*patterns.T[::-1], -patterns.sum(axis=1)))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    names = [" + ".join(name for name, has in zip(present, patterns[n], strict=True) if has) for n in order]
    return place[group.ravel()], [name or "nothing" for name in names]


def _sums(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    known = columns >= 0
    flat = rows[known] * num_columns + columns[known]
    return np.bincount(flat, values[known], num_rows * num_columns).reshape(num_rows, num_columns)


def _share(sums: np.ndarray) -> np.ndarray:
    return sums / max(sums.sum(), 1e-300)


def _interval(shown: np.ndarray, taken: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(NUM_RESAMPLES if len(shown) else 0):
        times = np.bincount(generator.integers(0, len(shown), len(shown)), minlength=len(shown)).astype(np.float64)
        merit = _share(times @ taken)
        ratios.append(np.divide(_share(times @ shown), merit, out=np.full(len(merit), np.nan), where=merit > 0))
    tail = (1 - LEVEL) / 2
    values = np.stack(ratios) if ratios else np.full((1, shown.shape[1]), np.nan)
    empty = np.isnan(values).all(axis=0)  # a group without a target has no ratio in any draw
    low, high = np.nanquantile(np.where(empty, 0.0, values), [tail, 1 - tail], axis=0)
    return low, high
