"""The next-item loss against a slow transcription in float64."""

from __future__ import annotations

import math

import pytest
import torch

from mmrec.errors import ConfigError
from mmrec.objectives import NextItemConfig, log_inclusion_probability, next_item_loss


def dense_reference(users, items, target_idx, candidate_idx, log_inclusion, scale):
    """One event at a time, one candidate at a time, with python floats."""
    losses = []
    for user, target in zip(users.tolist(), target_idx.tolist(), strict=True):

        def score(item, user=user):
            return scale * sum(u * v for u, v in zip(user, items[item].tolist(), strict=True))

        denominator = math.exp(score(target))
        for candidate, log_q in zip(candidate_idx.tolist(), log_inclusion.tolist(), strict=True):
            if candidate != target:
                denominator += math.exp(score(candidate)) / math.exp(log_q)
        losses.append(-math.log(math.exp(score(target)) / denominator))
    return losses


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(1)
    items = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    users = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    target_idx = torch.tensor([0, 3, 3, 8, 5])
    candidate_idx = torch.tensor([0, 2, 3, 5, 7])
    log_inclusion = torch.log(torch.tensor([0.9, 0.5, 0.8, 0.7, 0.2], dtype=torch.float64))
    return users, items, target_idx, candidate_idx, log_inclusion


def test_value_and_gradient_equal_a_dense_transcription(case):
    users, items, target_idx, candidate_idx, log_inclusion = case
    scale = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    users.requires_grad_(True)
    items.requires_grad_(True)
    losses = next_item_loss(
        users, items[target_idx], target_idx, items[candidate_idx], candidate_idx, log_inclusion, scale
    )
    expected = dense_reference(users.detach(), items.detach(), target_idx, candidate_idx, log_inclusion, 2.5)
    assert losses.tolist() == pytest.approx(expected, abs=1e-5)

    scores = scale * users @ items.T
    others = target_idx[:, None] != candidate_idx
    corrected = (scores[:, candidate_idx] - log_inclusion).masked_fill(~others, -torch.inf)
    positive = scores.gather(1, target_idx[:, None])
    dense = torch.logsumexp(torch.cat([positive, corrected], 1), 1) - positive[:, 0]
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    inputs = [users, items, scale]
    for gradient, reference in zip(
        torch.autograd.grad(losses @ weights, inputs), torch.autograd.grad(dense @ weights, inputs), strict=True
    ):
        torch.testing.assert_close(gradient, reference, atol=1e-10, rtol=0)


def test_with_all_items_as_candidates_it_is_the_full_softmax(case):
    users, items, target_idx, _, _ = case
    everything = torch.arange(len(items))
    losses = next_item_loss(users, items[target_idx], target_idx, items, everything, torch.zeros(len(items)), 3.0)
    full = torch.nn.functional.cross_entropy(3.0 * users @ items.T, target_idx, reduction="none")
    torch.testing.assert_close(losses.double(), full, atol=1e-5, rtol=0)


def test_an_accidental_hit_is_no_negative(case):
    users, items, target_idx, _, _ = case
    only_hits = next_item_loss(
        users[:1], items[target_idx[:1]], target_idx[:1], items[:1], torch.tensor([0]), torch.zeros(1), 1.0
    )
    assert only_hits.item() == pytest.approx(0.0, abs=1e-6)


