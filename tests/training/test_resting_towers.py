"""Towers rest first: the same losses as from the media, untouched weights, and a resumed run that goes on exactly."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from mmrec.errors import ConfigError
from mmrec.inference import use_tower_outputs
from mmrec.training import preset
from mmrec.training.config import TrainConfig
from mmrec.training.trainer import Trainer


def config(dataset: Path, run: Path, **settings: int) -> TrainConfig:
    small = {"batch_size": 8, "tower_batch_size": 16, "rest_epochs": 2, "tower_epochs": 2, "patience": 99}
    return dataclasses.replace(preset("hybrid", dataset), out=run, **{**small, **settings})


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def tower_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    named = trainer.recommender.named_parameters()
    return {name: value.detach().clone() for name, value in named if ".tower." in name}


@pytest.fixture(scope="module")
def whole_run(tiny_dataset_path, tmp_path_factory) -> dict[int, float]:
    run = tmp_path_factory.mktemp("whole") / "run"
    Trainer(config(tiny_dataset_path, run)).fit()
    return losses(run)


def test_kept_outputs_of_towers_give_the_loss_of_the_media(tiny_dataset_path, tmp_path):
    trainer = Trainer(config(tiny_dataset_path, tmp_path / "run"))
    trainer.model.eval()
    from_media = trainer.model(next(iter(trainer.loader.epoch(0))))
    use_tower_outputs(trainer.recommender, trainer.catalog)
    from_outputs = trainer.model(next(iter(trainer.loader.epoch(0))))
    for name, loss in from_media.items():
        torch.testing.assert_close(from_outputs[name], loss, atol=1e-5, rtol=0)


def test_towers_keep_their_weights_at_rest_and_change_them_afterwards(tiny_dataset_path, tmp_path):
    trainer = Trainer(config(tiny_dataset_path, tmp_path / "run", max_epochs=2))
    before = tower_weights(trainer)
    trainer.fit()
    for name, weight in tower_weights(trainer).items():
        assert torch.equal(weight, before[name]), name
    (tmp_path / "run" / "finished.json").unlink()
    trainer = Trainer(config(tiny_dataset_path, tmp_path / "run", max_epochs=3))
    trainer.fit()
    assert all(not torch.equal(weight, before[name]) for name, weight in tower_weights(trainer).items())


@pytest.mark.parametrize("epochs", [1, 2, 3], ids=["at rest", "at the moment of waking", "while towers learn"])
def test_a_run_resumed_in_any_phase_has_the_losses_of_a_whole_one(tiny_dataset_path, whole_run, tmp_path, epochs):
    run = tmp_path / "run"
    Trainer(config(tiny_dataset_path, run, max_epochs=epochs)).fit()
    assert len(losses(run)) < len(whole_run)
    (run / "finished.json").unlink()
    Trainer(config(tiny_dataset_path, run)).fit()
    assert losses(run) == whole_run


def test_towers_that_rest_for_ever_need_a_number_of_epochs(tiny_dataset_path, tmp_path):
    with pytest.raises(ConfigError, match="tower_epochs 0 leaves the towers at rest; say for how long by rest_epochs"):
        config(tiny_dataset_path, tmp_path, rest_epochs=0, tower_epochs=0)
