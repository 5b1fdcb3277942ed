"""What lists look like beside being right: how much of the catalogue they show, how evenly, how obvious, how varied.

Legend: Q queries, k length of a list, V items of the catalogue, D width of content vectors, C categories.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from mmrec.data.sequences import Sequences

__all__ = ["beyond_accuracy", "calibration", "intra_list_diversity", "popularity_bias"]

_ROWS = 2048
"""Lists at once: their sums of content vectors are dense."""

# Steck's smoothing: how much of the history's distribution is mixed into the list's, so that the divergence is finite.
_SMOOTHING = 0.01
# Long tail: the least popular items that together have a fifth of the events.
_TAIL = 0.2


def beyond_accuracy(lists: np.ndarray, train_counts: np.ndarray) -> dict[str, float]:
    """Coverage, Gini index and novelty of recommendation lists.

    ``coverage``: share of the catalogue in at least one list (Ge et al. 2010, eq. 3).

    ``gini``: 0 if all items are shown equally often, near 1 if all lists show the same few:
    ``sum over i of (2 i - V - 1) x_i / (V * sum of x)`` with x the times an item is shown in ascending order, i from 1
    (Fleder and Hosanagar 2009).

    ``novelty``: mean of -log2 of the share of training events that an item shown has, in bits, each item counted once
    more than it was seen so that new items are finite (Zhou et al. 2010, eq. 2).

    ``cold_share``: share of the places that go to items without a training event.

    Args:
        lists: catalogue indices, -1 where a list ended. (Q, k)
        train_counts: training events of each item. (V,)

    Returns: by "<name>@<k>"; empty where nothing is shown.
    """
    k = lists.shape[1]
    shown = lists[lists >= 0]
    if len(shown) == 0:
        return {}
    num_items = len(train_counts)
    times = np.sort(np.bincount(shown, minlength=num_items)).astype(np.float64)
    place = np.arange(1, num_items + 1)
    share = (train_counts + 1) / (train_counts + 1).sum()
    return {
        f"coverage@{k}": float((times > 0).mean()),
        f"gini@{k}": float((2 * place - num_items - 1) @ times / (num_items * times.sum())),
        f"novelty@{k}": float(-np.log2(share[shown]).mean()),
        f"cold_share@{k}": float((train_counts[shown] == 0).mean()),
    }


def popularity_bias(lists: np.ndarray, history: Sequences, train_counts: np.ndarray) -> dict[str, float]:
    """Do lists push what is popular, beyond what the users take themselves?

    ``popularity``: mean over the lists of the mean number of training events of their items (ARP: Yin et al. 2012).
    ``popularity_lift``: (mean over lists of that - mean over histories) / mean over histories, queries with both; above
    0 lists are more popular than what users took (Delta GAP: Abdollahpouri et al. 2019, eq. 3). ``long_tail_share``:
    mean share of a list's places for the least popular items that have a fifth of the training events (APLT:
    Abdollahpouri et al. 2017).

    Args:
        lists: catalogue indices, -1 where a list ended. (Q, k)
        history: of each query.
        train_counts: training events of each item. (V,)
    """
    k = lists.shape[1]
    there = lists >= 0
    if not there.any():
        return {}
    counts = np.append(train_counts, 0).astype(np.float64)  # index -1 counts nothing
    rows = there.any(axis=1)
    of_list = counts[lists].sum(axis=1)[rows] / there.sum(axis=1)[rows]
    taken = np.bincount(_rows(history), counts[history.item_idx], minlength=len(history))
    both = rows & (history.lengths > 0)
    order = np.argsort(train_counts, kind="stable")
    tail = np.zeros(len(counts), dtype=bool)
    tail[order[np.cumsum(train_counts[order]) <= _TAIL * train_counts.sum()]] = True
    found = {
        f"popularity@{k}": float(of_list.mean()),
        f"long_tail_share@{k}": float((tail[lists] & there).sum(axis=1)[rows].mean() / k),
    }
    if both.any():
        own = (taken[both] / history.lengths[both]).mean()
        shown = (counts[lists].sum(axis=1)[both] / there.sum(axis=1)[both]).mean()
        if own > 0:
            found[f"popularity_lift@{k}"] = float((shown - own) / own)
    return found


def intra_list_diversity(lists: np.ndarray, content: Any) -> dict[str, float]:
    """``diversity``: mean over the lists of the mean of 1 - cosine over all pairs of their items that have content.

    0 where all items of a list are alike, about 1 where they have nothing in common.

    Args:
        lists: catalogue indices, -1 where a list ended. (Q, k)
        content: unit vectors, dense or sparse, zero where an item has none. (V, D)

    Source: Zhang and Hurley 2008, eq. 1, with cosine distance; Ziegler et al. 2005.
    """
    num_items = content.shape[0]
    squares = content.multiply(content).sum(axis=1) if sp.issparse(content) else np.square(content).sum(axis=1)
    has = np.append(np.asarray(squares).ravel() > 0.5, False)
    values = []
    for start in range(0, len(lists), _ROWS):
        block = lists[start : start + _ROWS]
        there = has[block]
        query, place = np.nonzero(there)
        ones = np.ones(len(query), dtype=np.float32)
        shown = sp.csr_matrix((ones, (query, block[query, place])), (len(block), num_items))
        sums: Any = shown @ content
        # The sum of all pairs' cosines is the squared length of the sum of unit vectors, less that of each with itself.
        length = sums.multiply(sums).sum(axis=1) if sp.issparse(sums) else np.square(sums, dtype=np.float64).sum(axis=1)
        number = there.sum(axis=1)
        pairs = number * (number - 1)
        length = np.asarray(length, dtype=np.float64).ravel()[pairs > 0]
        values.append(1.0 - (length - number[pairs > 0]) / pairs[pairs > 0])
    found = np.concatenate(values) if values else np.zeros(0)
    return {f"diversity@{lists.shape[1]}": float(found.mean())} if len(found) else {}


def calibration(lists: np.ndarray, history: Sequences, category: np.ndarray) -> dict[str, float]:
    """``miscalibration``: mean over the queries of KL(p || .99 q + .01 p), in nats; 0 where lists have the user's mix.

    p is the distribution of categories in the history and q that in the list; events and places without a category do
    not count, nor do queries that lack either.

    Args:
        lists: catalogue indices, -1 where a list ended. (Q, k)
        history: of each query.
        category: number of each item's category from 0, -1 where it has none. (V,)

    Source: Steck 2018, eq. 2 to 6 with uniform weights and alpha .01.
    """
    num_categories = int(category.max(initial=-1)) + 1
    of = np.append(category, -1)
    values = []
    for start in range(0, len(lists), _ROWS):
        block = lists[start : start + _ROWS]
        past = history.take(np.arange(start, start + len(block)))
        taken = _shares(_rows(past), of[past.item_idx], len(block), num_categories)
        query = np.repeat(np.arange(len(block)), block.shape[1])
        shown = _shares(query, of[block.ravel()], len(block), num_categories)
        both = (taken.sum(axis=1) > 0) & (shown.sum(axis=1) > 0)
        p, q = taken[both], (1 - _SMOOTHING) * shown[both] + _SMOOTHING * taken[both]
        values.append(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1)), 0).sum(axis=1))
    found = np.concatenate(values) if values else np.zeros(0)
    return {f"miscalibration@{lists.shape[1]}": float(found.mean())} if len(found) else {}


def _shares(rows: np.ndarray, columns: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    known = columns >= 0
    flat = rows[known] * num_columns + columns[known]
    counts = np.bincount(flat, minlength=num_rows * num_columns).reshape(num_rows, num_columns).astype(np.float64)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _rows(history: Sequences) -> np.ndarray:
    return np.repeat(np.arange(len(history)), history.lengths)
