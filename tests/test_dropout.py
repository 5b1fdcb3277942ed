"""Dropout by keys: rate, expectation, gradient, independence, and nothing at all in evaluation."""

from __future__ import annotations

import pytest
import torch

from mmrec.dropout import Dropout, number_dropouts
from mmrec.keyed_random import draw_keys


def keys(number: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(draw_keys((seed,), torch.arange(number).numpy()).view("int64"))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.999])
def test_entries_are_dropped_at_the_rate_and_the_mean_is_kept(rate):
    dropped = Dropout(rate)(torch.ones(1000, 501), keys(1000))
    assert float((dropped == 0).double().mean()) == pytest.approx(rate, abs=0.004)
    assert float(dropped.double().mean()) == pytest.approx(1.0, abs=0.05 if rate > 0.9 else 0.005)
    assert len(dropped.unique()) == 2


def test_columns_rows_and_modules_are_dropped_independently():
    modules = torch.nn.ModuleList([Dropout(0.5), Dropout(0.5)])
    number_dropouts(modules)
    kept = [(module(torch.ones(50_000, 20), keys(50_000)) > 0).double() for module in modules]
    columns = torch.cat([kept[0], kept[1], kept[0].roll(1, 0)], 1)  # the same row twice, and the row before it
    together = torch.corrcoef(columns.T) - torch.eye(60)
    assert together.abs().max() < 0.03


def test_counting_keys_are_as_good_as_random_ones():
    """Neighbouring numbers as keys: no pattern of rows, of columns or of both."""
    kept = (Dropout(0.5)(torch.ones(4096, 64), torch.arange(4096)) > 0).double() - 0.5
    spectrum = torch.fft.rfft2(kept).abs() / (4096 * 64 * 0.25) ** 0.5
    assert spectrum.max() < 6, "the loudest of 135,000 frequencies of noise is at 4 to 5"


def test_gradients_pass_where_values_do():
    values = torch.randn(7, 5, requires_grad=True, generator=torch.Generator().manual_seed(0))
    dropped = Dropout(0.4)(values, keys(7))
    dropped.sum().backward()
    kept = dropped != 0
    torch.testing.assert_close(values.grad, torch.where(kept, dropped / values, 0.0).detach())


def test_a_row_is_dropped_by_its_key_wherever_it_stands():
    module, values, order = Dropout(0.5), torch.ones(9, 3, 5), torch.tensor([4, 8, 0, 1, 7, 2, 3, 6, 5])
    whole = module(values, keys(9))
    assert torch.equal(module(values, keys(9)[order]), whole[order])
    assert torch.equal(module(values[:2], keys(9)[3:5]), whole[3:5])
    assert not torch.equal(module(values, keys(9, seed=1)), whole)


def test_evaluation_and_rate_zero_change_nothing():
    values = torch.randn(4, 3)
    assert Dropout(0.5).eval()(values, None) is values
    assert Dropout(0.0)(values, None) is values
    assert Dropout(0.5)(values[:0], keys(0)).shape == (0, 3)


def test_training_without_keys_is_a_defect():
    with pytest.raises(AssertionError, match="needs the keys of its rows"):
        Dropout(0.5)(torch.ones(2, 2), None)


@pytest.mark.slow
def test_compiled_it_drops_the_same():
    """The compiler refuses integers that wrap around, which are left to PyTorch."""
    module = Dropout(0.5)
    compiled = torch.compile(module, dynamic=True)
    for rows in (7, 12):
        assert torch.equal(compiled(torch.ones(rows, 5), keys(rows)), module(torch.ones(rows, 5), keys(rows)))
