"""Alignment of the modalities of one item, some of them missing, against its definition in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from mmrec.objectives import modality_alignment

PRESENT = torch.tensor(
    [
        [True, True, False, True, True, False],
        [True, False, True, True, True, False],
        [False, True, False, True, True, True],
    ]
)


@pytest.fixture
def vectors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(3, 6, 4, generator=generator, dtype=torch.float64), dim=-1).requires_grad_()


def written_out(vectors: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    losses = []
    for a, b in itertools.permutations(range(3), 2):
        for item in range(6):
            if PRESENT[a, item] and PRESENT[b, item]:
                scores = {n: scale * vectors[a, item] @ vectors[b, n] for n in range(6) if PRESENT[b, n]}
                losses.append(torch.logsumexp(torch.stack(list(scores.values())), 0) - scores[item])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_all_ranks_together_have_the_value_and_gradient_of_the_definition(vectors, ranks):
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for rank in range(ranks):
        columns = torch.arange(rank, 6, ranks)
        part, num_terms = modality_alignment(vectors[:, columns], PRESENT[:, columns], vectors, PRESENT, columns, scale)
        total = total + part / num_terms
    expected = written_out(vectors, scale)
    torch.testing.assert_close(total, expected, atol=1e-10, rtol=0)
    pairs = zip(
        torch.autograd.grad(total, [vectors, scale]), torch.autograd.grad(expected, [vectors, scale]), strict=True
    )
    for gradient, reference in pairs:
        torch.testing.assert_close(gradient, reference, atol=1e-10, rtol=0)


def test_what_is_missing_has_no_influence(vectors):
    changed = torch.where(PRESENT[..., None], vectors.detach(), torch.nan)
    own = torch.arange(6)
    before, _ = modality_alignment(vectors, PRESENT, vectors, PRESENT, own, 2.0)
    after, _ = modality_alignment(changed, PRESENT, changed, PRESENT, own, 2.0)
    torch.testing.assert_close(before, after)


def test_items_with_one_modality_each_have_nothing_to_align(vectors):
    alone = torch.eye(3, dtype=torch.bool).repeat(1, 2)
    total, num_terms = modality_alignment(vectors, alone, vectors, alone, torch.arange(6), 2.0)
    assert (total.item(), num_terms) == (0.0, 0)
    assert not torch.autograd.grad(total, vectors)[0].any(), "and other ranks need not wait for a gradient"
