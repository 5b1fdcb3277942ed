"""The blocked log-sum-exp against the dense one in float64: value, gradients, and what it must not do."""

from __future__ import annotations

import pytest
import torch

from mmrec.objectives import Excluded, blocked_softmax
from mmrec.objectives.blocked_softmax import blocked_logsumexp

N, C, D = 23, 17, 5


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    users, candidates = (torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (N, C))
    log_inclusion = -torch.rand(C, generator=generator, dtype=torch.float64)
    own = torch.full((N,), -1)
    own[torch.tensor([0, 3, 22])] = torch.tensor([4, 2, 1])
    # Runs over one row, over many, over none; one pair twice; row 7 excludes everything.
    runs = [(5, 0, 4), (2, 2, 4), *[(column, 7, 8) for column in range(C)], (9, 8, 8), (9, 8, 23), (16, 22, 23)]
    columns, starts, stops = torch.tensor(runs).T
    excluded = Excluded(own=own, columns=columns, starts=starts, stops=stops)
    scale = torch.tensor(3.0, dtype=torch.float64)
    for tensor in (users, candidates, scale):
        tensor.requires_grad_(True)
    return users, candidates, scale, log_inclusion, excluded


def dense(users, candidates, scale, log_inclusion, excluded):
    left_out = torch.zeros(N, C, dtype=torch.bool)
    for row, column in enumerate(excluded.own.tolist()):
        if column >= 0:
            left_out[row, column] = True
    for column, start, stop in zip(
        *(t.tolist() for t in (excluded.columns, excluded.starts, excluded.stops)), strict=True
    ):
        left_out[start:stop, column] = True
    scores = scale * users @ candidates.T - log_inclusion
    return torch.logsumexp(scores.masked_fill(left_out, -torch.inf), dim=1)


@pytest.mark.parametrize("block", [(1, 1), (3, 4), (23, 17), (100, 100)], ids=str)
def test_value_and_gradients_equal_the_dense_form(case, monkeypatch, block):
    monkeypatch.setitem(blocked_softmax.BLOCK, "cpu", block)
    found, expected = blocked_logsumexp(*case), dense(*case)
    torch.testing.assert_close(found, expected)
    assert found[7] == -torch.inf

    finite = torch.arange(N) != 7
    weights = torch.randn(N - 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = torch.autograd.grad((found[finite] * weights).sum(), case[:3])
    for gradient, reference in zip(
        gradients, torch.autograd.grad((expected[finite] * weights).sum(), case[:3]), strict=True
    ):
        torch.testing.assert_close(gradient, reference)


def test_a_row_that_excludes_everything_has_no_gradient(case):
    users, candidates, scale, log_inclusion, excluded = case
    positive = torch.zeros(N, dtype=torch.float64, requires_grad=True)
    loss = torch.logaddexp(positive, blocked_logsumexp(users, candidates, scale, log_inclusion, excluded)) - positive
    loss.sum().backward()
    assert loss[7] == 0
    assert users.grad is not None
    assert not users.grad[7].any()
    assert users.grad.isfinite().all()


def test_low_precision_inputs_are_computed_in_float32(case):
    users, candidates, scale, log_inclusion, excluded = [value.detach().bfloat16() for value in case[:2]] + [
        case[2].float(),
        case[3].float(),
        case[4],
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = blocked_logsumexp(users, candidates, scale, log_inclusion, excluded)
    assert found.dtype == torch.float32
    expected = dense(users.double(), candidates.double(), scale.double(), log_inclusion.double(), excluded)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
