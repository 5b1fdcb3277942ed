"""A loss that is no number stops the run before anything is learnt from it."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from mmrec.errors import TrainingError
from mmrec.training import preset
from mmrec.training.trainer import Trainer


def test_a_loss_that_is_no_number_ends_the_run_with_what_is_needed_to_look_into_it(tiny_dataset_path, tmp_path):
    run = tmp_path / "run"
    Trainer(dataclasses.replace(preset("id", tiny_dataset_path), out=run, batch_size=8, max_epochs=1)).fit()
    (run / "finished.json").unlink()
    trainer = Trainer(dataclasses.replace(preset("id", tiny_dataset_path), out=run, batch_size=8, max_epochs=2))
    with torch.no_grad():
        trainer.recommender.user_encoder.transition.weight[0, 0] = torch.nan
    before = {name: value.detach().clone() for name, value in trainer.recommender.named_parameters()}
    good = (run / "latest").resolve()
    with pytest.raises(
        TrainingError, match=r"step \d+ \(epoch 1\) has loss nan .* the last good checkpoint is .*step-"
    ):
        trainer.fit()
    for name, value in trainer.recommender.named_parameters():
        torch.testing.assert_close(value, before[name], equal_nan=True, atol=0, rtol=0)
    assert (run / "latest").resolve() == good
    record = json.loads((run / "failed_step.json").read_text())
    assert len(record["user_ids"]) == 8
    assert set(record["item_ids"]) <= set(trainer.dataset.item_ids.tolist())
