"""Histories as sparse matrices, for baselines that are matrix products.

Legend: Q histories, V items of the catalogue.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from mmrec.data.sequences import Sequences

__all__ = ["SparseMatrix", "event_counts", "history_matrix"]

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


def event_counts(train: Sequences, num_items: int) -> np.ndarray:
    """Training events of each item. (V,)"""
    return np.bincount(train.item_idx, minlength=num_items)
