"""What the lists look like beside being right: how much of the catalogue they show, how evenly, how obvious it is."""

from __future__ import annotations

import numpy as np

__all__ = ["beyond_accuracy"]


def beyond_accuracy(lists: np.ndarray, train_counts: np.ndarray) -> dict[str, float]:
    """Coverage, Gini index and novelty of recommendation lists.

    ``coverage``: share of the catalogue in at least one list. ``gini``: 0 if all items are shown equally often, near 1
    if all lists show the same few. ``novelty``: mean of -log2 of the share of training events that an item shown has,
    in bits, each item counted once more than it was seen so that new items are finite. ``cold_share``: share of the
    places that go to items without a training event.

    Args:
        lists: catalogue indices, -1 where a list ended. (Q, k)
        train_counts: training events of each item. (V,)
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
