"""Training with accelerate: the same mathematics on one process and on many, resumed exactly.

Read downwards: fit -> epoch -> step.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist

from mmrec.batch import StepBatch
from mmrec.compatibility import COMPATIBILITY
from mmrec.config import to_dict
from mmrec.distributed import rank, world_size
from mmrec.errors import TrainingError
from mmrec.inference import encode_catalog
from mmrec.model import Recommender, model_writers
from mmrec.training.assembly import Assembly
from mmrec.training.checkpoint import dataset_record
from mmrec.training.checkpoint_writer import CheckpointWriter, copied, tensor_writer, text_writer
from mmrec.training.config import TrainConfig
from mmrec.training.heartbeat import Heartbeat
from mmrec.training.loader import Reread, StepLoader
from mmrec.training.memory import LESS_MEMORY
from mmrec.training.model_card import model_card
from mmrec.training.parallel import clip_gradients, full_weights, gathered, save_sharded_optimizer
from mmrec.training.profiling import profiled
from mmrec.training.sampler import sampler_of
from mmrec.training.schedules import rate_share
from mmrec.training.telemetry import (
    MetricsLog,
    StepClock,
    finish_trackers,
    peak_memory,
    progress_bar,
    start_trackers,
    timed,
)
from mmrec.training.throughput import count_flops, distance_to_limit
from mmrec.training.towers import TOWER_OUTPUTS
from mmrec.training.validation import SELECTION_METRIC, Validation

__all__ = ["Trainer", "train"]

logger = logging.getLogger(__name__)

# Agreement on leaving costs a message between ranks; once in so many steps is soon enough.
STOP_CHECK_STEPS = 10


def train(config: TrainConfig) -> Path:
    """Train, or go on with, the run that ``config`` describes; return its folder.

    Raises: ConfigError, DataError, CheckpointError or TrainingError with what to do.
    """
    return Trainer(config).fit()


class Trainer:
    """One run: builds everything from the configuration, resumes where the run folder stands.

    Args:
        after_epoch: told of each epoch and its validation metrics, on every rank; True ends the run there.

    Attributes: those of :class:`mmrec.training.assembly.Assembly` that a step needs, by the same names.
    """

    def __init__(self, config: TrainConfig, after_epoch: Callable[[int, dict[str, float]], bool] | None = None) -> None:
        self.config = config
        self.after_epoch = after_epoch
        self.stopped_early = False
        parts = self.parts = Assembly(config)
        self.accelerator, self.device, self.run, self.state = parts.accelerator, parts.device, parts.run, parts.state
        self.dataset, self.split, self.catalog = parts.dataset, parts.split, parts.catalog
        self.model, self.optimizer, self.towers = parts.model, parts.optimizer, parts.towers
        self.recommender: Recommender = parts.recommender
        self.validation = Validation(self.split, config.max_validation_queries, config.seed)
        self.metrics: dict[str, float] = {}
        self.writer = CheckpointWriter(self.run, config.keep_checkpoints, parts.mirror)
        self._flops_per_event: float | None = None
        self._parts: Future | None = None
        self._profile = None
        self._stop_requested = False
        self._make_loader()

    def _make_loader(self) -> None:
        """Steps of the size that fits what is learnt: many small ones at rest, fewer and larger ones with towers."""
        config = self.config
        self.sampler = sampler_of(config, self.split, towers_learn=self.towers.read_whole_steps)
        modalities = self.catalog.inputs.modalities
        rates = [config.id_dropout if name == "item_id" else config.modality_dropout for name in modalities]
        reread = Reread(config.tower_items, frozenset(self.towers.learners)) if self.towers.sampled else None
        homes = self.recommender.item_encoder.items_have_homes
        self.loader = StepLoader(self.sampler, self.catalog, np.array(rates), config.seed, reread, homes)

    def fit(self) -> Path:
        """Epochs until validation stops getting better; SIGTERM saves and leaves, the same command goes on."""
        if (self.run / "finished.json").exists():
            logger.info("%s is finished already; give another --out to train again", self.run)
            return self.run
        previous = signal.signal(signal.SIGTERM, self._request_stop)
        start_trackers(self.accelerator, self.config.trackers, self.run, to_dict(self.config))
        progress, self.bar = progress_bar(rank() == 0)
        try:
            with Heartbeat(), progress, profiled(self.run / "profile", self.config.profile_steps) as self._profile:
                self._prepare()
                if not self._epochs():
                    return self.run
        except torch.OutOfMemoryError as error:
            raise TrainingError(f"{self.device} is out of memory in step {self.state.step}; {LESS_MEMORY}") from error
        finally:
            signal.signal(signal.SIGTERM, previous)
        if rank() == 0:
            best = {"best_epoch": self.state.best_epoch, SELECTION_METRIC: self.state.best_metric}
            (self.run / "finished.json").write_text(json.dumps({**best, "seconds": self.state.seconds}))
            if self.parts.mirror is not None:
                self.parts.mirror.upload()
        finish_trackers(self.accelerator)
        self.accelerator.wait_for_everyone()
        return self.run

    def _epochs(self) -> bool:
        """Epochs until the end. False if asked to stop before."""
        while True:
            if self.towers.have_rested(self._out_of_patience()):
                self._wake_towers()
            going_on = not self._ended() and self._epoch()
            if not going_on:
                self._finish_writing()
                return self._ended()

    def _epoch(self) -> bool:
        """Train an epoch (or what is left of it), validate, save. False if asked to stop."""
        state, config = self.state, self.config
        total = self.sampler.num_steps(state.epoch)
        self.bar.start(f"epoch {state.epoch}", total, state.step_in_epoch)
        clock = StepClock()
        for batch in timed(self.loader.epoch(state.epoch, state.step_in_epoch), clock):
            self._step(batch, clock)
            if state.step_in_epoch == total or state.step == config.max_steps:
                break
            stop = self._stop_agreed()
            if stop or state.step % config.checkpoint_steps == 0:
                self._save()
            if stop:
                return False
        state.epoch, state.step_in_epoch = state.epoch + 1, 0
        self._end_epoch(clock)
        if self.after_epoch is not None:
            self.stopped_early = self.after_epoch(state.epoch - 1, self.metrics)
        self._save()
        return not self._stop_agreed()

    def _step(self, batch: StepBatch, clock: StepClock) -> None:
        """One optimiser step on this rank's part of the global batch."""
        state, config, ids = self.state, self.config, self.parts.ids
        rate, tower_rate = self._rates()
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * (rate if group["tower"] is None else tower_rate * group["tower"])
        self.refresh_bank()
        with self._counted(batch), self.accelerator.autocast():
            losses = self.model(batch.to(self.device))
            total = self.recommender.total(losses)
            self.accelerator.backward(total)
        others = None if ids is None else ids.squared_norm()
        norm, clipped = clip_gradients(self.accelerator, self.recommender, config.clip_norm, others)
        means = self.accelerator.reduce(torch.stack([total, *losses.values()]).detach(), "mean")
        if not torch.isfinite(means[0] + norm):  # the same on every rank
            self._stop_diverged(batch, float(means[0]), float(norm))
        self.optimizer.step()
        if ids is not None:
            ids.step(rate * config.modality_rates.get("item_id", 1.0), clipped)
        self.optimizer.zero_grad()
        self.recommender.limit_temperature()
        if self.parts.average is not None:
            self.parts.average.update(state.step)
        values = dict(zip(["loss", *losses], means, strict=True))
        self.log.add(
            step=state.step, epoch=state.epoch, learning_rate=rate, gradient_norm=norm, **values, **clock.count(batch)
        )
        state.step, state.step_in_epoch = state.step + 1, state.step_in_epoch + 1
        self.bar.advance(clock.status(values["loss"]))
        if self._profile is not None:
            self._profile.step()

    def _rates(self) -> tuple[float, float]:
        """Learning rates of this step: of the towers of raw media, which warm up on their own, and of the rest."""
        config, state = self.config, self.state
        total = config.schedule_steps or config.max_steps or self._steps_of_all_epochs()
        share = rate_share(config.schedule, state.step, config.warmup_steps, total)
        woken = state.step - state.tower_step
        warm = min(1.0, (woken + 1) / max(1, config.warmup_steps)) if state.step >= config.warmup_steps else 1.0
        return config.learning_rate * share, config.learning_rate * config.tower_rate * share * warm

    def _steps_of_all_epochs(self) -> int:
        """Of the epochs that are allowed, all of the length of the present one; only falling schedules ask."""
        if self.config.schedule == "constant":
            return 0
        done = self.state.step - self.state.step_in_epoch
        return done + (self.towers.last_epoch() - self.state.epoch) * self.sampler.num_steps(self.state.epoch)

    @contextmanager
    def _counted(self, batch: StepBatch) -> Iterator[None]:
        """Count the arithmetic of the second step of an epoch, from which the rate of the others follows."""
        if self.state.step_in_epoch != 1 or rank() != 0:
            yield
            return
        with count_flops() as counter:
            yield
        self._flops_per_event = counter.get_total_flops() * world_size() / max(batch.num_targets, 1)

    def refresh_bank(self) -> None:
        """Encode all training items anew where the schedule asks for it, or where there is no bank yet."""
        every, model = self.config.model.next_item.refresh_steps, self.recommender
        if every and (model.bank is None or self.state.step % every == 0):
            known = self.parts.known_items
            with gathered(model):
                vectors = encode_catalog(model, self.catalog, known.cpu().numpy())
            model.keep_candidates(known, vectors)

    def _stop_diverged(self, batch: StepBatch, loss: float, norm: float) -> NoReturn:
        """Raises: TrainingError that names the step, what it held, and the last good checkpoint."""
        state, path = self.state, self.run / "failed_step.json"
        step = self.sampler.step(state.epoch, *self.sampler.steps(state.epoch, state.step_in_epoch)[0])
        items = self.dataset.item_ids[np.unique(np.concatenate(step.events))].tolist()
        users = self.split.train.user_ids[step.users].tolist()
        self._finish_writing()
        self.log.flush()
        good = self.run / "latest"
        if rank() == 0:
            record = {"step": state.step, "epoch": state.epoch, "loss": loss, "gradient_norm": norm}
            record |= {"user_ids": users, "item_ids": items, "num_candidates": len(batch.candidate_idx)}
            path.write_text(json.dumps(record, indent=1, default=str))
        last = f"the last good checkpoint is {good.resolve()}" if good.exists() else "there is no checkpoint yet"
        raise TrainingError(
            f"step {state.step} (epoch {state.epoch}) has loss {loss} and gradient norm {norm}; nothing learnt from "
            f"it, and {path} names its {len(users)} users and {len(items)} items; {last}; look for broken vectors in "
            "the items, or give a lower --learning-rate and another --out"
        )

    def _end_epoch(self, clock: StepClock) -> None:
        """Validate and note the best. A refit has nothing to validate on: its last epoch counts."""
        state, log = self.state, self.log
        rates = clock.rates()
        state.add_cost(steps_s=clock.seconds, data_wait_s=clock.waited, events=clock.events, items=clock.items)
        began = time.perf_counter()
        with self.parts.averaged(), gathered(self.recommender):
            if self.towers.sampled:
                self.towers.renew_outputs()
            if self.config.refit:
                self.metrics, directions = {}, {}
            else:
                self.metrics, directions = self.validation(self.recommender, self.catalog)
        state.add_cost(validation_s=time.perf_counter() - began)
        value = self.metrics.get(SELECTION_METRIC, float(state.epoch))  # of a refit the last epoch is the best
        if value > state.best_metric:
            state.best_metric, state.best_epoch, state.best_step = value, state.epoch, state.step
        line: dict[str, Any] = {**rates, **peak_memory(self.device)}
        if self.metrics:
            line["validation"] = self.metrics
        if directions:
            line["effective_rank"] = directions
        if self._flops_per_event is not None:
            flops = self._flops_per_event * rates["events_per_s"]
            state.add_cost(flops=self._flops_per_event * clock.events)
            line |= distance_to_limit(flops / world_size(), self.device, self.config.mixed_precision)
        loss = log.mean_loss()
        log.add(step=state.step - 1, epoch=state.epoch - 1, **line)
        if rank() == 0:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
            logger.info(
                "epoch %d  loss %.3f  validation %s%s  %.0f events/s data-wait %.0f %%",
                state.epoch - 1, loss, shown or "none", " (best)" if state.best_step == state.step else "",
                rates["events_per_s"], 100 * rates["data_wait"],
            )  # fmt: skip

    def _wake_towers(self) -> None:
        self.towers.wake()
        self._make_loader()
        self.model = self.parts.wrapped()

    def _save(self) -> None:
        """Write what the steps reported, then a checkpoint; training goes on while the disk is written."""
        began = time.perf_counter()
        state = self.state
        state.seconds, self._started = state.seconds + began - self._started, began
        self.log.flush()
        name = f"step-{state.step:08d}"
        if rank() == 0:
            folder = self.writer.folder(name)
            (self.run / "cost.json").write_text(json.dumps(self._cost(), indent=1))
        else:
            folder = self.run / f".{name}.tmp"
        writers = self._writers()
        parts = None
        if self.config.parallel == "fsdp":
            self.accelerator.wait_for_everyone()  # until the folder is there
            parts = save_sharded_optimizer(self.recommender, self.parts.adam, folder / "training_state")
            self._parts = parts
        if rank() == 0:
            self.writer.start(name, writers, best=state.best_step == state.step, parts=parts)
        state.add_cost(checkpoint_s=time.perf_counter() - began)

    def _writers(self) -> dict[str, Callable[[Path], None]]:
        """What writes the files of a checkpoint, each holding a copy; every rank must ask, the first one writes."""
        model, state, config, ids = self.recommender, self.state, self.config, self.parts.ids
        with self.parts.averaged():
            weights = full_weights(model)
        tensors = {}
        if self.parts.average is not None:
            tensors["weights.pt"] = full_weights(model)
        if ids is not None and (table := ids.gather()) is not None:
            weights["item_encoder.encoders.item_id.embedding.weight"] = table["weight"]
            tensors["item_ids.pt"] = table
        if rank() != 0:
            return {}
        if config.parallel == "ddp":
            tensors["optimizer.pt"] = copied(self.parts.adam.state_dict())
        if model.bank is not None:
            tensors["bank.pt"] = copied(model.bank[1])
        if self.towers.sampled and state.step_in_epoch:
            tensors[TOWER_OUTPUTS] = self.towers.kept_outputs()
        card = model_card(model, config, self.dataset, state, self.metrics)
        near = {} if self.parts.compatible_with is None else {COMPATIBILITY: self.parts.compatible_with}
        return {
            **model_writers(model, weights, to_dict(config)),
            **{f"training_state/{name}": tensor_writer(value) for name, value in tensors.items()},
            "training_state/state.json": text_writer(json.dumps(asdict(state), indent=1)),
            "dataset.json": text_writer(json.dumps(dataset_record(self.dataset), indent=1)),
            "README.md": text_writer(card),
            **{name: text_writer(json.dumps(record)) for name, record in near.items()},
        }

    def _finish_writing(self) -> None:
        """Wait until the last checkpoint is on the disk."""
        if self._parts is not None:
            self._parts.result()
        self.writer.finish()
        self.accelerator.wait_for_everyone()

    def _cost(self) -> dict[str, Any]:
        """The cost ledger of the run so far, on all processes together where it says so."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        sizes = {"processes": world_size(), "threads": torch.get_num_threads(), "device": device}
        return {"seconds": self.state.seconds, **self.state.cost, **sizes, **peak_memory(self.device)}

    def _prepare(self) -> None:
        """Decode this rank's media once before the first epoch, so that the bar tells what the wait is for."""
        path = self.run / "metrics.jsonl" if rank() == 0 else None
        self.log = MetricsLog(path, self.state.step, self.accelerator)
        self._started = time.perf_counter()
        self.bar.start("decoding media", self.dataset.num_items)
        self.catalog.warm(lambda done: self.bar.advance(steps=done))
        kept = None if self.parts.resumed is None else self.parts.resumed / "training_state" / TOWER_OUTPUTS
        if self.towers.sampled and kept is not None and kept.exists():
            self.towers.load_outputs(kept)
        elif number := self.towers.num_to_encode():
            self.bar.start("encoding media", number)
            with gathered(self.recommender):
                self.towers.renew_outputs(lambda done: self.bar.advance(steps=done))

    def _out_of_patience(self) -> bool:
        state = self.state
        since = max(state.best_epoch, state.tower_epoch, 0)
        return state.epoch - since >= self.config.patience and not self.config.refit

    def _ended(self) -> bool:
        """Whether training is over."""
        state, config = self.state, self.config
        if state.step_in_epoch:
            return False
        at_last_step = bool(config.max_steps) and state.step >= config.max_steps
        return self.stopped_early or at_last_step or self._out_of_patience() or state.epoch >= self.towers.last_epoch()

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
