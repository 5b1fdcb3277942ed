"""SASRec on item ids alone, trained on the same events and ranked on the same queries: the learnt baseline."""

from __future__ import annotations

import time
from pathlib import Path

from mmrec.baselines.ranked import RankedBaseline
from mmrec.data.dataset import Dataset
from mmrec.data.splits import SplitName
from mmrec.errors import ConfigError, TrainingError
from mmrec.evaluator import Part, score_vectors
from mmrec.training.evaluation import vectors_of_checkpoint
from mmrec.training.presets import preset
from mmrec.training.refit import refit_config
from mmrec.training.trainer import Trainer

__all__ = ["SASREC", "rank_sasrec"]

SASREC = "sasrec_id"


def rank_sasrec(data: Path, split: SplitName, quantile: float, part: Part, *, refit: bool = False) -> RankedBaseline:
    """Train the preset "id" with its own settings, in the folder where `mmrec train id` would have it, and rank.

    A run that is there already is taken, or goes on.

    Args:
        split, quantile: as in :class:`mmrec.training.TrainConfig`.
        refit: train again with the validation events, for the steps that they chose, as the other baselines do.

    Raises:
        ConfigError: if histories are sets, which have no order to learn.
        TrainingError: if training was stopped before its end.
    """
    dataset = Dataset.open(data)
    if dataset.sequences.order == "none":
        raise ConfigError(f"{data} has histories without order, from which SASRec learns nothing; leave out --sasrec")
    trainer = Trainer(preset("id", data, split=split, split_quantile=quantile))
    run = _finished(trainer)
    chosen = trainer.state.best_metric
    seconds = trainer.state.seconds
    if refit:
        again = Trainer(refit_config(run, run.with_name(f"{run.name}-refit")))
        run = _finished(again)
        seconds += again.state.seconds
    started = time.perf_counter()
    vectors = vectors_of_checkpoint(run, data, part)
    ranks = score_vectors(vectors.split, part, vectors.users, vectors.items, lists=False).ranks
    model = trainer.config.model
    settings = {
        "dim": model.item_encoder.dim,
        "max_length": model.user_encoder.max_length,
        "batch_size": trainer.config.batch_size,
        "best_epoch": trainer.state.best_epoch,
    }
    cost = {"fit_s": seconds, "rank_s": time.perf_counter() - started}
    return RankedBaseline(ranks=ranks, settings=settings, validation=chosen, cost=cost)


def _finished(trainer: Trainer) -> Path:
    run = trainer.fit()
    if not (run / "finished.json").is_file():
        raise TrainingError(f"training of {run} was stopped and saved; the same command goes on")
    return run
