"""Everything that a run consists of, built from its configuration, or from the checkpoint where the run stands."""

from __future__ import annotations

import json
import logging
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from mmrec.compatibility import compatibility_record, earlier_vectors
from mmrec.data.dataset import Dataset
from mmrec.data.splits import Split, make_split
from mmrec.distributed import rank
from mmrec.errors import ConfigError
from mmrec.inference import calibrate, use_feature_caches
from mmrec.item_encoder import fit_preprocessings, load_preprocessings, save_preprocessings
from mmrec.item_inputs import CatalogInputs
from mmrec.keyed_random import Purpose, random_generator
from mmrec.modality_encoders.item_id import ItemIdPreprocessing
from mmrec.model import load_weights, weights_of
from mmrec.training.checkpoint import (
    RunState,
    binding_settings,
    check_dataset,
    load_run_state,
    load_tensors,
    newest_whole,
)
from mmrec.training.compilation import compile_networks
from mmrec.training.config import TrainConfig
from mmrec.training.memory import refuse_too_little_memory
from mmrec.training.parallel import load_sharded_optimizer, shard
from mmrec.training.parameters import parameter_counts, parameter_groups
from mmrec.training.run_mirror import RunMirror, is_url
from mmrec.training.sharded_ids import BETAS, ShardedItemIds
from mmrec.training.telemetry import progress_bar
from mmrec.training.towers import TowerSchedule
from mmrec.training.transfer import source_preprocessings, transplant
from mmrec.training.weight_average import WeightAverage

__all__ = ["Assembly", "open_split", "start_processes"]

logger = logging.getLogger(__name__)

# Training items that untrained encoders look at.
CALIBRATION_ITEMS = 2048


