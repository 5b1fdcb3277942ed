"""A weighted sum of baselines: each knows something that the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from mmrec.data.sequences import Sequences

__all__ = ["FORMS", "Baseline", "Form", "Mixture", "mix", "on_one_scale", "typical_best"]


class Baseline(Protocol):
    """Anything that scores the whole catalogue for histories."""

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32, an array of its own. (Q, V)"""
        ...


Form = Literal["typical_best", "own_best", "deviations"]
"""What puts the scores of a part on the scale of the others: the mean of the best scores over many histories, the best
score of the same history, or the mean and standard deviation of the scores of the same history."""

FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True)
class Mixture:
    """The weighted sum of the scores of baselines, each on one scale with the others.

    Args:
        parts: the baselines.
        scales: :func:`typical_best` of each.
        weights: of each, 1 together.
        form: how they come to one scale.
    """

    parts: tuple[Baseline, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    form: Form = "typical_best"

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        scores = (part.score(history) for part in self.parts)
        return mix([on_one_scale(one, scale, self.form) for one, scale in zip(scores, self.scales, strict=True)],
                   self.weights)  # fmt: skip


def on_one_scale(scores: np.ndarray, scale: float, form: Form) -> np.ndarray:
    """Scores of a part as the form has them, an array of its own; a history without any score keeps zeros. (Q, V)"""
    if form == "typical_best":
        return scores / np.float32(scale)
    if form == "own_best":
        best = scores.max(axis=1, keepdims=True)
        return scores / np.where(best > 0, best, np.float32(1))
    centred = scores - scores.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    return centred / np.where(deviation > 0, deviation, np.float32(1))


def mix(scores: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """The weighted sum, an array of its own. (Q, V)"""
    mixed = scores[0] * np.float32(weights[0])
    for part, weight in zip(scores[1:], weights[1:], strict=True):
        mixed += part * np.float32(weight)
    return mixed


def typical_best(baseline: Baseline, history: Sequences) -> float:
    """Mean over the histories of the best score; 1 where nothing scores. Puts baselines on one scale."""
    return float(baseline.score(history).max(axis=1, initial=0.0).mean()) or 1.0
