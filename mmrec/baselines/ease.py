"""A linear map from what a user has to what the user will have, in closed form.

Source: EASE, Steck 2019, eq. 8; recency decay of the history as in the other baselines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mmrec.baselines.histories import history_matrix, history_scores
from mmrec.data.sequences import Sequences

__all__ = ["EASE", "MAX_ITEMS", "item_gram"]

# Two dense matrices of this many items squared take 3.2 GB, their inverse some minutes on two cores.
MAX_ITEMS = 20_000


@dataclass(frozen=True)
class EASE:
    """Args: weights: of "row, then column", (V, V), zero on the diagonal; decay: weight kept with each event of age."""

    weights: np.ndarray
    decay: float

    @classmethod
    def fit(cls, gram: np.ndarray, *, regularisation: float, decay: float) -> EASE:
        """``B_ij = -P_ij / P_jj`` off the diagonal, P the inverse of the Gram matrix plus ``regularisation``.

        Args:
            gram: :func:`item_gram` of the training events. (V, V)
        """
        shifted = torch.from_numpy(gram.astype(np.float32))
        shifted.diagonal().add_(regularisation)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(shifted))
        weights = inverse.div_(-inverse.diagonal().clone())
        weights.fill_diagonal_(0.0)
        return cls(weights.numpy(), decay)

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        return history_scores(history, self.weights, decay=self.decay)


def item_gram(train: Sequences, num_items: int) -> np.ndarray:
    """How many users have both of two items, each once. float32 (V, V)"""
    owned = history_matrix(train, num_items)
    owned.data[:] = 1.0
    return (owned.T @ owned).toarray()
