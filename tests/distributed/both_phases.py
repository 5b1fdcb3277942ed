"""Run by the tests under torchrun: towers rest and then learn; written: the weights that each rank ends with."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from mmrec.distributed import rank, world_size
from mmrec.training.presets import preset
from mmrec.training.trainer import Trainer


def both_phases(dataset: Path, run: Path, result: Path) -> None:
    settings = {"batch_size": 8, "tower_batch_size": 8, "rest_epochs": 1, "tower_epochs": 1}
    trainer = Trainer(dataclasses.replace(preset("hybrid", dataset), out=run, **settings))
    before = {name: value.detach().clone() for name, value in trainer.recommender.named_parameters()}
    trainer.fit()
    after = dict(trainer.recommender.named_parameters())
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    mine = torch.cat([value.detach().flatten() for value in after.values()])
    weights = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(weights, mine)
    if rank() == 0:
        torch.save({"changed": changed, "names": list(after), "weights": torch.stack(weights)}, result)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    both_phases(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
