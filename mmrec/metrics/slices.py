"""Parts of the targets that are looked at on their own: new items, items that lack something, short histories.

A slice is a mask over targets. A query belongs to it if any of its targets does, and is then asked for those alone;
their ranks are still ranks in the whole catalogue.

Legend: Q queries, T targets of all queries, V items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmrec.data.sequences import pack
from mmrec.data.splits import Queries, Split

__all__ = ["HISTORY_LENGTHS", "POPULARITIES", "num_candidates", "restrict", "target_masks", "training_events"]

# Lower edges of the buckets.
HISTORY_LENGTHS = (0, 1, 3, 5, 10, 20, 50)
POPULARITIES = (0, 1, 5, 20, 100)


def target_masks(split: Split, queries: Queries, present: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Masks (T,) by group and name; empty ones are left out.

    Args:
        present: which items have each modality, (V,) by name; one that all items have makes no slice.

    Returns:
        groups "" (cold_items, warm_items, has_<modality>, missing_<modality>), "history_length" and "popularity"
        (training events of the target).
    """
    warm = split.train_items[queries.targets]
    single = {"cold_items": ~warm, "warm_items": warm}
    for modality, items in present.items():
        if not items.all():
            single[f"has_{modality}"] = items[queries.targets]
            single[f"missing_{modality}"] = ~items[queries.targets]
    lengths = np.repeat(queries.history.lengths, np.diff(queries.target_offsets))
    events = training_events(split)[queries.targets]
    groups = {
        "": single,
        "history_length": _buckets(lengths, HISTORY_LENGTHS),
        "popularity": _buckets(events, POPULARITIES),
    }
    return {group: {name: mask for name, mask in masks.items() if mask.any()} for group, masks in groups.items()}


def training_events(split: Split) -> np.ndarray:
    """Training events of each item. (V,)"""
    return np.bincount(split.train.item_idx, minlength=len(split.train_items))


def restrict(
    ranks: np.ndarray, target_offsets: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks and offsets of the kept targets, and the queries that keep any; the others are left out."""
    query = np.repeat(np.arange(len(target_offsets) - 1), np.diff(target_offsets))
    kept = np.bincount(query[keep], minlength=len(target_offsets) - 1)
    rows = np.flatnonzero(kept)
    return ranks[keep], pack(kept[rows]), rows


def num_candidates(queries: Queries, num_items: int) -> np.ndarray:
    """Items that compete in each query: all but the distinct items of its history that are no targets. (Q,)"""
    rows = np.arange(len(queries))
    seen = np.repeat(rows, queries.history.lengths) * num_items + queries.history.item_idx
    asked = np.repeat(rows, np.diff(queries.target_offsets)) * num_items + queries.targets
    filtered = np.setdiff1d(seen, asked) // num_items
    return num_items - np.bincount(filtered, minlength=len(queries))


def _buckets(values: np.ndarray, edges: Sequence[int]) -> dict[str, np.ndarray]:
    masks = {}
    for n, low in enumerate(edges):
        if n + 1 == len(edges):
            masks[f"{low}+"] = values >= low
        else:
            high = edges[n + 1] - 1
            masks[f"{low}" if low == high else f"{low}-{high}"] = (values >= low) & (values <= high)
    return masks
