"""Towers that learn from a sample of a step's items: what the others are, where gradients go, and exact resume."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec.errors import ConfigError
from mmrec.inference import encode_catalog
from mmrec.item_inputs import CatalogInputs
from mmrec.modality_encoders import FoundationImageConfig
from mmrec.training import preset
from mmrec.training.config import TrainConfig
from mmrec.training.evaluation import open_checkpoint
from mmrec.training.trainer import Trainer

EVERYTHING = 10_000


def config(dataset: Path, run: Path, **settings) -> TrainConfig:
    """Towers that learn from the first step on."""
    small = {"batch_size": 8, "tower_batch_size": 8, "tower_negatives": EVERYTHING, "rest_epochs": 0, "tower_items": 4}
    return dataclasses.replace(preset("hybrid", dataset), out=run, **{**small, "patience": 99, **settings})


def first_step(settings: TrainConfig) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of the first step, without dropout."""
    trainer = Trainer(settings)
    trainer.towers.renew_outputs()
    trainer.model.eval()
    loss = trainer.recommender.total(trainer.model(next(iter(trainer.loader.epoch(0)))))
    loss.backward()
    named = trainer.recommender.named_parameters()
    return loss, {name: value.grad for name, value in named if value.grad is not None}


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_a_sample_of_all_items_has_the_loss_and_the_gradients_of_reading_all(tiny_dataset_path, tmp_path):
    whole, gradients = first_step(config(tiny_dataset_path, tmp_path / "whole", tower_items=0))
    sampled, found = first_step(config(tiny_dataset_path, tmp_path / "sampled", tower_items=EVERYTHING))
    torch.testing.assert_close(sampled, whole, atol=1e-5, rtol=0)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_just_after_a_renewal_a_sample_changes_gradients_of_towers_and_nothing_else(tiny_dataset_path, tmp_path):
    whole, gradients = first_step(config(tiny_dataset_path, tmp_path / "whole", tower_items=EVERYTHING))
    sampled, found = first_step(config(tiny_dataset_path, tmp_path / "sampled", tower_items=4))
    torch.testing.assert_close(sampled, whole, atol=1e-5, rtol=0)
    towers = [n for n in gradients if re.search(r"encoders\.(image|text|audio|video)\.(?!head)", n)]
    for name, gradient in gradients.items():
        if name not in towers:
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert any(not torch.allclose(found[name], gradients[name], atol=1e-6) for name in towers)


def test_each_step_draws_its_own_sample_of_the_given_size(tiny_dataset_path, tmp_path):
    trainer = Trainer(config(tiny_dataset_path, tmp_path / "run", modality_dropout=0.0))
    trainer.towers.renew_outputs()
    samples = []
    for batch in trainer.loader.epoch(0):
        column = trainer.catalog.inputs.modalities.index("image")
        has = batch.items.item_idx[batch.items.present[:, column]]
        rows, media = batch.items.reread.get("image", (torch.zeros(0, dtype=torch.long), {"values": ()}))
        assert len(rows) == len(media["values"]) <= 4
        samples.append(has[rows].tolist())
    assert any(samples)
    assert len({tuple(sample) for sample in samples}) > 1


def test_training_changes_towers_and_validates_them_as_they_are(tiny_dataset_path, tmp_path):
    settings = config(tiny_dataset_path, tmp_path / "run", max_epochs=2, tower_rate=5.0)
    trainer = Trainer(settings)
    before = {n: v.detach().clone() for n, v in trainer.recommender.named_parameters() if ".tower." in n}
    trainer.fit()
    after = dict(trainer.recommender.named_parameters())
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    everything = np.arange(trainer.dataset.num_items)
    _, dataset, stored, _ = open_checkpoint(tmp_path / "run" / "latest", tiny_dataset_path)
    from_media = encode_catalog(stored, CatalogInputs(dataset, stored.inputs), everything)
    from_outputs = encode_catalog(trainer.recommender, trainer.catalog, everything)
    torch.testing.assert_close(from_outputs, from_media, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rest_epochs", [0, 1], ids=["awake from the start", "after a rest"])
def test_a_run_stopped_within_an_epoch_goes_on_exactly(tiny_dataset_path, tmp_path, rest_epochs):
    settings = {"rest_epochs": rest_epochs, "max_epochs": rest_epochs + 2, "batch_size": 4}
    Trainer(config(tiny_dataset_path, tmp_path / "whole", **settings)).fit()
    run = config(tiny_dataset_path, tmp_path / "run", **settings)
    trainer = Trainer(run)
    take_step = trainer._step

    def stop_in_the_last_epoch(batch, clock):
        take_step(batch, clock)
        if trainer.state.epoch == rest_epochs + 1 and trainer.state.step_in_epoch == 2:
            trainer._request_stop(15, None)

    trainer._step = stop_in_the_last_epoch
    trainer.fit()
    assert (tmp_path / "run" / "latest" / "training_state" / "tower_outputs.pt").exists()
    assert not (tmp_path / "run" / "finished.json").exists()
    Trainer(run).fit()
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert not (tmp_path / "run" / "latest" / "training_state" / "tower_outputs.pt").exists(), "needed within an epoch"


def test_the_block_of_a_foundation_encoder_learns_from_kept_hidden_states(tiny_dataset_path, tmp_path):
    encoder = FoundationImageConfig(encoder="timm:test_vit@random", tune="top:1")
    content = preset("content", tiny_dataset_path, encoders={"image": encoder})
    small = {"batch_size": 8, "rest_epochs": 1, "tower_epochs": 1, "tower_items": 6, "max_epochs": 2}
    trainer = Trainer(dataclasses.replace(content, out=tmp_path / "run", **small))
    image = trainer.recommender.item_encoder.encoders["image"]
    before = {name: value.detach().clone() for name, value in image.tower.named_parameters()}
    trainer.fit()
    changed = {name for name, value in image.tower.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= {name for name in before if name.startswith(("network.blocks.5.", "network.norm."))}, sorted(
        changed
    )


def test_two_schedules_of_stale_vectors_are_refused(tiny_dataset_path, tmp_path):
    defaults = preset("hybrid", tiny_dataset_path)
    next_item = dataclasses.replace(defaults.model.next_item, refresh_steps=4)
    model = dataclasses.replace(defaults.model, next_item=next_item)
    with pytest.raises(ConfigError, match=r"tower_items and next_item\.refresh_steps both keep vectors"):
        dataclasses.replace(defaults, model=model, tower_items=4)
    with pytest.raises(ConfigError, match="tower_items is -1; it must be 0"):
        dataclasses.replace(defaults, tower_items=-1)
