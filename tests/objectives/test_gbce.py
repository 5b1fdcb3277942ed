"""Generalised binary cross-entropy against its formula written out in float64, value and gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mmrec.objectives import Excluded, blocked_softmax, gbce_loss
from mmrec.objectives.blocked_softmax import blocked_softplus_sum

NUM_ITEMS = 30


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(NUM_ITEMS, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    users = torch.randn(5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    target_idx = torch.tensor([3, 8, 3, 20, 29])
    candidate_idx = torch.tensor([0, 3, 8, 11, 20, 25])
    return users, table, target_idx, candidate_idx, scale, bias


# (candidates, first events, last events + 1): of event 0 the second is a hit as well, of event 1 one stands twice.
SEEN = (torch.tensor([0, 1, 5, 5]), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 2, 3]))


def found(case, calibration: float, seen=None) -> torch.Tensor:
    users, table, target_idx, candidate_idx, scale, bias = case
    return gbce_loss(
        users, table[target_idx], target_idx, table[candidate_idx], candidate_idx, scale, bias,
        num_items=NUM_ITEMS, calibration=calibration, seen=seen,
    )  # fmt: skip


def written_out(case, calibration: float, seen=None) -> torch.Tensor:
    users, table, target_idx, candidate_idx, scale, bias = case
    losses = []
    for n in range(len(users)):
        runs = [] if seen is None else zip(*(part.tolist() for part in seen), strict=True)
        left_out = {column for column, start, stop in runs if start <= n < stop}
        kept = [c for c in range(len(candidate_idx)) if candidate_idx[c] != target_idx[n] and c not in left_out]
        alpha = len(kept) / (NUM_ITEMS - 1)
        beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)
        total = -beta * torch.log(torch.sigmoid(scale * users[n] @ table[target_idx[n]] + bias))
        for c in kept:
            total = total - torch.log(1 - torch.sigmoid(scale * users[n] @ table[candidate_idx[c]] + bias))
        losses.append(total / (len(kept) + 1))
    return torch.stack(losses)


@pytest.mark.parametrize("seen", [None, SEEN], ids=["all", "seen"])
@pytest.mark.parametrize("calibration", [0.0, 0.75, 1.0])
def test_value_and_gradients_equal_the_formula(case, calibration, seen):
    inputs = [case[0], case[1], case[4], case[5]]
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    here, expected = found(case, calibration, seen), written_out(case, calibration, seen)
    torch.testing.assert_close(here, expected, atol=1e-10, rtol=0)
    pairs = zip(
        torch.autograd.grad(here @ weights, inputs), torch.autograd.grad(expected @ weights, inputs), strict=True
    )
    for gradient, reference in pairs:
        torch.testing.assert_close(gradient, reference, atol=1e-10, rtol=0)


def test_without_calibration_it_is_binary_cross_entropy(case):
    users, table, target_idx, candidate_idx, scale, bias = case
    logits = scale * users[4] @ table[torch.cat([target_idx[4:], candidate_idx])].T + bias
    labels = torch.tensor([1.0, *[0.0] * 6], dtype=torch.float64)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(found(case, 0.0)[4], expected)


def test_an_event_without_any_negative_learns_from_its_target_alone(case):
    everything = (torch.arange(6), torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.long))
    users, table, target_idx, _, scale, bias = case
    positive = (scale * users[0] @ table[target_idx[0]] + bias).item()
    assert found(case, 0.5, everything)[0].item() == pytest.approx(0.5 * math.log1p(math.exp(-positive)))


def test_without_any_candidate_every_event_learns_from_its_target_alone(case):
    users, table, target_idx, _, scale, bias = case
    nothing = (users, table, target_idx, target_idx[:0], scale, bias)
    positive = scale * (users * table[target_idx]).sum(1) + bias
    torch.testing.assert_close(found(nothing, 0.25), -0.75 * torch.nn.functional.logsigmoid(positive))


@pytest.mark.parametrize("block", [(1, 1), (2, 4), (3, 5), (5, 6), (100, 100)], ids=str)
def test_blocks_change_nothing(case, monkeypatch, block):
    inputs = [case[0], case[1], case[4], case[5]]
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    expected = written_out(case, 0.75, SEEN)
    references = torch.autograd.grad(expected @ weights, inputs)
    monkeypatch.setitem(blocked_softmax.BLOCK, "cpu", block)
    here = found(case, 0.75, SEEN)
    torch.testing.assert_close(here, expected, atol=1e-10, rtol=0)
    for gradient, reference in zip(torch.autograd.grad(here @ weights, inputs), references, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-10, rtol=0)


def test_low_precision_inputs_are_summed_in_float32(case):
    users, table, _, _, scale, bias = case
    users, candidates = users.detach().bfloat16(), table.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = blocked_softplus_sum(users, candidates, scale.detach(), bias.detach(), Excluded.nothing(len(users)))
    logits = scale * users.double() @ candidates.double().T + bias
    assert total.dtype == torch.float32
    torch.testing.assert_close(total.double(), torch.nn.functional.softplus(logits).sum(1), atol=1e-4, rtol=1e-5)


def test_the_blocked_sum_has_the_gradients_of_finite_differences(case):
    users, table, _, _, scale, bias = case
    excluded = replace(Excluded.nothing(len(users)), own=torch.tensor([-1, 0, -1, -1, 2]))
    assert torch.autograd.gradcheck(
        lambda users, candidates, scale, bias: blocked_softplus_sum(users, candidates, scale, bias, excluded)[0],
        (users, table[:4].detach().requires_grad_(), scale, bias),
    )
