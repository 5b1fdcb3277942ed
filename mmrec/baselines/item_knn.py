"""Items that the same users have: cosine similarity of the columns of the interaction matrix.

Source: Sarwar et al. 2001; shrinkage as in Koren 2008; recency decay as in vs-kNN (Ludewig and Jannach 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from mmrec.baselines.histories import SparseMatrix, history_matrix, history_scores
from mmrec.data.sequences import Sequences

__all__ = ["ItemKNN"]


@dataclass(frozen=True)
class ItemKNN:
    """Args: similarity: of items, sparse (V, V), zero on the diagonal; decay: weight kept with each event of age."""

    similarity: SparseMatrix
    decay: float

    @classmethod
    def fit(cls, train: Sequences, num_items: int, *, shrink: float, decay: float) -> ItemKNN:
        """Similarity is ``c_ij / (sqrt(c_i * c_j) + shrink)`` from the numbers of users who have both, and each."""
        owned = history_matrix(train, num_items)
        owned.data[:] = 1.0
        together = (owned.T @ owned).tocoo()
        users = np.asarray(owned.sum(axis=0)).ravel()
        off = together.row != together.col
        row, col = together.row[off], together.col[off]
        values = together.data[off] / (np.sqrt(users[row] * users[col]) + shrink)
        return cls(sp.csr_matrix((values.astype(np.float32), (row, col)), (num_items, num_items)), decay)

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        return history_scores(history, self.similarity, decay=self.decay)
