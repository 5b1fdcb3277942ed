"""The softmax over the whole catalogue with vectors of a refresh schedule: how stale they are, and what is exact."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from mmrec.inference import encode_catalog
from mmrec.model import MAX_SCALE
from mmrec.training import preset
from mmrec.training.config import TrainConfig
from mmrec.training.trainer import Trainer


def config(data, run, *, refresh_steps: int, num_negatives: int = 3, **changes) -> TrainConfig:
    defaults = preset("features", data)
    next_item = dataclasses.replace(defaults.model.next_item, refresh_steps=refresh_steps, num_negatives=num_negatives)
    model = dataclasses.replace(defaults.model, next_item=next_item)
    return dataclasses.replace(defaults, model=model, out=run, batch_size=4, **changes)


def loss_and_gradients(trainer: Trainer) -> tuple[float, dict[str, torch.Tensor]]:
    trainer.model.eval()
    batch = next(iter(trainer.loader.epoch(0)))
    losses = trainer.model(batch.to(trainer.device))
    losses["next_item"].backward()
    return losses["next_item"].item(), {
        name: parameter.grad for name, parameter in trainer.recommender.named_parameters() if parameter.grad is not None
    }


def test_freshly_refreshed_the_loss_is_the_full_softmax(tiny_dataset_path, tmp_path):
    no_dropout = {"id_dropout": 0.0, "modality_dropout": 0.0}  # it hides modalities of the step's items alone
    full = Trainer(config(tiny_dataset_path, tmp_path / "full", refresh_steps=0, num_negatives=1000, **no_dropout))
    bank = Trainer(config(tiny_dataset_path, tmp_path / "bank", refresh_steps=4, **no_dropout))
    bank.refresh_bank()
    expected, found = loss_and_gradients(full), loss_and_gradients(bank)
    # The batches differ in how many items they encode; their histories are the same.
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    torch.testing.assert_close(found[1]["log_scale"], expected[1]["log_scale"], atol=1e-4, rtol=1e-4)


def test_vectors_are_at_most_refresh_steps_minus_one_steps_old(tiny_dataset_path, tmp_path):
    trainer = Trainer(config(tiny_dataset_path, tmp_path / "run", refresh_steps=3, max_epochs=1))
    known = np.flatnonzero(trainer.split.train_items)
    ages, refreshed = [], {}
    step, refresh = trainer._step, trainer.refresh_bank

    def refresh_and_compare() -> None:
        now = encode_catalog(trainer.recommender, trainer.catalog, known)
        refreshed[trainer.state.step] = now
        refresh()
        equal = [at for at, vectors in refreshed.items() if torch.equal(vectors, trainer.recommender.bank[1])]
        ages.append(trainer.state.step - max(equal))

    trainer.refresh_bank, trainer._step = refresh_and_compare, step
    trainer.fit()
    assert ages == [n % 3 for n in range(len(ages))]
    assert len(ages) > 4


def test_a_resumed_run_goes_on_with_the_vectors_that_it_had(tiny_dataset_path, tmp_path):
    def losses(run) -> list[float]:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [line["loss"] for line in lines if "loss" in line]

    # Epochs of 6 steps: with a refresh every 5 the second one starts in the middle of a schedule.
    whole = config(tiny_dataset_path, tmp_path / "whole", refresh_steps=5, max_epochs=3, patience=9)
    Trainer(whole).fit()
    for epochs in (1, 3):
        Trainer(dataclasses.replace(whole, out=tmp_path / "part", max_epochs=epochs)).fit()
        (tmp_path / "part" / "finished.json").unlink()
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")


def test_a_temperature_that_runs_away_is_held(tiny_dataset_path, tmp_path):
    trainer = Trainer(config(tiny_dataset_path, tmp_path / "run", refresh_steps=0, max_epochs=1))
    with torch.no_grad():
        trainer.recommender.log_scale.fill_(50.0)  # logits of 1e21
    trainer.recommender.limit_temperature()
    assert trainer.recommender.log_scale.exp().item() == pytest.approx(MAX_SCALE)
    trainer.fit()
    assert 1.0 <= trainer.recommender.log_scale.exp().item() <= MAX_SCALE * 1.0001
