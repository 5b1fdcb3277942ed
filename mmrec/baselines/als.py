"""Matrix factorisation of what was taken, by alternating least squares; users are folded in from their histories.

Source: Hu, Koren and Volinsky 2008; loss, and regularisation by frequency, as in Rendle et al. 2022 ("Revisiting the
performance of iALS"), eq. 1 and 5 with nu = 1.

Legend: Q histories, U users, V items of the catalogue, F factors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmrec.baselines.histories import history_matrix
from mmrec.data.sequences import Sequences

__all__ = ["ImplicitALS"]

_ITERATIONS = 8
_CELLS = 1 << 20
"""Factors of padded histories held at once."""


@dataclass(frozen=True)
class ImplicitALS:
    """Args: items: factors, float32 (V, F); unobserved: weight of what was not taken; regularisation."""

    items: np.ndarray
    unobserved: float
    regularisation: float

    @classmethod
    def fit(
        cls, train: Sequences, num_items: int, *, factors: int, unobserved: float, regularisation: float, seed: int = 0
    ) -> ImplicitALS:
        """Minimise ``sum over what was taken of (1 - w.h)^2 + unobserved * sum over all pairs of (w.h)^2 + penalty``.

        The penalty is ``regularisation`` times the sum of ``(|taken| + unobserved * V) * |w|^2`` over the users and of
        ``(|takers| + unobserved * U) * |h|^2`` over the items.
        """
        taken = history_matrix(train, num_items)
        takers = taken.T.tocsr()
        generator = torch.Generator().manual_seed(seed)
        items = torch.randn(num_items, factors, generator=generator) * (0.1 / factors**0.5)
        for _ in range(_ITERATIONS):
            users = _solve(taken.indptr, taken.indices, items, unobserved, regularisation)
            items = _solve(takers.indptr, takers.indices, users, unobserved, regularisation)
        return cls(items.numpy(), unobserved, regularisation)

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        taken = history_matrix(history, len(self.items))
        items = torch.from_numpy(self.items)
        users = _solve(taken.indptr, taken.indices, items, self.unobserved, self.regularisation)
        return (users @ items.T).numpy()


def _solve(
    offsets: np.ndarray, columns: np.ndarray, others: Tensor, unobserved: float, regularisation: float
) -> Tensor:
    """Factors of each row: ``(sum h h' + unobserved * H'H + penalty I)^-1 sum h`` over the row's columns."""
    lengths = np.diff(offsets)
    gram = unobserved * (others.T @ others)
    solved = others.new_zeros(len(lengths), others.shape[1])
    eye = torch.eye(others.shape[1])
    # A row of zeros at the end stands for the padding.
    padded = torch.cat([others, others.new_zeros(1, others.shape[1])])
    for rows in _blocks(lengths, others.shape[1]):
        longest = int(lengths[rows].max())
        places = np.arange(longest)
        inside = places < lengths[rows, None]
        index = np.where(inside, columns[np.minimum(offsets[rows, None] + places, len(columns) - 1)], len(others))
        factors = padded[torch.from_numpy(index)]  # (rows, longest, F)
        penalty = torch.from_numpy(regularisation * (lengths[rows] + unobserved * len(others))).float()
        matrix = factors.mT @ factors + gram + penalty[:, None, None] * eye
        right = factors.sum(dim=1)
        solved[torch.from_numpy(rows)] = torch.linalg.solve(matrix, right)
    return solved


def _blocks(lengths: np.ndarray, factors: int) -> Iterator[np.ndarray]:
    """Rows of similar length, so that little is padding; those without an event keep factors of zero."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    start = 0
    while start < len(order):
        stop, most = start + 1, max(1, _CELLS // factors)
        while stop < len(order) and (stop - start + 1) * max(lengths[order[stop]], factors) <= most:
            stop += 1
        yield order[start:stop]
        start = stop
