"""What comes after what: counts of ordered pairs a few events apart.

Source: sequential rules with weight 1 / gap (Ludewig and Jannach 2018, section 3.1.3), made comparable by confidence
(Agrawal et al. 1993) or by cosine, both with shrinkage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from mmrec.baselines.histories import SparseMatrix, event_counts, history_scores
from mmrec.data.sequences import Sequences

__all__ = ["SequentialRules"]


@dataclass(frozen=True)
class SequentialRules:
    """Args: rules: weight of "row, then column", sparse (V, V); decay: weight kept with each event of age."""

    rules: SparseMatrix
    decay: float

    @classmethod
    def fit(
        cls,
        train: Sequences,
        num_items: int,
        *,
        window: int,
        shrink: float,
        decay: float,
        normalise: Literal["cosine", "confidence"] = "cosine",
    ) -> SequentialRules:
        """A pair ``gap`` events apart counts 1 / gap, up to ``window``.

        Sums are divided by the number of events of the first item (confidence: what follows, popular or not) or by the
        geometric mean of those of both (cosine: what belongs together), plus ``shrink``: a rule seen once is no law.
        """
        user = np.repeat(np.arange(len(train)), train.lengths)
        rules: SparseMatrix = sp.csr_matrix((num_items, num_items), dtype=np.float64)
        for gap in range(1, window + 1):
            same = user[:-gap] == user[gap:]
            first, then = train.item_idx[:-gap][same], train.item_idx[gap:][same]
            other = first != then
            weights = np.full(int(other.sum()), 1.0 / gap)
            rules = rules + sp.csr_matrix((weights, (first[other], then[other])), rules.shape)
        events = event_counts(train, num_items).astype(np.float64)
        pairs = rules.tocoo()
        first, then = events[pairs.row], events[pairs.col]
        values = pairs.data / ((first if normalise == "confidence" else np.sqrt(first * then)) + shrink)
        return cls(sp.csr_matrix((values.astype(np.float32), (pairs.row, pairs.col)), rules.shape), decay)

    def score(self, history: Sequences) -> np.ndarray:
        """Scores of all items for each history, float32. (Q, V)"""
        return history_scores(history, self.rules, decay=self.decay)
