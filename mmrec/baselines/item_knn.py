"""Items that the same users have: cosine similarity of the columns of the interaction matrix.

Source: Sarwar et al. 2001; shrinkage as in Koren 2008; recency decay as in vs-kNN (Ludewig and Jannach 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from mmrec.baselines.histories import SparseMatrix, history_matrix, history_scores
from mmrec.data.sequences import Sequences

__all__ = ["MAX_NEIGHBOURS", "ItemKNN"]

MAX_NEIGHBOURS = 2000
"""Of an item, the most similar ones: what bounds memory where some item has been taken together with most others."""

_PAIRS = 1 << 25
"""Co-occurrences counted at once: half a gigabyte."""


@dataclass(frozen=True)
class ItemKNN:
    """Args: similarity: of items, sparse (V, V), zero on the diagonal; decay: weight kept with each event of age."""

    similarity: SparseMatrix
    decay: float

    @classmethod
    def fit(
        cls, train: Sequences, num_items: int, *, shrink: float, decay: float, max_neighbours: int = MAX_NEIGHBOURS
    ) -> ItemKNN:
        """Similarity is ``c_ij / (sqrt(c_i * c_j) + shrink)`` from the numbers of users who have both, and each.

        A block of items at a time: memory is that of a block and of ``max_neighbours`` entries an item.
        """
        owned = history_matrix(train, num_items)
        owned.data[:] = 1.0
        of_item = owned.T.tocsr()
        users = np.asarray(owned.sum(axis=0)).ravel()
        # An item meets at most as many others as its users have events.
        met = np.asarray(of_item @ np.diff(owned.indptr).astype(np.float64)).ravel()
        block = (np.cumsum(met) // _PAIRS).astype(np.int64)
        parts = []
        for number in np.unique(block):
            rows = np.flatnonzero(block == number)
            together = (of_item[rows] @ owned).tocoo()
            row, col = rows[together.row], together.col
            off = row != col
            values = together.data[off] / (np.sqrt(users[row[off]] * users[col[off]]) + shrink)
            shape = (len(rows), num_items)
            similar: SparseMatrix = sp.csr_matrix((values.astype(np.float32), (together.row[off], col[off])), shape)
            parts.append(_most_similar(similar, max_neighbours))
        return cls(sp.vstack(parts, format="csr"), decay)

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        return history_scores(history, self.similarity, decay=self.decay)


def _most_similar(similar: SparseMatrix, most: int) -> SparseMatrix:
    """The ``most`` largest entries of each row; rows with fewer stay as they are."""
    for row in np.flatnonzero(np.diff(similar.indptr) > most):
        values = similar.data[similar.indptr[row] : similar.indptr[row + 1]]
        values[np.argsort(-values, kind="stable")[most:]] = 0.0
    similar.eliminate_zeros()
    return similar
