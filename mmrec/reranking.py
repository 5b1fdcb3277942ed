"""Another order of a list: more varied, capped by an attribute, or shared out among the groups of an attribute.

Pure functions of what stands in a pool of candidates; each gives the places of the ones chosen, best first. They change
which items are shown and in what order, never a score.

Legend: C candidates of the pool, best first; D vector width; G groups, the values of an attribute; k length of a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmrec.errors import ConfigError

__all__ = ["Candidates", "Reranking", "at_most", "in_shares", "maximal_marginal_relevance", "pool_size"]

# Candidates for k places: so many for each, and no fewer than.
_POOL_PER_PLACE, _SMALLEST_POOL = 20, 200
# What keeps 10 * .3 from counting as less than 3.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """A pool to choose from.

    Attributes:
        scores: greatest first. (C,)
        vectors: of any length but zero. (C, D)
        group: number of each candidate's value of the attribute, 0 to G - 1; for cap -1 where it has none. (C,)
        shares: of the places, those that each group is to have; they sum to 1. (G,)
    """

    scores: np.ndarray
    vectors: np.ndarray | None = None
    group: np.ndarray | None = None
    shares: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Reranking:
    """How lists are reordered, as ``--rerank`` says it.

    Attributes:
        kind: of reranking.
        attribute: column of the items, for cap and fair.
        relevance: lambda of mmr, 0 to 1.
        most: items of one value in a list, for cap.
    """

    kind: Literal["mmr", "cap", "fair"]
    attribute: str | None = None
    relevance: float = 1.0
    most: int = 0

    @classmethod
    def parse(cls, text: str) -> Reranking:
        """``mmr:0.7``, ``cap:category=2`` or ``fair:provider``.

        Raises: ConfigError if it is none of these, or a number is out of range.
        """
        kind, _, rest = text.partition(":")
        attribute, _, number = rest.rpartition("=")
        if kind == "mmr" and (value := _number(rest)) is not None and 0 <= value <= 1:
            return cls(kind="mmr", relevance=value)
        if kind == "cap" and attribute and number.isdecimal() and int(number) >= 1:
            return cls(kind="cap", attribute=attribute, most=int(number))
        if kind == "fair" and rest and "=" not in rest:
            return cls(kind="fair", attribute=rest)
        raise ConfigError(
            f"the re-ranking is {text!r}; give mmr:LAMBDA with a number from 0 to 1 (1: as scored), cap:COLUMN=N with "
            "at most N items of one value, or fair:COLUMN"
        )

    def choose(self, pool: Candidates, k: int) -> np.ndarray:
        """Places in the pool of the ``k`` items to show, in order; fewer where the pool has no more that may be."""
        if self.kind == "mmr":
            assert pool.vectors is not None, "mmr compares vectors"
            return maximal_marginal_relevance(pool.scores, pool.vectors, k, self.relevance)
        assert pool.group is not None, "cap and fair go by groups"
        if self.kind == "cap":
            return at_most(pool.group, k, self.most)
        assert pool.shares is not None, "fair has shares to reach"
        return in_shares(pool.group, pool.shares, k)


def pool_size(k: int) -> int:
    """Candidates that a list of ``k`` is chosen from."""
    return max(_SMALLEST_POOL, _POOL_PER_PLACE * k)


def maximal_marginal_relevance(scores: np.ndarray, vectors: np.ndarray, k: int, relevance: float) -> np.ndarray:
    """Each place goes to the item of the greatest ``relevance * score - (1 - relevance) * closest``.

    ``closest`` is the greatest cosine with an item chosen before, 0 for the first place. Scores are what they are, for
    vectors cosines too; equal values go to the better score. int64 (min(k, C),)

    Args:
        scores: greatest first. (C,)
        vectors: of any length but zero. (C, D)
        relevance: lambda, 1: the order of the scores, 0: variety alone.

    Source: Carbonell and Goldstein 1998, section 2.
    """
    units = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    value = relevance * scores.astype(np.float64)
    closest = np.full(len(scores), -np.inf)
    open_, chosen = np.ones(len(scores), dtype=bool), []
    for place in range(min(k, len(scores))):
        penalty = (1 - relevance) * closest if place else 0.0
        best = int(np.argmax(np.where(open_, value - penalty, -np.inf)))
        chosen.append(best)
        open_[best] = False
        closest = np.maximum(closest, units @ units[best])
    return np.array(chosen, dtype=np.int64)


def at_most(group: np.ndarray, k: int, most: int) -> np.ndarray:
    """The best ``k`` items of which no group has more than ``most``; what has no group is not counted.

    In the order of the pool, which is optimal: no other such list has a greater sum of scores, for the lists that are
    allowed are the independent sets of a matroid. int64 (at most k,)

    Args:
        group: of each candidate, -1 where it has none. (C,)
    """
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], group[order], side="left")
    before = np.empty(len(group), dtype=np.int64)  # of its own group
    before[order] = np.arange(len(group)) - first
    return np.flatnonzero((before < most) | (group < 0))[:k]


def in_shares(group: np.ndarray, shares: np.ndarray, k: int) -> np.ndarray:
    """Each list's places shared out among groups, in every beginning of the list too.

    Of the first r places a group with share p is to have at least floor(p r) and at most ceil(p r). Each place goes to
    the best item of the groups that are below their least number, else of those below their greatest, else, where the
    pool has no item of these, to the best item left. int64 (min(k, C),)

    Args:
        group: of each candidate, 0 to G - 1. (C,)
        shares: of each group; they sum to 1. (G,)

    Source: DetGreedy of Geyik et al. 2019, algorithm 1.
    """
    queues = [np.flatnonzero(group == one).tolist()[::-1] for one in range(len(shares))]  # the best one last
    counts = np.zeros(len(shares), dtype=np.int64)
    open_, chosen = np.ones(len(group), dtype=bool), []
    for place in range(1, min(k, len(group)) + 1):
        left = np.array([bool(queue) for queue in queues], dtype=bool)
        below_least = left & (counts < np.floor(shares * place + _ROUNDING))
        below_most = left & (counts < np.ceil(shares * place - _ROUNDING))
        allowed = below_least if below_least.any() else below_most
        heads = [queues[one][-1] for one in np.flatnonzero(allowed)]
        best = min(heads) if heads else int(np.argmax(open_))
        chosen.append(best)
        open_[best] = False
        queues[group[best]].pop()
        counts[group[best]] += 1
    return np.array(chosen, dtype=np.int64)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
