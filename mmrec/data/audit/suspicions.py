"""What would make the numbers of a dataset lie: order that is none, repetition, indices that tell the future."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from mmrec.data.audit.facts import count_repetitions
from mmrec.data.audit.leaks import leaks
from mmrec.data.audit.near_duplicates import NearDuplicates
from mmrec.data.dataset import Dataset
from mmrec.data.manifest import MEDIA_MODALITIES

__all__ = ["near_duplicate_lines", "suspicions"]

# Shares from which on a thing is worth a line.
TIES, ORDERED_TIES, RANK_CORRELATION, REPEATS = 0.05, 0.6, 0.1, 0.05
_YEAR_1980_S = 315_532_800


def suspicions(dataset: Dataset) -> Iterator[str]:
    """One line for each thing that makes evaluations lie, with what to do; nothing if there is none.

    Media that are nearly the same are another search, :func:`mmrec.data.audit.near_duplicates.near_duplicates`.
    """
    if dataset.sequences.timestamps is not None:
        yield from _impossible_times(dataset.sequences.timestamps)
        yield from _ties(dataset, dataset.sequences.timestamps)
        yield from _order_of_indices(dataset, dataset.sequences.timestamps)
    yield from _repetitions(dataset)
    yield from leaks(dataset)
    for modality in MEDIA_MODALITIES:
        if modality in dataset.modalities:
            yield from _equal_media(dataset, modality)


def _impossible_times(times: np.ndarray) -> Iterator[str]:
    """Events at the very zero of the clock, or before it, among later ones; and events of the future."""
    early, late = int((times <= 0).sum()), int((times > time.time() + 86_400).sum())
    # Times that are told from the beginning of a study on begin at 0 and do not reach 1980.
    if early and np.median(times) > _YEAR_1980_S:
        yield (
            f"{early:,} events ({early / len(times):.1%}) have the time 0 (1970) or less, most others are later: a "
            "number that stands for an unknown time; leave them out (--since 1971-01-01), for they come first in "
            "every history"
        )
    if late:
        yield (
            f"{late:,} events ({late / len(times):.1%}) lie in the future: their time is wrong or of another unit; "
            "correct it, or leave them out (--until), for they are the last of every history, and so the targets"
        )


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


def _repetitions(dataset: Dataset) -> Iterator[str]:
    """Events that are there twice, told apart from items that a user took again later."""
    events = count_repetitions(dataset.sequences)
    number = len(dataset.sequences.item_idx)
    if events.doubled:
        yield (
            f"{events.doubled:,} events ({events.doubled / number:.1%}) repeat user, item and time of another (an item "
            "twice within one second): one act logged twice; leave one of each out before ingesting"
        )
    if events.again > REPEATS * number:
        yield (
            f"in {events.again:,} events ({events.again / number:.1%}) users take an item that they had before, at "
            "another time: a target may stand in its own history, so that repeating the past scores; if a first "
            "choice is to be predicted, keep the first event of each user and item before ingesting"
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


def near_duplicate_lines(dataset: Dataset, found: NearDuplicates) -> Iterator[str]:
    """One line on media of one modality that are nearly the same, and one on those that did not decode."""
    modality = found.modality
    if found.groups:
        number = sum(map(len, found.groups))
        many = "one group" if len(found.groups) == 1 else f"{len(found.groups):,} groups"
        sampled = f" among a sample of {found.num_compared:,}" if found.num_compared < found.num_different else ""
        examples = "; ".join(
            " = ".join(str(dataset.item_ids[item]) for item in group[:3]) for group in found.groups[:3]
        )
        yield (
            f"{number:,} items have nearly the {modality} of another{sampled} (in {many} of up to "
            f"{len(found.groups[0])}: {examples}): one thing under several ids, or a placeholder; look "
            "at them (--html), and give what is one thing one item_id"
        )
    if found.undecodable:
        item, why = next(iter(found.undecodable.items()))
        yield (
            f"{len(found.undecodable):,} stored media ({modality}) do not decode, for example that of item "
            f"{str(dataset.item_ids[item])!r}: {why}; ingest the data again with this mmrec"
        )
