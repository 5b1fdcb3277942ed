"""Rows of item ids on their own: what the optimiser does with each, against its formula row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmrec.errors import ConfigError
from mmrec.modality_encoders.item_id import ItemIdConfig, ItemIdEncoder
from mmrec.training import preset
from mmrec.training.sharded_ids import BETAS, EPS, ShardedItemIds


@pytest.fixture
def table() -> tuple[ItemIdEncoder, ShardedItemIds]:
    torch.manual_seed(0)
    encoder = ItemIdEncoder(6, 4, ItemIdConfig(dropout=0.0)).double()
    return encoder, ShardedItemIds(encoder, np.array([3, -1, 0, 5, 1, 2, -1, 4]))


def test_it_gives_the_tokens_of_the_table_that_it_was_made_of(table):
    encoder, ids = table
    rows = {"rows": torch.tensor([4, 0, 0, 2])}
    for found, expected in zip(ids.eval()(rows), encoder.eval()(rows), strict=True):
        torch.testing.assert_close(found, expected)


def test_each_row_moves_by_adam_in_the_steps_that_read_it_and_rests_in_the_others(table):
    encoder, ids = table
    generator = torch.Generator().manual_seed(1)
    expected = {row: vector.clone() for row, vector in enumerate(encoder.embedding.weight.detach())}
    first, second, count = (dict.fromkeys(range(6), zero) for zero in (torch.zeros(4).double(), 0.0, 0))
    beta, beta2 = BETAS
    for rows in ([0, 3], [3, 5], [1, 3], [0, 5]):
        weights = torch.randn(len(rows), 4, generator=generator, dtype=torch.float64)
        tokens, _ = ids({"rows": torch.tensor(rows), "keys": torch.tensor(rows)})
        (tokens[:, 0] * weights).sum().backward()
        assert float(ids.squared_norm()) == pytest.approx(float(weights.square().sum()))
        ids.step(0.1, torch.tensor(0.5, dtype=torch.float64))
        for row, weight in zip(rows, 0.5 * weights, strict=True):
            count[row] += 1
            first[row] = beta * first[row] + (1 - beta) * weight
            second[row] = beta2 * second[row] + (1 - beta2) * float(weight.square().mean())
            corrected = first[row] / (1 - beta ** count[row])
            expected[row] -= 0.1 * corrected / ((second[row] / (1 - beta2 ** count[row])) ** 0.5 + EPS)
    whole = ids.gather()
    torch.testing.assert_close(whole["weight"], torch.stack([expected[row] for row in range(6)]))
    assert whole["count"].tolist() == [2, 1, 0, 3, 0, 2]


def test_a_step_without_a_gradient_changes_nothing(table):
    _, ids = table
    before = ids.weight.clone()
    ids.step(0.1, torch.tensor(1.0))
    assert torch.equal(ids.weight, before)
    assert float(ids.squared_norm()) == 0.0


def test_what_was_gathered_is_loaded_again(table):
    encoder, ids = table
    tokens, _ = ids({"rows": torch.tensor([1, 2]), "keys": torch.tensor([1, 2])})
    tokens.sum().backward()
    ids.step(0.1, torch.tensor(1.0))
    again = ShardedItemIds(encoder, np.array([3, -1, 0, 5, 1, 2, -1, 4]))
    again.load(ids.gather())
    for name in ("weight", "first_moment", "second_moment", "count"):
        assert torch.equal(getattr(again, name), getattr(ids, name)), name


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"parallel": "fsdp"}, "fsdp shards every table by itself"),
        ({"average_decay": 0.9}, "average_decay keeps a copy of all weights"),
    ],
)
def test_sharded_ids_are_refused_beside_what_they_contradict(tiny_dataset_path, settings, said):
    import dataclasses

    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(preset("id", tiny_dataset_path), shard_ids=True, **settings)
