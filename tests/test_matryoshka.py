"""Vectors that may be cut: each trained width is a model of its own, in training, evaluation and export."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmrec.errors import ConfigError
from mmrec.inference import encode_histories
from mmrec.matryoshka import check_width, narrow, widen
from mmrec.model import ModelConfig
from mmrec.training import preset
from mmrec.training.evaluation import vectors_of_checkpoint
from mmrec.training.trainer import Trainer, train


def config_with(dataset, out, widths: tuple[int, ...]):
    config = preset("features", dataset)
    model = dataclasses.replace(config.model, matryoshka=widths)
    return dataclasses.replace(config, model=model, out=out, max_epochs=2, batch_size=12, modality_dropout=0.0)


def test_a_cut_vector_has_unit_length_and_a_whole_one_is_left_alone():
    vectors = F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert narrow(vectors, 8) is vectors
    torch.testing.assert_close(narrow(vectors, 3), vectors[:, :3] / vectors[:, :3].norm(dim=1, keepdim=True))
    assert torch.equal(widen(vectors[:, :3], 8)[:, :3], vectors[:, :3])
    assert not widen(vectors[:, :3], 8)[:, 3:].any()


def test_the_loss_is_the_mean_over_the_widths(tiny_dataset_path, tmp_path):
    """Of each width as if a model of that width read cut items, in float64."""
    trainer = Trainer(config_with(tiny_dataset_path, tmp_path / "run", (8, 16)))
    model = trainer.recommender.double().eval()
    step = next(iter(trainer.loader.epoch(0)))
    inputs = {
        n: {k: v.double() if v.is_floating_point() else v for k, v in g.items()} for n, g in step.items.inputs.items()
    }
    step = dataclasses.replace(step, items=dataclasses.replace(step.items, inputs=inputs))
    table = model.encode_items(step.items)
    rows = torch.searchsorted(step.step_items, step.sequences.item_idx)
    scale, expected = model.log_scale.exp()[0], []
    for width in (8, 16, table.shape[1]):
        items = F.normalize(table[:, :width], dim=-1)
        padded = torch.cat([items[rows], items.new_zeros(len(rows), table.shape[1] - width)], dim=1)
        users = F.normalize(F.normalize(model.user_encoder(padded, step.sequences), dim=-1)[:, :width], dim=-1)
        expected.append(model._next_item(step, users, items, scale))
    assert len({round(float(loss.detach()), 6) for loss in expected}) == 3, "the widths differ"
    torch.testing.assert_close(model(step)["next_item"], torch.stack(expected).mean(), rtol=1e-12, atol=0)


def test_a_shorter_catalogue_needs_nothing_of_the_longer_one(tiny_dataset_path, tmp_path):
    """Histories are read from the cut vectors; batching changes nothing."""
    run = train(config_with(tiny_dataset_path, tmp_path / "run", (8,)))
    found = vectors_of_checkpoint(run, tiny_dataset_path, "test", dim=8)
    assert found.items.shape[1] == found.users.shape[1] == 8
    lengths = found.users.norm(dim=1)[torch.from_numpy(found.split.test.history.lengths > 0)]
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    one = found.split.test.take(np.array([0]))
    alone = encode_histories(found.user_encoder, found.items, one.history, query_times=one.times)
    torch.testing.assert_close(alone[0], found.users[0], atol=1e-6, rtol=0)


def test_widths_that_cannot_be_are_refused(tiny_dataset_path, tmp_path):
    item_encoder = preset("features", tiny_dataset_path).model.item_encoder
    for widths in ((0,), (item_encoder.dim,), (16, 8), (8, 8)):
        with pytest.raises(ConfigError, match="ascending order"):
            ModelConfig(item_encoder=item_encoder, matryoshka=widths)
    with pytest.raises(ConfigError, match="vectors of 8 or 64 dimensions"):
        check_width(9, (8,), 64)
    run = train(config_with(tiny_dataset_path, tmp_path / "run", ()))
    with pytest.raises(ConfigError, match="dim is 8"):
        vectors_of_checkpoint(run, tiny_dataset_path, "test", dim=8)
