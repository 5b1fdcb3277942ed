"""Networks that are compiled: the run takes the steps that it takes without the compiler."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from mmrec.modality_encoders import FoundationImageConfig
from mmrec.training import preset
from mmrec.training.trainer import Trainer


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_to_be_compiled_has_the_losses_of_a_plain_one(tiny_dataset_path, tmp_path):
    """Also where a foundation encoder runs in part. The stance takes the same way without the compiler's minutes."""
    encoders = {"image": FoundationImageConfig(encoder="timm:test_vit@random", tune="top:1")}
    settings = {"batch_size": 16, "rest_epochs": 1, "tower_epochs": 1, "trackers": ()}
    config = dataclasses.replace(preset("hybrid", tiny_dataset_path, encoders=encoders), **settings)
    Trainer(dataclasses.replace(config, out=tmp_path / "plain")).fit()
    with torch.compiler.set_stance("force_eager"):
        Trainer(dataclasses.replace(config, out=tmp_path / "compiled", compile=True)).fit()
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), abs=1e-4)