def test_seen_items_are_no_negatives(case):
    users, items, target_idx, candidate_idx, log_inclusion = case
    seen = (torch.tensor([1, 0, 4]), torch.tensor([0, 1, 1]), torch.tensor([1, 2, 2]))  # candidate, events from, to
    found = next_item_loss(
        users, items[target_idx], target_idx, items[candidate_idx], candidate_idx, log_inclusion, 2.0, seen
    )
    kept = [[0, 2, 3, 4], [1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    for event, left in enumerate(kept):
        expected = dense_reference(
            users[[event]], items, target_idx[[event]], candidate_idx[left], log_inclusion[left], 2.0
        )
        assert float(found[event]) == pytest.approx(expected[0], abs=1e-5)


def test_the_corrected_denominator_is_unbiased():
    """Averaged over many draws, the estimated denominator is that of the full softmax."""
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(12, generator=generator, dtype=torch.float64)
    num_drawn, draws = 5, 20_000
    log_q = log_inclusion_probability(torch.zeros(12, dtype=torch.float64), 0, num_drawn, 12)
    chosen = torch.argsort(torch.rand(draws, 12, generator=generator), dim=1)[:, :num_drawn]
    estimate = torch.exp(scores[chosen] - log_q[chosen]).sum(1).mean()
    assert float(estimate) == pytest.approx(float(scores.exp().sum()), rel=0.02)


def test_inclusion_probability_counts_draws_and_targets():
    frequency = torch.tensor([0.0, 0.25], dtype=torch.float64)
    drawn, missed_as_target = 2 / 8, (1 - 0.25) ** 3
    expected = [math.log(drawn), math.log(1 - (1 - drawn) * missed_as_target)]
    assert log_inclusion_probability(frequency, 3, 2, 8).tolist() == pytest.approx(expected, abs=1e-6)


def test_drawing_the_whole_catalogue_includes_everything():
    assert log_inclusion_probability(torch.tensor([0.0, 0.5]), 10, 7, 7).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("num_targets", "num_drawn"), [(0, 3), (4, 0), (4, 3)], ids=["uniform", "in_batch", "mixed"])
def test_inclusion_probability_is_how_often_an_item_is_a_candidate(num_targets, num_drawn):
    generator = torch.Generator().manual_seed(4)
    frequency = torch.tensor([0.0, 0.05, 0.1, 0.15, 0.3, 0.4], dtype=torch.float64)
    steps, num_items = 40_000, len(frequency)
    is_candidate = torch.zeros(steps, num_items, dtype=torch.bool)
    drawn = torch.rand(steps, num_items, generator=generator).argsort(1)[:, :num_drawn]
    is_candidate.scatter_(1, drawn, True)
    if num_targets:
        targets = torch.multinomial(frequency, steps * num_targets, replacement=True, generator=generator)
        is_candidate.scatter_(1, targets.view(steps, num_targets), True)
    found = log_inclusion_probability(frequency, num_targets, num_drawn, num_items).exp().double()
    torch.testing.assert_close(found, is_candidate.double().mean(0), atol=0.01, rtol=0)


def test_where_none_are_drawn_a_cold_item_cannot_and_the_only_item_must_be_a_candidate():
    frequency = torch.tensor([0.0, 1.0])
    assert log_inclusion_probability(frequency, 4, 0, 2).tolist() == [-math.inf, 0.0]
    assert log_inclusion_probability(frequency, 0, 0, 2).tolist() == [-math.inf, -math.inf]
    assert log_inclusion_probability(frequency, 0, 1, 2).tolist() == pytest.approx([math.log(0.5)] * 2)


def test_without_any_candidate_the_loss_is_0(case):
    users, items, target_idx, candidate_idx, log_inclusion = case
    none = candidate_idx[:0]
    losses = next_item_loss(users, items[target_idx], target_idx, items[none], none, log_inclusion[:0], 2.0)
    assert losses.tolist() == [0.0] * 5


@pytest.mark.parametrize("given", [{"calibration": -0.1}, {"calibration": 1.5}, {"num_negatives": 0}], ids=str)
def test_a_setting_out_of_range_is_refused_by_name_and_value(given):
    (name, value), *_ = given.items()
    with pytest.raises(ConfigError, match=f"{name} is {value}; "):
        NextItemConfig(**given)


def test_in_batch_negatives_need_no_draws():
    assert NextItemConfig(negatives="in_batch", num_negatives=0).num_negatives == 0
