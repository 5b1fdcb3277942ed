"""Dropout by bytes: rate, expectation, gradient, seed, and nothing at all in evaluation."""

from __future__ import annotations

import pytest
import torch

from mmrec.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.999])
def test_entries_are_dropped_at_the_rate_and_the_mean_is_kept(rate):
    torch.manual_seed(0)
    dropped = Dropout(rate)(torch.ones(1000, 501))
    assert float((dropped == 0).double().mean()) == pytest.approx(rate, abs=0.004)
    assert float(dropped.double().mean()) == pytest.approx(1.0, abs=0.05 if rate > 0.9 else 0.005)
    assert len(dropped.unique()) == 2


def test_neighbours_in_one_random_number_are_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(100_000, 8)) > 0).double()
    together = torch.corrcoef(kept.T) - torch.eye(8)
    assert together.abs().max() < 0.02


def test_gradients_pass_where_values_do():
    torch.manual_seed(0)
    values = torch.randn(7, 5, requires_grad=True)
    dropped = Dropout(0.4)(values)
    dropped.sum().backward()
    kept = dropped != 0
    torch.testing.assert_close(values.grad, torch.where(kept, dropped / values, 0.0).detach())


def test_the_seed_decides():
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(Dropout(0.5)(torch.ones(100)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_evaluation_and_rate_zero_change_nothing():
    values = torch.randn(4, 3)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values
    assert Dropout(0.5)(values[:0]).shape == (0, 3)
