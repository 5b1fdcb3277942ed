"""How good vectors are, seen without users: whether they collapse, and whether modalities find each other.

Legend: N vectors, D their width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["alignment", "cross_modal_retrieval", "effective_rank", "uniformity"]

_ROWS = 1024
"""Rows of a block of similarities."""


def effective_rank(vectors: Float[Tensor, "N D"]) -> float:
    """Number of directions that vectors really use: exp of the entropy of their singular values, as shares.

    1 where all lie on a line through the origin, D where every direction is used alike.

    Source: Roy and Vetterli 2007, eq. 4.
    """
    if not len(vectors):
        return 0.0
    gram = vectors.double().T @ vectors.double()
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    shares = values / values.sum().clamp(min=1e-300)
    return float(torch.exp(-(shares * shares.clamp(min=1e-300).log()).sum()))


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
