"""Refit: a run that was chosen on the validation events, trained again with them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from mmrec.config import from_dict
from mmrec.errors import CheckpointError, ConfigError
from mmrec.training.checkpoint import find_checkpoint, load_run_state
from mmrec.training.config import TrainConfig

__all__ = ["refit_config"]


def refit_config(run: Path, out: Path) -> TrainConfig:
    """The finished ``run`` again, with the validation events, for as many steps as its best checkpoint had.

    Raises: CheckpointError if the run has not finished; ConfigError if it is a refit itself.
    """
    folder = find_checkpoint(run)
    if not (folder.parent / "finished.json").is_file():
        raise CheckpointError(f"{run} has not finished; only then is it known for how long to train again")
    config = from_dict(TrainConfig, json.loads((folder / "config.json").read_text()))
    if config.refit:
        raise ConfigError(f"{run} is a refit already; give the run whose steps were chosen on validation")
    best = load_run_state(folder, config)
    # Epochs are a little longer with the validation events; the steps decide when it ends.
    config = dataclasses.replace(
        config, refit_of=run.resolve(), out=out, max_steps=best.step, max_epochs=best.epoch + 1
    )
    if best.tower_epoch < 0:  # best before its towers learnt
        return dataclasses.replace(config, rest_epochs=best.epoch + 1, tower_epochs=0)
    if config.rest_epochs:
        return dataclasses.replace(config, rest_epochs=best.tower_epoch, tower_epochs=best.epoch + 1 - best.tower_epoch)
    return config
