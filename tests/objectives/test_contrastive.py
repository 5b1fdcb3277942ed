"""InfoNCE against a slow transcription in float64."""

from __future__ import annotations

import math

import pytest
import torch

from mmrec.objectives import info_nce


def test_value_equals_a_dense_transcription_with_equal_items_masked():
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    columns = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    positive = torch.tensor([2, 3, 4, 5])
    column_item = torch.tensor([7, 1, 5, 7, 5, 2])
    row_item = column_item[positive]
    losses = info_nce(rows, columns, positive, row_item, column_item, 1.7)
    for row in range(4):
        scores = (1.7 * rows[row] @ columns.T).tolist()
        own = int(positive[row])
        kept = [s for n, s in enumerate(scores) if n == own or column_item[n] != row_item[row]]
        expected = -math.log(math.exp(scores[own]) / sum(math.exp(s) for s in kept))
        assert float(losses[row]) == pytest.approx(expected, abs=1e-5)


def test_a_batch_of_one_item_has_nothing_to_tell_apart():
    vectors = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    same = torch.tensor([5, 5, 5])
    losses = info_nce(vectors, vectors, torch.arange(3), same, same, 10.0)
    assert losses.tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
