"""Modality dropout: so often, independently, never the last one, and decided by the item's key alone."""

from __future__ import annotations

import numpy as np

from mmrec.item_encoder import modality_dropout
from mmrec.keyed_random import draw_keys

RATES = np.array([0.1, 0.3, 0.0, 0.5])


def keys(number: int, step: int = 0) -> np.ndarray:
    return draw_keys((7, step), np.arange(number))


def test_each_modality_is_hidden_at_its_rate():
    keep = modality_dropout(np.ones((100_000, 4), dtype=bool), RATES, keys(100_000))
    np.testing.assert_allclose(1 - keep.mean(0), RATES, atol=0.005)
    together = np.corrcoef(keep[:, [0, 1, 3]].T) - np.eye(3)
    assert np.abs(together).max() < 0.015, "one modality tells nothing of another"


def test_an_item_that_would_lose_everything_keeps_everything():
    present = np.array([[1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)
    for step in range(300):
        keep = modality_dropout(present, np.array([0.9, 0.9, 0.9, 0.9]), keys(3, step))
        left = (present & keep).any(1)
        assert left.tolist() == [True, True, False]
        assert keep[0, 0], "the only one it has"


def test_the_item_and_the_step_decide_and_nothing_else():
    present = np.ones((50, 4), dtype=bool)
    whole = modality_dropout(present, RATES, keys(50))
    half = modality_dropout(present[1::2], RATES, keys(50)[1::2])
    assert np.array_equal(half, whole[1::2]), "whichever items a process holds"
    assert not np.array_equal(modality_dropout(present, RATES, keys(50, step=1)), whole)
