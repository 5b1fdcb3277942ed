"""What a person should know of a dataset before training on it: its shape, and what would make its numbers lie.

Legend: U users, N events, V items.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from mmrec.data.dataset import Dataset
from mmrec.data.manifest import MEDIA_MODALITIES

__all__ = ["facts", "suspicions"]

# Shares from which on a thing is worth a line.
TIES, ORDERED_TIES, RANK_CORRELATION = 0.05, 0.6, 0.1


def facts(dataset: Dataset) -> dict[str, str]:
    """Counts, sparsity, lengths of histories, events an item, span of time, and what media there are."""
    sequences = dataset.sequences
    events, lengths = len(sequences.item_idx), sequences.lengths
    popularity = np.bincount(sequences.item_idx, minlength=dataset.num_items)
    found = {
        "items": f"{dataset.num_items:,} ({int((popularity == 0).sum()):,} without an event)",
        "users": f"{dataset.num_users:,}",
        f"interactions (order: {sequences.order})": f"{events:,}",
        "share of all pairs": f"{events / max(dataset.num_users * dataset.num_items, 1):.2e}",
        "events a user": _spread(lengths),
        "events an item": _spread(popularity),
    }
    if sequences.timestamps is not None and events:
        first, last = np.array([sequences.timestamps.min(), sequences.timestamps.max()]).astype("datetime64[s]")
        found["time"] = f"{np.datetime_as_string(first, 'D')} to {np.datetime_as_string(last, 'D')}"
    for modality in dataset.modalities:
        number = int(dataset.present(modality).sum())
        found[f"items with {modality}"] = f"{number:,} ({number / dataset.num_items:.1%}){_sizes(dataset, modality)}"
    found["rows in errors.parquet"] = f"{dataset.manifest['counts']['errors']:,}"
    return found


def suspicions(dataset: Dataset) -> Iterator[str]:
    """One line for each thing that makes evaluations lie, with what to do; nothing if there is none."""
    if dataset.sequences.timestamps is not None:
        yield from _ties(dataset, dataset.sequences.timestamps)
        yield from _order_of_indices(dataset, dataset.sequences.timestamps)
    for modality in MEDIA_MODALITIES:
        if modality in dataset.modalities:
            yield from _equal_media(dataset, modality)


def _spread(values: np.ndarray) -> str:
    if not len(values):
        return "none"
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0])
    return f"{low:,.0f} to {high:,.0f}, median {middle:,.0f}, mean {values.mean():,.1f}"


def _sizes(dataset: Dataset, modality: str) -> str:
    """Median size of what there is, as the modality measures it."""
    units = {"image": ("width", "height"), "video": ("duration_s",), "audio": ("duration_s",)}.get(modality, ())
    values = [dataset.media_facts(modality, name) for name in units]
    medians = [float(np.nanmedian(value)) for value in values if np.isfinite(value).any()]
    if not medians:
        return ""
    return f", median {medians[0]:.0f} x {medians[1]:.0f} px" if len(medians) == 2 else f", median {medians[0]:.1f} s"


def _ties(dataset: Dataset, times: np.ndarray) -> Iterator[str]:
    """Neighbours of a history at one time: their order is that of the file, which may be sorted by id there."""
    sequences = dataset.sequences
    users = np.repeat(np.arange(len(sequences)), sequences.lengths)
    neighbours = users[1:] == users[:-1]
    tied = neighbours & (times[1:] == times[:-1])
    share = tied.sum() / max(neighbours.sum(), 1)
    if share > TIES:
        yield (
            f"{share:.1%} of neighbouring events have the same time: which of them is the last, and so the target, is "
            "an accident of the file's order; give finer times, or evaluate by --split global_time"
        )
    numbers = _numbers(dataset.item_ids)
    if numbers is None or tied.sum() < 100:
        return
    ids = numbers[sequences.item_idx]
    ascending = float((ids[1:] > ids[:-1])[tied].mean())
    if not 1 - ORDERED_TIES <= ascending <= ORDERED_TIES:
        yield (
            f"where times tie, item ids ascend in {ascending:.0%} of the pairs: the file is sorted by id there, so the "
            "order of tied events tells nothing of what was taken first; shuffle ties before ingesting"
        )


def _order_of_indices(dataset: Dataset, times: np.ndarray) -> Iterator[str]:
    """Whether indices tell when an item came up: then a model that sees them knows the future."""
    first_event = np.full(dataset.num_items, np.iinfo(np.int64).max)
    np.minimum.at(first_event, dataset.sequences.item_idx, times)
    seen = first_event < np.iinfo(np.int64).max
    if seen.sum() >= 100:
        ranked: Any = spearmanr(np.flatnonzero(seen), first_event[seen])
        correlation = float(ranked.statistic)
        if abs(correlation) > RANK_CORRELATION:
            yield (
                f"item indices follow the time of an item's first event (rank correlation {correlation:.2f}): they are "
                "not the random permutation that `mmrec ingest` draws, and tell a model the future; ingest again"
            )


def _numbers(item_ids: np.ndarray) -> np.ndarray | None:
    """Ids as integers, None if they are not."""
    try:
        return np.asarray(item_ids).astype(np.int64)
    except (ValueError, OverflowError):
        return None


def _equal_media(dataset: Dataset, modality: str) -> Iterator[str]:
    items = np.flatnonzero(dataset.present(modality))
    _, first, counts = np.unique(dataset.media_hashes(modality)[items], return_index=True, return_counts=True)
    shared = counts[counts > 1]
    if len(shared):
        most = items[first[np.argmax(counts)]]
        yield (
            f"{int(shared.sum()):,} items share their {modality} with another, byte for byte ({len(shared):,} "
            f"different ones; the commonest, that of item {dataset.item_ids[most]}, belongs to {int(shared.max()):,}): "
            "a placeholder, or one thing under several ids"
        )
