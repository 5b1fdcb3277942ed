"""Training with accelerate: the same mathematics on one process and on many, resumed exactly.

Read downwards: fit -> epoch -> step.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from mmrec.batch import StepBatch
from mmrec.data.dataset import Dataset
from mmrec.data.splits import make_split
from mmrec.distributed import all_gather_rows, rank, share, world_size
from mmrec.errors import ConfigError, TrainingError
from mmrec.inference import encode_catalog, encode_histories, use_feature_caches
from mmrec.item_encoder import fit_preprocessings, load_preprocessings, save_preprocessings
from mmrec.item_inputs import CatalogInputs
from mmrec.keyed_random import Purpose, random_generator
from mmrec.metrics.embedding_quality import effective_rank
from mmrec.metrics.ranking import ranking_metrics
from mmrec.model import Recommender, load_weights
from mmrec.retrieval import rank_targets
from mmrec.training.checkpoint import TOWER_OUTPUTS, RunState, check_dataset, load_training_state, save_checkpoint
from mmrec.training.config import TrainConfig
from mmrec.training.loader import Reread, StepLoader
from mmrec.training.parameters import parameter_counts, parameter_groups
from mmrec.training.sampler import StepSampler
from mmrec.training.telemetry import MetricsFile, StepClock, progress_bar, timed
from mmrec.training.towers import TowerSchedule

__all__ = ["Trainer", "train"]

logger = logging.getLogger(__name__)

SELECTION_METRIC = "ndcg@10"
# Agreement on leaving costs a message between ranks; once in so many steps is soon enough.
STOP_CHECK_STEPS = 10
# Effective rank of the item vectors below which they tell hardly anything apart.
COLLAPSED = 2.0
# Training items that untrained encoders look at.
CALIBRATION_ITEMS = 2048


def train(config: TrainConfig) -> Path:
    """Train, or go on with, the run that ``config`` describes; return its folder.

    Raises: ConfigError, DataError, CheckpointError or TrainingError with what to do.
    """
    return Trainer(config).fit()


class Trainer:
    """One run: builds everything from the configuration, resumes where the run folder stands."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=config.mixed_precision)
        self.device = self.accelerator.device
        self.dataset = Dataset.open(config.data)
        self.split = make_split(
            self.dataset.sequences,
            self.dataset.num_items,
            config.split,
            quantile=config.split_quantile,
            refit=config.refit,
        )
        if not len(self.split.valid) and not config.refit:
            raise ConfigError(
                f"split {config.split!r} of {config.data} has no validation events, on which the model is chosen; "
                "give some interactions the split 'valid', or use --split leave_one_out"
            )
        if (
            getattr(config.model.user_encoder, "query_time", "unknown") == "known"
            and self.split.train.order != "timestamp"
        ):
            raise ConfigError(
                f"query_time known needs the times of events, which {config.data} does not have; use query_time unknown"
            )
        self.validation_queries = self.split.valid
        if len(self.split.valid) > config.max_validation_queries:
            drawn = random_generator(config.seed, Purpose.VALIDATION).permutation(len(self.split.valid))
            self.validation_queries = self.split.valid.take(np.sort(drawn[: config.max_validation_queries]))
        self.run = config.run_folder(self.dataset.name, self.dataset.fingerprint)
        self.state = RunState()
        self.validation: dict[str, float] = {}
        self._build()
        self._stop_requested = False

    def _build(self) -> None:
        config = self.config
        preprocessings = self._preprocessings()
        torch.manual_seed(config.seed)  # after fitting, which only the first rank does, and only once
        model = config.model.build(preprocessings).to(self.device)
        self.catalog = CatalogInputs(self.dataset, model.inputs)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay),
            lr=config.learning_rate,
            betas=(0.9, 0.98),  # of the second moment: sparse gradients of ids are forgotten sooner
            fused=True,
        )
        if rank() == 0:
            for line in parameter_counts(model):
                logger.info("%s", line)
        resumes = (self.run / "latest").exists()
        if resumes:
            self._resume(model)
        else:
            model.item_encoder.load_pretrained()
        if config.feature_cache:
            progress, bar = progress_bar(rank() == 0)
            with progress:
                use_feature_caches(model, self.catalog, fill=True, progress=bar.advance_in)
        if not resumes:
            known = np.flatnonzero(self.split.train_items)
            model.eval()
            drawn = random_generator(config.seed, Purpose.CALIBRATION).permutation(known)[:CALIBRATION_ITEMS]
            model.item_encoder.calibrate(self.catalog.batch(np.sort(drawn)).to(self.device))
            model.train()
        self.towers = TowerSchedule(config, model, self.catalog, self.state)
        self.model, self.optimizer = self.accelerator.prepare(model, self.optimizer)
        self._make_loader()

    def _make_loader(self) -> None:
        """Steps of the size that fits what is learnt: many small ones at rest, fewer and larger ones with towers."""
        config = self.config
        whole = self.towers.read_whole_steps
        self.sampler = StepSampler(
            self.split.train,
            self.split.train_items,
            batch_size=config.tower_batch_size if whole else config.batch_size,
            max_length=config.model.user_encoder.max_length,
            num_negatives=config.tower_negatives if whole else config.model.next_item.num_negatives,
            negatives=config.model.next_item.negatives,
            mask_share=getattr(config.model.user_encoder, "mask_share", None),
            seed=config.seed,
        )
        modalities = self.catalog.inputs.modalities
        rates = [config.id_dropout if name == "item_id" else config.modality_dropout for name in modalities]
        reread = Reread(config.tower_items, frozenset(self.towers.learners)) if self.towers.sampled else None
        self.loader = StepLoader(self.sampler, self.catalog, np.array(rates), config.seed, reread)

    def _preprocessings(self) -> dict[str, Any]:
        """Fitted once by the first rank, read by all: a tokenizer trained twice need not come out the same."""
        encoder = self.config.model.item_encoder
        folder = self.run / "preprocessing"
        if rank() == 0 and not (folder / "complete").exists():
            folder.mkdir(parents=True, exist_ok=True)
            save_preprocessings(fit_preprocessings(encoder, self.dataset, self.split.train_items), folder)
            (folder / "complete").touch()
        self.accelerator.wait_for_everyone()
        return load_preprocessings(encoder, folder)

    def _resume(self, model: Recommender) -> None:
        folder = (self.run / "latest").resolve()
        check_dataset(folder, self.dataset)
        self.state, optimizer = load_training_state(folder, self.config)
        load_weights(model, folder)
        if self.config.model.next_item.refresh_steps:
            bank = torch.load(folder / "training_state" / "bank.pt", map_location=self.device, weights_only=True)
            model.bank = torch.from_numpy(np.flatnonzero(self.split.train_items)).to(self.device), bank
        self.optimizer.load_state_dict(optimizer)
        logger.info("going on at epoch %d, step %d of %s", self.state.epoch, self.state.step, self.run)

    def _wake_towers(self) -> None:
        model = self.recommender
        self.towers.wake()
        self._make_loader()
        self.model = self.accelerator.prepare_model(model)  # DistributedDataParallel looks for gradients only once

    @property
    def recommender(self) -> Recommender:
        return self.accelerator.unwrap_model(self.model)

    def fit(self) -> Path:
        """Epochs until validation stops getting better; SIGTERM saves and leaves, the same command goes on."""
        if (self.run / "finished.json").exists():
            logger.info("%s is finished already; give another --out to train again", self.run)
            return self.run
        previous = signal.signal(signal.SIGTERM, self._request_stop)
        progress, self.bar = progress_bar(rank() == 0)
        try:
            with progress:
                self._warm_cache()
                while True:
                    if self.towers.have_rested(self._out_of_patience()):
                        self._wake_towers()
                    if self._ended():
                        break
                    if not self._epoch():
                        return self.run
        finally:
            signal.signal(signal.SIGTERM, previous)
        if rank() == 0:
            best = {"best_epoch": self.state.best_epoch, SELECTION_METRIC: self.state.best_metric}
            (self.run / "finished.json").write_text(json.dumps({**best, "seconds": self.state.seconds}))
        self.accelerator.wait_for_everyone()
        return self.run

    def _epoch(self) -> bool:
        """Train an epoch (or what is left of it), validate, save. False if asked to stop."""
        state = self.state
        total = self.sampler.num_steps(state.epoch)
        self.bar.start(f"epoch {state.epoch}", total, state.step_in_epoch)
        clock = StepClock()
        for batch in timed(self.loader.epoch(state.epoch, state.step_in_epoch), clock):
            self._step(batch, clock)
            stop = self._stop_agreed()
            if state.step_in_epoch < total and (stop or state.step % self.config.checkpoint_steps == 0):
                self._save()
            if stop and state.step_in_epoch < total:
                return False
        state.epoch, state.step_in_epoch = state.epoch + 1, 0
        if self.towers.sampled:
            self.towers.renew_outputs()
        self._validate(clock)
        self._save()
        return not self._stop_agreed()

    def _step(self, batch: StepBatch, clock: StepClock) -> None:
        """One optimiser step on this rank's part of the global batch."""
        state, config = self.state, self.config
        rate = self._warmed_up(config.learning_rate, state.step)
        tower_rate = self._warmed_up(config.learning_rate * config.tower_rate, state.step - state.tower_step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate if group["tower"] is None else tower_rate * group["tower"]
        self._refresh_bank()
        losses = self.model(batch.to(self.device))
        total = self.recommender.total(losses)
        self.accelerator.backward(total)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        means = self.accelerator.reduce(torch.stack([total, *losses.values()]).detach(), "mean")
        assert norm is not None, "only DeepSpeed keeps the norm to itself"
        if not torch.isfinite(means[0] + norm):  # the same on every rank
            self._stop_diverged(batch, float(means[0]), float(norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.recommender.limit_temperature()
        values = dict(zip(["loss", *losses], means, strict=True))
        line = {"step": state.step, "epoch": state.epoch, "learning_rate": rate, "gradient_norm": norm, **values}
        self._pending.append(line)
        state.step, state.step_in_epoch = state.step + 1, state.step_in_epoch + 1
        clock.count(batch.num_targets, len(batch.step_items))
        self.bar.advance(clock.status(values["loss"]))

    def _refresh_bank(self) -> None:
        """Encode all training items anew where the schedule asks for it, or where there is no bank yet."""
        every, model = self.config.model.next_item.refresh_steps, self.recommender
        if every and (model.bank is None or self.state.step % every == 0):
            known = np.flatnonzero(self.split.train_items)
            vectors = encode_catalog(model, self.catalog, known)
            model.bank = torch.from_numpy(known).to(self.device), vectors.clone()  # a plain tensor, for autograd

    def _warmed_up(self, rate: float, steps: int) -> float:
        return rate * min(1.0, (steps + 1) / max(1, self.config.warmup_steps))

    def _stop_diverged(self, batch: StepBatch, loss: float, norm: float) -> NoReturn:
        """Raises: TrainingError that names the step, what it held, and the last good checkpoint."""
        state, path = self.state, self.run / "failed_step.json"
        (_, windows), *_ = self.sampler.steps(state.epoch, state.step_in_epoch)
        users = self.split.train.user_ids[np.unique(windows[:, 0])].tolist()
        items = self.dataset.item_ids[batch.step_items.cpu().numpy()].tolist()
        good = self.run / "latest"
        if rank() == 0:
            record = {"step": state.step, "epoch": state.epoch, "loss": loss, "gradient_norm": norm}
            path.write_text(json.dumps({**record, "user_ids": users, "item_ids": items}, indent=1, default=str))
        last = f"the last good checkpoint is {good.resolve()}" if good.exists() else "there is no checkpoint yet"
        raise TrainingError(
            f"step {state.step} (epoch {state.epoch}) has loss {loss} and gradient norm {norm}; nothing learnt from "
            f"it, and {path} names its {len(users)} users and {len(items)} items; {last}; look for broken vectors in "
            "the items, or give a lower --learning-rate and another --out"
        )

    def _validate(self, clock: StepClock) -> None:
        """Exact full ranking of the validation targets; every rank takes a share of the queries.

        A refit has none: its last epoch counts.
        """
        state = self.state
        if self.config.refit:
            state.best_epoch, state.best_step = state.epoch, state.step
            return
        vectors = encode_catalog(self.recommender, self.catalog, np.arange(self.dataset.num_items))
        queries = self.validation_queries.take(np.arange(rank(), len(self.validation_queries), world_size()))
        directions = effective_rank(vectors[torch.from_numpy(self.split.train_items).to(vectors.device)])
        if directions < COLLAPSED and rank() == 0:
            logger.warning(
                "epoch %d  the item vectors use %.1f of %d directions (effective rank): they have collapsed; look for "
                "equal media, or give a lower --learning-rate", state.epoch - 1, directions, vectors.shape[1],
            )  # fmt: skip
        users = encode_histories(self.recommender.user_encoder, vectors, queries.history, query_times=queries.times)
        metrics = ranking_metrics(rank_targets(users, vectors, queries), queries.target_offsets)
        names = ("hr@10", "ndcg@10", "mrr")
        mine = torch.tensor(np.stack([metrics[name] for name in names], axis=1))  # (q, 3)
        everyone = all_gather_rows(mine.to(self.device), share(len(self.validation_queries)))
        self.validation = dict(zip(names, everyone.mean(0).tolist(), strict=True))
        if self.validation[SELECTION_METRIC] > state.best_metric:
            state.best_metric, state.best_epoch, state.best_step = (
                self.validation[SELECTION_METRIC],
                state.epoch,
                state.step,
            )
        rates = clock.rates() | {"effective_rank": directions}
        self._pending.append({"step": state.step - 1, "epoch": state.epoch - 1, "validation": self.validation, **rates})
        if rank() == 0:
            loss = np.mean([float(line["loss"]) for line in self._pending if "loss" in line])
            logger.info(
                "epoch %d  loss %.3f  validation hr@10 %.4f ndcg@10 %.4f%s  %.0f events/s data-wait %.0f %%",
                state.epoch - 1, loss, self.validation["hr@10"], self.validation["ndcg@10"],
                " (best)" if state.best_step == state.step else "",
                rates["events_per_s"], 100 * rates["data_wait"],
            )  # fmt: skip

    def _save(self) -> None:
        """Write what the steps reported, then the checkpoint, on the first rank."""
        now = time.perf_counter()
        self.state.seconds, self._started = self.state.seconds + now - self._started, now
        if self.metrics is not None:
            for line in self._pending:
                self.metrics.write(
                    **{key: float(value) if isinstance(value, Tensor) else value for key, value in line.items()}
                )
            self.metrics.flush()
            within = self.towers.sampled and self.state.step_in_epoch
            save_checkpoint(
                self.run, self.recommender, self.optimizer, self.config, self.dataset, self.state, self.validation,
                save_outputs=self.towers.save_outputs if within else None,
            )  # fmt: skip
        self._pending.clear()
        self.accelerator.wait_for_everyone()

    def _warm_cache(self) -> None:
        """Decode this rank's media once before the first epoch, so that the bar tells what the wait is for."""
        self.metrics = MetricsFile(self.run / "metrics.jsonl", self.state.step) if rank() == 0 else None
        self._pending: list[dict[str, Any]] = []
        self._started = time.perf_counter()
        self.bar.start("decoding media", self.dataset.num_items)
        self.catalog.warm(lambda done: self.bar.advance(steps=done))
        kept = self.run / "latest" / "training_state" / TOWER_OUTPUTS
        if self.towers.sampled and kept.exists():
            self.towers.load_outputs(kept)
        elif number := self.towers.num_to_encode():
            self.bar.start("encoding media", number)
            self.towers.renew_outputs(lambda done: self.bar.advance(steps=done))

    def _out_of_patience(self) -> bool:
        state = self.state
        since = max(state.best_epoch, state.tower_epoch, 0)
        return state.epoch - since >= self.config.patience and not self.config.refit

    def _ended(self) -> bool:
        """Whether training is over."""
        if self.state.step_in_epoch:
            return False
        return self._out_of_patience() or self.state.epoch >= self.towers.last_epoch()

    def _request_stop(self, signum: int, frame: object) -> None:
        self._stop_requested = True

    def _stop_agreed(self) -> bool:
        """Whether any rank was asked to stop; ranks must leave at the same step, or the others would wait for ever."""
        if world_size() == 1:
            return self._stop_requested
        if self.state.step % STOP_CHECK_STEPS and self.state.step_in_epoch:
            return False
        asked = torch.tensor([float(self._stop_requested)], device=self.device)
        dist.all_reduce(asked)
        return bool(asked.item() > 0)
