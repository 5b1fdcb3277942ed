"""How good vectors are, seen without users: whether they collapse, and whether modalities find each other.

Legend: N vectors, D their width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Scatter", "alignment", "cross_modal_retrieval", "effective_rank", "uniformity"]

_ROWS = 1024
"""Rows of a block of similarities."""


class Scatter:
    """Sums from which count, spread and directions of vectors follow: added up part by part, and over processes.

    Args:
        dim: D.

    Attributes:
        sums: of the outer products of vectors that have a 1 behind them. float64 ("D + 1", "D + 1")
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros(dim + 1, dim + 1, dtype=torch.float64, device=device)

    def add(self, vectors: Float[Tensor, "N D"]) -> None:
        """Count these vectors too."""
        extended = torch.nn.functional.pad(vectors.double(), (0, 1), value=1.0)
        self.sums += extended.T @ extended

    @property
    def count(self) -> int:
        """N, of all vectors so far."""
        return round(float(self.sums[-1, -1]))

    @property
    def covariance(self) -> Float[Tensor, "D D"]:
        """Around the mean, divided by N."""
        mean = self.sums[-1, :-1] / max(self.count, 1)
        return self.sums[:-1, :-1] / max(self.count, 1) - torch.outer(mean, mean)

    @property
    def spread(self) -> float:
        """Mean squared distance from the mean: 0 where all are equal; of unit vectors 1 - their mean cosine."""
        return max(float(self.covariance.trace()), 0.0)

    @property
    def effective_rank(self) -> float:
        """Number of directions in which the vectors differ: exp of the entropy of their variances, as shares.

        1 where they differ along one line, min(D, N - 1) where every direction is used alike, 0 where all are equal.
        What all have in common counts for nothing. Of variances, not of standard deviations, by which noise of a
        hundredth in the other 63 directions would make ten out of one.

        Source: Roy and Vetterli 2007, eq. 4, of the covariance matrix.
        """
        if self.count < 2 or self.spread <= 1e-12 * float(self.sums[:-1, :-1].trace()) / self.count:
            return 0.0
        values = torch.linalg.eigvalsh(self.covariance).clamp(min=0)
        shares = values / values.sum()
        return float(torch.exp(-torch.xlogy(shares, shares).sum()))


def effective_rank(vectors: Float[Tensor, "N D"]) -> float:
    """:attr:`Scatter.effective_rank` of these vectors."""
    scatter = Scatter(vectors.shape[1], vectors.device)
    scatter.add(vectors)
    return scatter.effective_rank


def uniformity(vectors: Float[Tensor, "N D"]) -> float:
    """Log of the mean Gaussian potential of all pairs of unit vectors: the lower, the more evenly they are spread.

    0 where all are equal, about -4 on a sphere of many dimensions.

    Source: Wang and Isola 2020, eq. 5 with t = 2.
    """
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    if len(unit) < 2:
        return 0.0
    total = 0.0
    for start in range(0, len(unit), _ROWS):
        squared = 2 - 2 * (unit[start : start + _ROWS] @ unit.T)
        total += float(torch.exp(-2 * squared.clamp(min=0)).sum())
    pairs = len(unit) * (len(unit) - 1)
    return float(torch.log(torch.tensor((total - len(unit)) / pairs, dtype=torch.float64)))


def alignment(first: Float[Tensor, "N D"], second: Float[Tensor, "N D"]) -> float:
    """Mean squared distance of unit vectors that belong together: 0 where equal, 2 where unrelated.

    Source: Wang and Isola 2020, eq. 4 with alpha = 2.
    """
    normalize = torch.nn.functional.normalize
    return float((normalize(first.double(), dim=1) - normalize(second.double(), dim=1)).square().sum(1).mean())


def cross_modal_retrieval(
    queries: Float[Tensor, "N D"], candidates: Float[Tensor, "N D"], cutoffs: tuple[int, ...] = (1, 10)
) -> dict[str, float]:
    """Find for each query the candidate of the same row among all N, by cosine; ties count half.

    Returns: "recall@k" for each cutoff, "mrr", and "chance@k", what a random order would reach.
    """
    normalize = torch.nn.functional.normalize
    queries, candidates = normalize(queries.float(), dim=1), normalize(candidates.float(), dim=1)
    ranks = []
    for start in range(0, len(queries), _ROWS):
        scores = queries[start : start + _ROWS] @ candidates.T
        rows = torch.arange(len(scores))
        own = scores[rows, start + rows][:, None]
        ranks.append((scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2)
    rank = torch.cat(ranks).double() if ranks else torch.zeros(0, dtype=torch.float64)
    found = {f"recall@{k}": float((rank < k).double().mean()) for k in cutoffs}
    chance = {f"chance@{k}": min(1.0, k / max(len(queries), 1)) for k in cutoffs}
    return {**found, "mrr": float((1 / (rank + 1)).mean()), **chance}
