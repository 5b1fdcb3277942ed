"""InfoNCE and the sigmoid form against slow transcriptions in float64, value and gradients, whole and in shares."""

from __future__ import annotations

import pytest
import torch

from mmrec.objectives import info_nce, sigmoid_contrastive

COLUMN_ITEM = torch.tensor([7, 1, 5, 7, 5, 2])


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(3)
    rows, columns = (torch.randn(n, 3, generator=generator, dtype=torch.float64, requires_grad=True) for n in (4, 6))
    scale = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.2, dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([2, 3, 4, 5])
    return rows, columns, positive, COLUMN_ITEM[positive], COLUMN_ITEM, scale, bias


def info_nce_written_out(rows, columns, positive, row_item, column_item, scale):
    losses = []
    for row in range(len(rows)):
        scores, own = scale * (columns @ rows[row]), int(positive[row])
        kept = [n for n in range(len(columns)) if n == own or column_item[n] != row_item[row]]
        losses.append(-torch.log(scores[own].exp() / scores[kept].exp().sum()))
    return torch.stack(losses)


def sigmoid_written_out(rows, columns, positive, row_item, column_item, scale, bias):
    losses = []
    for row in range(len(rows)):
        total = rows.new_zeros(())
        for n in range(len(columns)):
            logit = scale * (columns[n] @ rows[row]) + bias
            if n == int(positive[row]):
                total = total - torch.log(torch.sigmoid(logit))
            elif column_item[n] != row_item[row]:
                total = total - torch.log(torch.sigmoid(-logit))
        losses.append(total)
    return torch.stack(losses)


FORMS = [(info_nce, info_nce_written_out, False), (sigmoid_contrastive, sigmoid_written_out, True)]


@pytest.mark.parametrize(("form", "written_out", "biased"), FORMS, ids=["info_nce", "sigmoid"])
def test_value_and_gradients_equal_the_formula_with_equal_items_masked(case, form, written_out, biased):
    arguments = case if biased else case[:-1]
    inputs = [value for value in arguments if value.requires_grad]
    weights = torch.arange(1.0, 5.0, dtype=torch.float64)
    found, expected = form(*arguments), written_out(*arguments)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    gradients = zip(
        torch.autograd.grad(found @ weights, inputs), torch.autograd.grad(expected @ weights, inputs), strict=True
    )
    for gradient, reference in gradients:
        torch.testing.assert_close(gradient, reference, atol=1e-10, rtol=0)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("form", "_", "biased"), FORMS, ids=["info_nce", "sigmoid"])
def test_rows_in_shares_sum_to_the_whole(case, form, _, biased, ranks):
    rows, columns, positive, row_item, column_item, *rest = case if biased else case[:-1]
    whole = form(rows, columns, positive, row_item, column_item, *rest).sum()
    parts = [
        form(rows[n::ranks], columns, positive[n::ranks], row_item[n::ranks], column_item, *rest).sum()
        for n in range(ranks)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_the_sigmoid_form_is_the_same_in_both_directions(case):
    _, columns, _, _, column_item, scale, bias = case
    users = torch.randn(6, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    own = torch.arange(6)
    there = sigmoid_contrastive(users, columns, own, column_item, column_item, scale, bias).sum()
    back = sigmoid_contrastive(columns, users, own, column_item, column_item, scale, bias).sum()
    torch.testing.assert_close(there, back)


def test_a_batch_of_one_item_has_nothing_to_tell_apart():
    vectors = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    same = torch.tensor([5, 5, 5])
    losses = info_nce(vectors, vectors, torch.arange(3), same, same, 10.0)
    assert losses.tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
