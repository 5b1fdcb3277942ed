"""Parts of the targets that are looked at on their own: new items, items that lack something, short histories.

A slice is a mask over targets. A query belongs to it if any of its targets does, and is then asked for those alone;
their ranks are still ranks in the whole catalogue.

Legend: Q queries, T targets of all queries, V items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from mmrec.data.dataset import Dataset
from mmrec.data.sequences import pack
from mmrec.data.splits import Queries, Split
from mmrec.errors import ConfigError, unknown_name
from mmrec.metrics.exposure import modality_completeness, popularity_deciles

__all__ = [
    "HISTORY_LENGTHS",
    "POPULARITIES",
    "ItemGroups",
    "item_groups",
    "num_candidates",
    "restrict",
    "target_masks",
    "training_events",
]

# Lower edges of the buckets.
HISTORY_LENGTHS = (0, 1, 3, 5, 10, 20, 50)
POPULARITIES = (0, 1, 5, 20, 100)


_PERIODS = 8
_CATEGORIES = 12
"""Categories with slices of their own, the ones most asked for; the rest together is "others"."""


@dataclass(frozen=True, kw_only=True)
class ItemGroups:
    """Items by an attribute column.

    Attributes:
        column: its name in items.parquet.
        group: number of each item's group, -1 where the attribute is empty. (V,)
        names: of the groups.
    """

    column: str
    group: np.ndarray
    names: list[str]


def item_groups(dataset: Dataset, column: str) -> ItemGroups:
    """Items grouped by an attribute column of the item table.

    Raises: ConfigError if there is no such column, or each item has a value of its own.
    """
    attributes = [name for name in dataset.attributes.columns if "." not in name and not name.startswith("item_")]
    if column not in attributes:
        raise ConfigError(unknown_name("attribute column", column, attributes))
    values = dataset.attributes[column].cast(str)
    names = values.drop_nulls().unique().sort().to_list()
    if len(names) > max(1, dataset.num_items // 2):
        raise ConfigError(
            f"column {column!r} has {len(names):,} values for {dataset.num_items:,} items; it groups nothing"
        )
    number = {name: place for place, name in enumerate(names)}
    group = np.array([number.get(value, -1) for value in values.to_list()], dtype=np.int64)
    return ItemGroups(column=column, group=group, names=names)


def target_masks(
    split: Split, queries: Queries, present: dict[str, np.ndarray], category: ItemGroups | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Masks (T,) by group and name; empty ones are left out.

    Args:
        present: which items have each modality, (V,) by name; one that all items have makes no slice.
        category: an attribute whose values make slices.

    Returns:
        groups "" (cold_items, warm_items, has_<modality>, missing_<modality>), "history_length", "popularity"
        (training events of the target), "popularity_decile" (of the training events; "new" without any), where there is
        more than one of them "modalities" (what the target has), where queries have times "time" (eight spans of equal
        length), and "category".
    """
    targets = queries.targets
    warm = split.train_items[targets]
    single = {"cold_items": ~warm, "warm_items": warm}
    for modality, items in present.items():
        if not items.all():
            single[f"has_{modality}"] = items[targets]
            single[f"missing_{modality}"] = ~items[targets]
    of_query = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    counts = training_events(split)
    groups = {
        "": single,
        "history_length": _buckets(queries.history.lengths[of_query], HISTORY_LENGTHS),
        "popularity": _buckets(counts[targets], POPULARITIES),
        "popularity_decile": _named(*popularity_deciles(counts), targets),
    }
    if present and len((patterns := modality_completeness(present))[1]) > 1:
        groups["modalities"] = _named(*patterns, targets)
    if queries.times is not None and len(queries):
        groups["time"] = _periods(queries.times[of_query])
    if category is not None:
        groups["category"] = _named(*_most_asked(category, targets), targets)
    return {group: {name: mask for name, mask in masks.items() if mask.any()} for group, masks in groups.items()}


def _named(group: np.ndarray, names: Sequence[str], targets: np.ndarray) -> dict[str, np.ndarray]:
    return {name: group[targets] == number for number, name in enumerate(names)}


def _most_asked(category: ItemGroups, targets: np.ndarray) -> tuple[np.ndarray, list[str]]:
    asked = np.bincount(category.group[targets] + 1, minlength=len(category.names) + 1)[1:]
    kept = np.sort(np.argsort(-asked, kind="stable")[:_CATEGORIES])
    place = np.full(len(category.names) + 1, len(kept))  # others, and at -1 those without
    place[kept] = np.arange(len(kept))
    place[-1] = len(kept) + 1
    return place[category.group], [*(category.names[n] for n in kept), "others", "none given"]


def _periods(times: np.ndarray) -> dict[str, np.ndarray]:
    edges = np.linspace(times.min(), times.max() + 1, _PERIODS + 1)
    place = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, _PERIODS - 1)
    days = [datetime.fromtimestamp(float(edge), UTC).strftime("%Y-%m-%d") for edge in edges]
    masks: dict[str, np.ndarray] = {}
    for n in range(_PERIODS):  # spans of less than a day would share a name
        name = days[n] if days[n] not in masks else f"{days[n]} ({n + 1})"
        masks[name] = place == n
    return masks


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
    """Items that compete in each query: by its rules, all but the distinct items of its history that are no targets,
    and all but those that were not there yet. (Q,)"""
    rows = np.arange(len(queries))
    if not queries.filter_seen and queries.available_from is None:
        return np.full(len(queries), num_items)
    seen = np.repeat(rows, queries.history.lengths) * num_items + queries.history.item_idx
    asked = np.repeat(rows, np.diff(queries.target_offsets)) * num_items + queries.targets
    filtered = np.setdiff1d(seen, asked) if queries.filter_seen else np.zeros(0, dtype=np.int64)
    if queries.available_from is None:
        return num_items - np.bincount(filtered // num_items, minlength=len(queries))
    assert queries.times is not None, "splits make the one with the other"
    since, now = queries.available_from, queries.times
    there = np.searchsorted(np.sort(since), now, side="right")
    asked = np.unique(asked)
    late = asked[since[asked % num_items] > now[asked // num_items]]  # targets stay, early as they are
    filtered = filtered[since[filtered % num_items] <= now[filtered // num_items]]
    changes = np.concatenate([late // num_items, filtered // num_items])
    signs = np.concatenate([np.ones(len(late)), -np.ones(len(filtered))])
    return there + np.bincount(changes, signs, minlength=len(queries)).astype(np.int64)


def _buckets(values: np.ndarray, edges: Sequence[int]) -> dict[str, np.ndarray]:
    masks = {}
    for n, low in enumerate(edges):
        if n + 1 == len(edges):
            masks[f"{low}+"] = values >= low
        else:
            high = edges[n + 1] - 1
            masks[f"{low}" if low == high else f"{low}-{high}"] = (values >= low) & (values <= high)
    return masks
