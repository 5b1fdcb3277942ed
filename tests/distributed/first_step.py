"""Run by the tests under torchrun: loss and gradients of a run's first step, dropout and all, by the first rank."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from mmrec.distributed import rank
from mmrec.modality_encoders import FoundationImageConfig, FoundationVideoConfig
from mmrec.objectives import ContrastiveConfig, ModalityAlignmentConfig, NextItemConfig
from mmrec.training.presets import preset
from mmrec.training.trainer import Trainer
from mmrec.user_encoders import BERT4RecConfig, GRU4RecConfig, HSTUConfig, LiGRConfig, MeanPoolConfig

OBJECTIVES = {
    "default": {},
    "info_nce": {"contrastive": ContrastiveConfig(weight=0.5)},
    "sigmoid": {"contrastive": ContrastiveConfig(weight=0.5, form="sigmoid")},
    "gbce": {"next_item": NextItemConfig(loss="gbce", num_negatives=9, negatives="uniform")},
    "in_batch": {"next_item": NextItemConfig(negatives="in_batch")},
    "alignment": {"modality_alignment": ModalityAlignmentConfig(weight=0.5)},
    "uniform": {"next_item": NextItemConfig(num_negatives=5, negatives="uniform")},
    "bank": {"next_item": NextItemConfig(refresh_steps=3)},
    "bert4rec": {"user_encoder": BERT4RecConfig(max_length=20)},
    "hstu": {"user_encoder": HSTUConfig(max_length=20, num_blocks=2, query_time="known")},
    "ligr": {"user_encoder": LiGRConfig(max_length=20, num_blocks=2)},
    "gru4rec": {"user_encoder": GRU4RecConfig(max_length=20, num_blocks=2)},
    "mean_pool": {"user_encoder": MeanPoolConfig(max_length=20)},
}


FOUNDATION = {
    "image": FoundationImageConfig(encoder="timm:test_vit@random", tune="top:1"),
    "video": FoundationVideoConfig(encoder="timm:test_vit@random", num_frames=2),
}


def first_step(dataset: Path, run: Path, result: Path, batch_size: int, towers: str, objective: str) -> None:
    encoders = FOUNDATION if towers == "foundation" else {}
    defaults = preset("hybrid", dataset, encoders=encoders)
    defaults = dataclasses.replace(defaults, model=dataclasses.replace(defaults.model, **OBJECTIVES[objective]))
    if towers == "chunks":
        item_encoder = dataclasses.replace(defaults.model.item_encoder, chunk_items=3)
        defaults = dataclasses.replace(defaults, model=dataclasses.replace(defaults.model, item_encoder=item_encoder))
    rest_epochs = 10 if towers == "rest" else 0
    sizes = {"batch_size": batch_size, "tower_batch_size": batch_size, "tower_items": 5 if towers == "sample" else 0}
    trainer = Trainer(dataclasses.replace(defaults, out=run, rest_epochs=rest_epochs, **sizes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # what starts at zero would hide the gradients of what lies before it
        for parameter in trainer.recommender.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05, generator=generator)
    trainer.towers.renew_outputs()
    trainer.refresh_bank()
    batch = next(iter(trainer.loader.epoch(0)))
    losses = trainer.model(batch.to(trainer.device))
    total = trainer.recommender.total(losses)
    trainer.accelerator.backward(total)
    loss = trainer.accelerator.reduce(total.detach(), "mean")
    if rank() == 0:
        named = trainer.recommender.named_parameters()
        gradients = {name: parameter.grad for name, parameter in named if parameter.grad is not None}
        torch.save({"loss": loss, "gradients": gradients}, result)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    first_step(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6])
