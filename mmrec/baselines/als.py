"""Matrix factorisation of what was taken, by alternating least squares; users are folded in from their histories.

Source: Hu, Koren and Volinsky 2008; loss, and regularisation by frequency, as in Rendle et al. 2022 ("Revisiting the
performance of iALS"), eq. 1 and 5 with nu = 1.

Legend: Q histories, U users, V items of the catalogue, F factors, n events of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmrec.baselines.histories import history_matrix
from mmrec.data.sequences import Sequences

__all__ = ["ImplicitALS"]

_ITERATIONS = 8
_NUMBERS = 1 << 20
"""Factors of the columns of a block of rows: 4 MiB; their matrices are no larger."""


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
        ``(|takers| + unobserved * U) * |h|^2`` over the items; both weights are greater than 0.
        """
        taken = history_matrix(train, num_items)
        takers = taken.T.tocsr()
        generator = torch.Generator().manual_seed(seed)
        items = torch.randn(num_items, factors, generator=generator) * (0.1 / factors**0.5)
        with _one_thread():
            for _ in range(_ITERATIONS):
                users = _solve(taken.indptr, taken.indices, items, unobserved, regularisation)
                items = _solve(takers.indptr, takers.indices, users, unobserved, regularisation)
        return cls(items.numpy(), unobserved, regularisation)

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        taken = history_matrix(history, len(self.items))
        items = torch.from_numpy(self.items)
        with _one_thread():
            users = _solve(taken.indptr, taken.indices, items, self.unobserved, self.regularisation)
        return (users @ items.T).numpy()


def _solve(
    offsets: np.ndarray, columns: np.ndarray, others: Tensor, unobserved: float, regularisation: float
) -> Tensor:
    """Factors of each row: ``(H'H + unobserved * G + penalty I)^-1 H'1``, H the factors of the row's n columns, G the
    Gram matrix of all factors; zero where a row has no column.

    Most rows have fewer columns than factors. In the basis of G's eigenvectors, G and the penalty are one diagonal D,
    the same for all rows of one length, and ``(H'H + D)^-1 H'1 = D^-1 H' (H D^-1 H' + I)^-1 1``: a system of n
    equations in place of F.
    """
    lengths = np.diff(offsets)
    spectrum, basis = torch.linalg.eigh(others.T.double() @ others.double())
    turned = others @ basis.float()
    solved = turned.new_zeros(len(lengths), others.shape[1])
    for rows in _blocks(lengths, others.shape[1]):
        length = int(lengths[rows[0]])
        factors = turned[torch.from_numpy(columns[offsets[rows, None] + np.arange(length)])]  # (rows, n, F)
        penalty = regularisation * (length + unobserved * len(others))
        diagonal = (unobserved * spectrum.clamp(min=0.0) + penalty).float()
        scaled = factors / diagonal
        if length < others.shape[1]:
            matrix = factors @ scaled.mT + torch.eye(length)
            weights = torch.cholesky_solve(matrix.new_ones(len(rows), length, 1), torch.linalg.cholesky(matrix))
            solution = scaled.mT @ weights
        else:
            matrix = factors.mT @ factors + torch.diag(diagonal)
            right = factors.sum(dim=1)[..., None]
            solution = torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
        solved[torch.from_numpy(rows)] = solution[..., 0]
    return solved @ basis.float().T


@contextmanager
def _one_thread() -> Iterator[None]:
    """Thousands of small matrices: threads would wait for each other for longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _blocks(lengths: np.ndarray, factors: int) -> Iterator[np.ndarray]:
    """Rows of one length, so that nothing is padding; those without an event are left out."""
    order = np.argsort(lengths, kind="stable")
    known, starts = np.unique(lengths[order], return_index=True)
    for length, start, stop in zip(known, starts, [*starts[1:], len(order)], strict=True):
        if length == 0:
            continue
        most = max(1, _NUMBERS // (int(length) * factors))
        for first in range(start, stop, most):
            yield order[first : min(first + most, stop)]
