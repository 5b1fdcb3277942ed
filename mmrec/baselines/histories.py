"""Histories as sparse matrices, for baselines that are matrix products.

Legend: Q histories, V items of the catalogue.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from mmrec.data.sequences import Sequences, ragged_range

__all__ = ["SparseMatrix", "event_counts", "history_matrix", "history_scores"]

# scipy.sparse ships no types that pyright can follow.
SparseMatrix = Any


def history_matrix(history: Sequences, num_items: int, *, decay: float = 1.0) -> SparseMatrix:
    """Weight of each item in each history: ``decay ** age``, age 0 for the last event; repeats add up. (Q, V)"""
    lengths = history.lengths
    age = np.repeat(history.offsets[1:], lengths) - 1 - np.arange(history.offsets[0], history.offsets[-1])
    weights = np.power(decay, age, dtype=np.float32)
    columns = history.item_idx.copy()  # scipy sorts them in place below
    matrix: SparseMatrix = sp.csr_matrix(
        (weights, columns, history.offsets - history.offsets[0]), (len(history), num_items)
    )
    matrix.sum_duplicates()
    return matrix


def history_scores(history: Sequences, matrix: SparseMatrix, *, decay: float) -> np.ndarray:
    """``history_matrix(history, V, decay=decay) @ matrix``, dense float32, of a sparse or dense matrix. (Q, columns)

    Where a history goes on from the one in the row before, as successive queries of one user do, its scores are those
    of that row times ``decay`` for each new event, plus what the new events add: long histories cost nothing extra.
    """
    lengths = history.lengths
    new = lengths.copy()
    for row in range(1, len(history)):
        before, here = history.items_of(row - 1), history.items_of(row)
        if 0 < len(before) <= len(here) and np.array_equal(here[: len(before)], before):
            new[row] -= len(before)
    stops = history.offsets[1:]
    events = ragged_range(stops - new, new)
    fresh = history.gather(np.arange(len(history)), new, events)
    scores = history_matrix(fresh, matrix.shape[0], decay=decay) @ matrix
    scores = scores if isinstance(scores, np.ndarray) else scores.toarray()
    for row in np.flatnonzero(new < lengths):
        scores[row] += np.float32(decay ** new[row]) * scores[row - 1]
    return scores


def event_counts(train: Sequences, num_items: int) -> np.ndarray:
    """Training events of each item. (V,)"""
    return np.bincount(train.item_idx, minlength=num_items)
