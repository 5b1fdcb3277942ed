"""The same list for everybody: items by their number of training events, of all time or of late."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmrec.baselines.histories import event_counts
from mmrec.data.sequences import Sequences

__all__ = ["Popularity"]

_DAY = 86_400


@dataclass(frozen=True)
class Popularity:
    """Args: counts: training events of each item. (V,)"""

    counts: np.ndarray

    @classmethod
    def fit(cls, train: Sequences, num_items: int) -> Popularity:
        return cls(event_counts(train, num_items))

    @classmethod
    def fit_recent(cls, train: Sequences, num_items: int, *, window_days: float) -> Popularity:
        """Events of the last days before the last training event alone; the training needs timestamps."""
        assert train.timestamps is not None, "selection asks for it only where there is time"
        recent = train.timestamps > train.timestamps.max() - window_days * _DAY
        return cls(np.bincount(train.item_idx[recent], minlength=num_items))

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        return np.tile(self.counts.astype(np.float32), (len(history), 1))
