"""A linear map from what a user has to what the user will have, in closed form.

Source: EASE, Steck 2019, eq. 8; recency decay of the history as in the other baselines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs

from mmrec.baselines.histories import SparseMatrix, history_matrix, history_scores
from mmrec.data.sequences import Sequences

__all__ = ["EASE", "MAX_ITEMS", "item_gram"]

# A dense matrix of this many items squared takes 1.6 GB, its inverse some minutes on two cores.
MAX_ITEMS = 20_000

_TILE = 1024


@dataclass(frozen=True)
class EASE:
    """Args: weights: of "row, then column", (V, V), zero on the diagonal; decay: weight kept with each event of age."""

    weights: np.ndarray
    decay: float

    @classmethod
    def fit(cls, gram: SparseMatrix, *, regularisation: float, decay: float) -> EASE:
        """``B_ij = -P_ij / P_jj`` off the diagonal, P the inverse of the Gram matrix plus ``regularisation``.

        All in one matrix of V x V: it is filled, factorised, inverted and scaled in its place.

        Args:
            gram: :func:`item_gram` of the training events, sparse. (V, V)
            regularisation: greater than 0.
        """
        shifted = gram.toarray(order="F").astype(np.float32, copy=False)
        shifted.flat[:: len(shifted) + 1] += regularisation
        factorise, invert = get_lapack_funcs(("potrf", "potri"), (shifted,))
        factor, failed = factorise(shifted, lower=1, overwrite_a=1)
        assert not failed, "a Gram matrix plus a positive diagonal is positive definite"
        inverse, _ = invert(factor, lower=1, overwrite_c=1)
        # Of the inverse LAPACK fills a triangle by columns: read by rows, as the scores will be, it is the upper one.
        weights = inverse.T
        _mirror_upper(weights)
        weights /= -weights.diagonal()
        np.fill_diagonal(weights, 0.0)
        return cls(weights, decay)

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        return history_scores(history, self.weights, decay=self.decay)


def item_gram(train: Sequences, num_items: int) -> SparseMatrix:
    """How many users have both of two items, each once. Sparse float32 (V, V)"""
    owned = history_matrix(train, num_items)
    owned.data[:] = 1.0
    return owned.T @ owned


def _mirror_upper(matrix: np.ndarray) -> None:
    """Copy the upper triangle to the lower one, by tiles that the caches hold."""
    for low in range(0, len(matrix), _TILE):
        here = slice(low, low + _TILE)
        matrix[here, here] = np.triu(matrix[here, here]) + np.triu(matrix[here, here], 1).T
        for right in range(low + _TILE, len(matrix), _TILE):
            there = slice(right, right + _TILE)
            matrix[there, here] = matrix[here, there].T