class Assembly:
    """The parts of a run.

    Attributes:
        run: its folder on this machine; ``mirror``: its other side, if it lies at a URL.
        state: where it stands; ``resumed``: the checkpoint that says so, None for a new run.
        recommender: the model; ``model``: the same as it is called in a step, wrapped for several processes.
        adam: the optimiser; ``optimizer``: the same as accelerate wraps it.
        ids: the table of item ids, where it is sharded; None where it is part of the model.
        average: moving average of the weights, if it is asked for.
        towers: when the towers learn.
        compatible_with: what checkpoints keep of the export that the model stays near; None: there is none.

    Raises: ConfigError, DataError or CheckpointError with what to do.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.accelerator = start_processes(config)
        self.device = self.accelerator.device
        self.dataset, self.split = open_split(config)
        self.run = config.run_folder(self.dataset.name, self.dataset.fingerprint)
        self.mirror = RunMirror(str(config.out)) if config.out is not None and is_url(config.out) else None
        if self.mirror is not None and self.accelerator.is_local_main_process:
            self.mirror.download(required=False)
        self.accelerator.wait_for_everyone()
        self.resumed = newest_whole(self.run)
        self.state = RunState()
        self.compatible_with: dict[str, str] | None = None
        self._build()

    def _build(self) -> None:
        config = self.config
        if self.resumed is not None:  # before encoders of other settings read what is stored of these
            check_dataset(self.resumed, self.dataset)
            self.state = load_run_state(self.resumed, config)
        preprocessings = self._preprocessings()
        torch.manual_seed(config.seed)  # after fitting, which only the first rank does, and only once
        model = self.recommender = config.model.build(preprocessings).to(self.device)
        self.catalog = CatalogInputs(self.dataset, model.inputs)
        if config.compatible_with is not None:
            dim = config.model.item_encoder.dim
            vectors, known = earlier_vectors(config.compatible_with, self.dataset.item_ids, dim)
            model.earlier = vectors.to(self.device), known.to(self.device)
            self.compatible_with = compatibility_record(config.compatible_with)
        if rank() == 0:
            for name, every, learning, how in parameter_counts(model, config):
                note = f"  ({how})" if how else ""
                logger.info("%s", f"{name:16s}{every:>13,} parameters, {learning:>13,} learn{note}")
        if self.resumed is not None:
            self._load_weights()
        elif config.start_from is not None:
            transplant(model, config.start_from)
        else:
            model.item_encoder.load_pretrained()
        if config.feature_cache:
            progress, bar = progress_bar(rank() == 0)
            with progress:
                use_feature_caches(model, self.catalog, fill=True, progress=bar.advance_in)
        if self.resumed is None and config.start_from is None:
            self._calibrate()
        if config.compile:
            compile_networks(model)
        refuse_too_little_memory(config, model, self.dataset, self.device)
        self.ids = self._sharded_ids() if config.shard_ids else None
        if config.parallel == "fsdp":
            shard(model)
        self.adam = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay, config.modality_rates),
            lr=config.learning_rate,
            betas=BETAS,  # of the second moment: sparse gradients of ids are forgotten sooner
            fused=True,
        )
        self.average = WeightAverage(model, config.average_decay) if config.average_decay else None
        if self.resumed is not None:
            self._load_training_state()
        self.towers = TowerSchedule(config, model, self.catalog, self.state)
        self.optimizer = self.accelerator.prepare_optimizer(self.adam)
        self.model = self.wrapped()

    def averaged(self) -> AbstractContextManager[None]:
        """Within, the model has the weights that are validated and exported: their average, if it is kept."""
        return nullcontext() if self.average is None else self.average.in_place()

    def wrapped(self) -> torch.nn.Module:
        """The model as it is called in a step; anew when more weights begin to learn, for which DDP looks only once."""
        if self.config.parallel == "fsdp":
            return self.recommender
        return self.accelerator.prepare_model(self.recommender)

    def _preprocessings(self) -> dict[str, Any]:
        """Those of the checkpoint; else fitted once by the first rank, read by all: a tokenizer trained twice need not
        come out the same. A run that ended before its first checkpoint may begin again with other settings.
        """
        encoder = self.config.model.item_encoder
        if self.resumed is not None:
            return load_preprocessings(encoder, self.resumed / "preprocessing")
        folder = self.run / "preprocessing"
        complete = folder / "complete"
        given = json.dumps({"dataset": self.dataset.fingerprint, **binding_settings(self.config)}, sort_keys=True)
        if rank() == 0 and not (complete.exists() and complete.read_text() == given):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            ready = source_preprocessings(self.config.start_from, self.config) if self.config.start_from else {}
            own = replace(encoder, encoders={name: e for name, e in encoder.encoders.items() if name not in ready})
            save_preprocessings(ready | fit_preprocessings(own, self.dataset, self.split.train_items), folder)
            complete.write_text(given)
        self.accelerator.wait_for_everyone()
        return load_preprocessings(encoder, folder)

    def _calibrate(self) -> None:
        """Let untrained encoders look at some training items."""
        known = np.flatnonzero(self.split.train_items)
        drawn = random_generator(self.config.seed, Purpose.CALIBRATION).permutation(known)[:CALIBRATION_ITEMS]
        calibrate(self.recommender, self.catalog, np.sort(drawn))

    def _load_weights(self) -> None:
        folder = self.resumed
        assert folder is not None
        if self.config.average_decay:  # the checkpoint's own weights are the average
            self.recommender.load_state_dict(load_tensors(folder, "weights.pt"))
        else:
            load_weights(self.recommender, folder)
        if self.config.model.next_item.refresh_steps:
            vectors = load_tensors(folder, "bank.pt", self.device)
            self.recommender.keep_candidates(self.known_items, vectors)
        if rank() == 0:
            logger.info("going on at epoch %d, step %d of %s", self.state.epoch, self.state.step, self.run)

    def _load_training_state(self) -> None:
        folder = self.resumed
        assert folder is not None
        if self.config.parallel == "fsdp":
            load_sharded_optimizer(self.recommender, self.adam, folder / "training_state")
        else:
            self.adam.load_state_dict(load_tensors(folder, "optimizer.pt"))
        if self.average is not None:
            self.average.load(weights_of(folder))
        if self.ids is not None:
            self.ids.load(load_tensors(folder, "item_ids.pt"))

    @property
    def known_items(self) -> torch.Tensor:
        """Catalogue indices of all training items, ascending."""
        return torch.from_numpy(np.flatnonzero(self.split.train_items)).to(self.device)

    def _sharded_ids(self) -> ShardedItemIds:
        encoder = self.recommender.item_encoder
        preprocessing = self.recommender.inputs.preprocessings["item_id"]
        assert isinstance(preprocessing, ItemIdPreprocessing)
        ids = ShardedItemIds(encoder.encoders["item_id"], preprocessing.rows)  # pyright: ignore[reportArgumentType]
        encoder.encoders["item_id"] = ids
        encoder.items_have_homes = True
        return ids


def start_processes(config: TrainConfig) -> Accelerator:
    """The processes of the launcher, if there are several.

    Raises: ConfigError if the others cannot be reached.
    """
    timeout = InitProcessGroupKwargs(timeout=timedelta(seconds=config.timeout_s))
    try:
        return Accelerator(
            cpu=not torch.cuda.is_available(), mixed_precision=config.mixed_precision, kwargs_handlers=[timeout]
        )
    except (torch.distributed.DistNetworkError, torch.distributed.DistStoreError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ConfigError(
            f"the other processes cannot be reached at {where} within {config.timeout_s} s; check the address, that "
            "the port is open, and that all of them were started"
        ) from error


def open_split(config: TrainConfig) -> tuple[Dataset, Split]:
    """The dataset of a run, and its split.

    Raises: ConfigError if nothing is left to choose the model on, or the model needs times that events do not have.
    """
    dataset = Dataset.open(config.data)
    split = make_split(
        dataset.sequences, dataset.num_items, config.split, quantile=config.split_quantile, refit=config.refit
    )
    if not len(split.valid) and not config.refit:
        raise ConfigError(
            f"split {config.split!r} of {config.data} has no validation events, on which the model is chosen; "
            "give some interactions the split 'valid', or use --split leave_one_out"
        )
    knows_time = getattr(config.model.user_encoder, "query_time", "unknown") == "known"
    if knows_time and split.train.timestamps is None:
        raise ConfigError(
            f"query_time known needs the times of events, which {config.data} does not have; use query_time unknown"
        )
    return dataset, split
