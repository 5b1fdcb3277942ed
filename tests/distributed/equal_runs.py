"""Run by the tests under torchrun, on any number of processes: the first step of each variant, and twenty steps of it.

    torchrun --nproc_per_node=2 tests/distributed/equal_runs.py DATASET FOLDER VARIANT [VARIANT ...]

Written by the first rank to FOLDER/VARIANT.pt: loss and gradients of the first step, dropout and all; losses and
weights of a run of twenty steps, five epochs of which the last batch is smaller than the others.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch.distributed.tensor import DTensor

from mmrec.data.dataset import Dataset
from mmrec.distributed import rank
from mmrec.exporter import export
from mmrec.modality_encoders import FoundationImageConfig, FoundationVideoConfig
from mmrec.model import weights_of
from mmrec.objectives import CompatibilityConfig, ContrastiveConfig, ModalityAlignmentConfig, NextItemConfig
from mmrec.training.config import TrainConfig
from mmrec.training.parallel import gathered
from mmrec.training.presets import preset
from mmrec.training.trainer import Trainer
from mmrec.user_encoders import BERT4RecConfig, GRU4RecConfig, HSTUConfig, LiGRConfig, MeanPoolConfig

FOUNDATION: dict[str, Any] = {
    "image": FoundationImageConfig(encoder="timm:test_vit@random", tune="top:1"),
    "video": FoundationVideoConfig(encoder="timm:test_vit@random", num_frames=2),
}
STEPS = 20
AT_REST = {"rest_epochs": 99}

# Of the run, of the model, and of its item encoder.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "towers": ({}, {}, {}),
    "few_histories": ({"batch_size": 1, "tower_batch_size": 1}, {}, {}),
    "at_rest": (AT_REST, {}, {}),
    "both_phases": ({"rest_epochs": 2}, {}, {}),
    "chunks": ({}, {"chunk_histories": 2}, {"chunk_items": 3}),
    "sampled_towers": ({"tower_items": 5}, {}, {}),
    "foundation": ({}, {}, {}),
    "averaged": ({**AT_REST, "average_decay": 0.9, "schedule": "cosine", "modality_rates": {"text": 0.5}}, {}, {}),
    "info_nce": (AT_REST, {"contrastive": ContrastiveConfig(weight=0.5)}, {}),
    "sigmoid": (AT_REST, {"contrastive": ContrastiveConfig(weight=0.5, form="sigmoid")}, {}),
    "gbce": (AT_REST, {"next_item": NextItemConfig(loss="gbce", num_negatives=9, negatives="uniform")}, {}),
    "in_batch": (AT_REST, {"next_item": NextItemConfig(negatives="in_batch")}, {}),
    "uniform": (AT_REST, {"next_item": NextItemConfig(num_negatives=5, negatives="uniform")}, {}),
    "bank": (AT_REST, {"next_item": NextItemConfig(refresh_steps=3)}, {}),
    "alignment": (AT_REST, {"modality_alignment": ModalityAlignmentConfig(weight=0.5)}, {}),
    "compatible": (AT_REST, {"compatibility": CompatibilityConfig(weight=0.5)}, {}),
    "matryoshka": (AT_REST, {"matryoshka": (8, 24), "next_item": NextItemConfig(refresh_steps=3)}, {}),
    "bert4rec": (AT_REST, {"user_encoder": BERT4RecConfig(max_length=20)}, {}),
    "hstu": (AT_REST, {"user_encoder": HSTUConfig(max_length=20, num_blocks=2, query_time="known")}, {}),
    "ligr": (AT_REST, {"user_encoder": LiGRConfig(max_length=20, num_blocks=2)}, {}),
    "gru4rec": (AT_REST, {"user_encoder": GRU4RecConfig(max_length=20, num_blocks=2)}, {}),
    "mean_pool": (AT_REST, {"user_encoder": MeanPoolConfig(max_length=20)}, {}),
    "fsdp": ({"parallel": "fsdp"}, {}, {}),
    "fsdp_averaged": ({**AT_REST, "parallel": "fsdp", "average_decay": 0.9}, {}, {}),
    "fsdp_foundation": ({"parallel": "fsdp"}, {}, {}),
    "sharded_ids": ({**AT_REST, "shard_ids": True}, {}, {}),
}


def config_of(variant: str, dataset: Path, run: Path) -> TrainConfig:
    of_run, of_model, of_items = VARIANTS[variant]
    config = preset("hybrid", dataset, encoders=FOUNDATION if variant.endswith("foundation") else {})
    item_encoder = dataclasses.replace(config.model.item_encoder, **of_items)
    model = dataclasses.replace(config.model, **{"item_encoder": item_encoder, **of_model})
    if variant == "compatible":
        of_run = {
            **of_run,
            "compatible_with": earlier_export(dataset, dataset.with_name(f"earlier-{dataset.name}"), item_encoder.dim),
        }
    settings = {"batch_size": 8, "tower_batch_size": 8, "rest_epochs": 0, "patience": 99, "trackers": (), **of_run}
    return dataclasses.replace(config, model=model, out=run, max_steps=STEPS, **settings)


def earlier_export(dataset: Path, folder: Path, dim: int) -> Path:
    """An export with random vectors, written once by the first rank."""
    if rank() == 0 and not folder.exists():
        opened = Dataset.open(dataset)
        checkpoint = folder.with_name(f"checkpoint-of-{folder.name}")
        checkpoint.mkdir()
        (checkpoint / "config.json").write_text("{}")
        vectors = np.random.default_rng(0).standard_normal((opened.num_items, dim)).astype(np.float32)
        export(
            lambda items: vectors[items], opened, folder, checkpoint=checkpoint, model_hash="0" * 64,
            presence=np.ones((opened.num_items, 1), dtype=bool), modalities=("text",),
        )  # fmt: skip
    PartialState().wait_for_everyone()
    return folder


def first_step(config: TrainConfig) -> dict[str, Any]:
    """Loss and gradients of the first step, from weights none of which is zero: they would hide what lies before."""
    trainer = Trainer(config)
    generator = torch.Generator().manual_seed(0)
    if config.parallel == "ddp":
        with torch.no_grad():
            for parameter in trainer.recommender.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.05, generator=generator)
    with gathered(trainer.recommender):
        trainer.towers.renew_outputs()
    trainer.refresh_bank()
    batch = next(iter(trainer.loader.epoch(0)))
    losses = trainer.model(batch.to(trainer.device))
    total = trainer.recommender.total(losses)
    trainer.accelerator.backward(total)
    loss = trainer.accelerator.reduce(total.detach(), "mean")
    gradients = {n: whole(p.grad) for n, p in trainer.recommender.named_parameters() if p.grad is not None}
    return {"loss": loss, "gradients": gradients}


def whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def main(dataset: Path, folder: Path, variants: list[str]) -> None:
    state = PartialState(cpu=True)  # the processes find each other before the first of them makes a folder
    own = folder / f"dataset-{state.num_processes}"  # each number of processes fills a feature cache of its own
    if rank() == 0:
        shutil.copytree(dataset, own)
    state.wait_for_everyone()
    for variant in variants:
        run = folder / f"{variant}-{state.num_processes}"
        found = first_step(config_of(variant, own, Path(f"{run}-first")))
        trainer = Trainer(config_of(variant, own, run))
        trainer.fit()
        if rank() == 0:
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            found["losses"] = torch.tensor([line["loss"] for line in lines if "loss" in line])
            found["validation"] = torch.tensor([line["validation"]["mrr"] for line in lines if "validation" in line])
            ranks = [line["effective_rank"] for line in lines if "effective_rank" in line]
            found["effective_ranks"] = torch.tensor([list(line.values()) for line in ranks])
            found["weights"] = weights_of((run / "latest").resolve())
            torch.save(found, folder / f"{variant}-{state.num_processes}.pt")
        trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
