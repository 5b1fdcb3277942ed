"""A weighted sum of two baselines: each knows something that the other does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mmrec.data.sequences import Sequences

__all__ = ["Baseline", "Mixture", "typical_best"]


class Baseline(Protocol):
    """Anything that scores the whole catalogue for histories."""

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32, an array of its own. (Q, V)"""
        ...


@dataclass(frozen=True)
class Mixture:
    """``weight * first / scale of first + (1 - weight) * second / scale of second``."""

    first: Baseline
    second: Baseline
    scales: tuple[float, float]
    weight: float

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        return self.mix(self.first.score(history), self.second.score(history))

    def mix(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The weighted sum of scores that the two gave. (Q, V)"""
        mixed = first * np.float32(self.weight / self.scales[0])
        mixed += second * np.float32((1 - self.weight) / self.scales[1])
        return mixed


def typical_best(baseline: Baseline, history: Sequences) -> float:
    """Mean over the histories of the best score; 1 where nothing scores. Puts two baselines on one scale."""
    return float(baseline.score(history).max(axis=1, initial=0.0).mean()) or 1.0
