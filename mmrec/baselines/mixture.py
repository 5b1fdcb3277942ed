"""A weighted sum of baselines: each knows something that the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mmrec.data.sequences import Sequences

__all__ = ["Baseline", "Mixture", "mix", "typical_best"]


class Baseline(Protocol):
    """Anything that scores the whole catalogue for histories."""

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32, an array of its own. (Q, V)"""
        ...


@dataclass(frozen=True)
class Mixture:
    """``sum of weight / scale * score`` over the parts.

    Args:
        parts: the baselines.
        scales: :func:`typical_best` of each.
        weights: of each, 1 together.
    """

    parts: tuple[Baseline, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        return mix([part.score(history) for part in self.parts], self.scales, self.weights)


def mix(scores: Sequence[np.ndarray], scales: Sequence[float], weights: Sequence[float]) -> np.ndarray:
    """The weighted sum of what the parts gave, an array of its own. (Q, V)"""
    mixed = scores[0] * np.float32(weights[0] / scales[0])
    for part, scale, weight in zip(scores[1:], scales[1:], weights[1:], strict=True):
        mixed += part * np.float32(weight / scale)
    return mixed


def typical_best(baseline: Baseline, history: Sequences) -> float:
    """Mean over the histories of the best score; 1 where nothing scores. Puts baselines on one scale."""
    return float(baseline.score(history).max(axis=1, initial=0.0).mean()) or 1.0
