"""What a run will be, before it is begun: settings, parameters, steps, memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from rich.console import Console, Group, RenderableType
from rich.table import Table
from scipy.optimize import nnls
from torch import Tensor

from mmrec.config import to_dict
from mmrec.data.dataset import Dataset
from mmrec.data.splits import Split
from mmrec.distributed import world_size
from mmrec.item_encoder import fit_preprocessings
from mmrec.item_inputs import CatalogInputs
from mmrec.modality_encoders.tower import TowerEncoder
from mmrec.model import Recommender
from mmrec.training.assembly import open_split
from mmrec.training.config import TrainConfig
from mmrec.training.loader import StepLoader
from mmrec.training.memory import Memory, available_bytes, gibibytes, lasting_bytes
from mmrec.training.parameters import parameter_counts
from mmrec.training.sampler import StepSampler, sampler_of

__all__ = ["print_plan"]

# Histories and negatives of the small steps in which activations are counted.
SMALL_STEPS = ((8, 16), (8, 64), (32, 16))


def print_plan(config: TrainConfig) -> None:
    """Print the whole configuration, parameters by part, steps, and memory of each process; nothing is trained.

    Pre-trained weights are not read, caches of frozen encoders are not filled, and no run folder is made.
    """
    dataset, split = open_split(config)
    preprocessings = fit_preprocessings(config.model.item_encoder, dataset, split.train_items)
    model = config.model.build(preprocessings)
    sampler = sampler_of(config, split)
    parameters = _parameters(model, config)  # before small steps are taken, in which towers may not learn
    memory = [*lasting_bytes(config, model, dataset), activation_bytes(config, model, dataset, split)]
    console = Console()
    console.print(Group(_settings(config), parameters, _steps(sampler, config, split), _memory(memory)))


def activation_bytes(config: TrainConfig, model: Recommender, dataset: Dataset, split: Split) -> Memory:
    """What the backward pass of a step needs: so much an item and so much an event, found in three small steps."""
    learns = bool(config.tower_epochs) and not config.tower_items
    towers = [e for e in model.item_encoder.encoders.values() if isinstance(e, TowerEncoder)]
    for tower in towers:
        for parameter, _ in tower.tower_parameters():
            parameter.requires_grad_(learns)
    learns = learns and bool(towers)
    catalog = CatalogInputs(dataset, model.inputs)
    sizes, counted = [], []
    for histories, negatives in SMALL_STEPS:
        small = sampler_of(config, split, towers_learn=learns, batch_size=histories, num_negatives=negatives)
        batch = next(iter(StepLoader(small, catalog, np.zeros(len(model.inputs.modalities)), config.seed).epoch(0)))
        with _saved_bytes(model) as saved:
            loss = model.total(model(batch))
        del loss
        sizes.append([len(batch.step_items), batch.num_targets])
        counted.append(saved[0])
    per_item, per_event = nnls(np.array(sizes, dtype=float), np.array(counted, dtype=float))[0]
    whole = sampler_of(config, split, towers_learn=learns)
    step = whole.step(0, *whole.steps(0)[0])
    num_bytes = (per_item * len(step.item_idx) + per_event * step.num_targets) / world_size()
    what = f"activations ({len(step.item_idx):,} items, {step.num_targets:,} events a step)"
    return Memory(what, num_bytes, "counted in small steps, scaled")


@contextmanager
def _saved_bytes(model: Recommender) -> Iterator[list[int]]:
    """Bytes of the storages that autograd keeps for the backward pass of what is computed within, weights apart."""
    total, seen = [0], {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield total


def _settings(config: TrainConfig) -> RenderableType:
    table = Table("setting", "value", title="configuration", title_justify="left")
    for name, value in _flat(to_dict(config)):
        table.add_row(name, value)
    return table


def _flat(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _flat(value, f"{name}.{key}" if name else key)
    else:
        yield name, str(values)


def _parameters(model: Recommender, config: TrainConfig) -> RenderableType:
    table = Table("part", "parameters", "learn", "how", title="parameters", title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for name, every, learning, how in parameter_counts(model, config):
        table.add_row(name, f"{every:,}", f"{learning:,}", how, style="bold" if name == "all" else None)
    return table


def _steps(sampler: StepSampler, config: TrainConfig, split: Split) -> RenderableType:
    table = Table("steps", "", title="work", title_justify="left")
    epoch = sampler.num_steps(0)
    step = sampler.step(0, *sampler.steps(0)[0])
    table.add_row("steps an epoch", f"{epoch:,}")
    most = config.max_steps or epoch * config.max_epochs
    table.add_row("steps at most", f"{most:,} ({math.ceil(most / epoch):,} epochs; ends when validation stops rising)")
    table.add_row("events of the first step", f"{step.num_targets:,} of {len(step.events):,} histories")
    table.add_row("items of the first step", f"{len(step.item_idx):,}, {len(step.candidate_idx):,} of them candidates")
    table.add_row("processes", str(world_size()))
    table.add_row("training events", f"{len(split.train.item_idx):,} of {int(split.train_items.sum()):,} items")
    return table


def _memory(lines: list[Memory]) -> RenderableType:
    table = Table("memory of each process", "about", "", title_justify="left")
    table.columns[1].justify = "right"
    for line in lines:
        table.add_row(line.what, gibibytes(line.num_bytes), line.source)
    total = sum(line.num_bytes for line in lines)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table.add_row(
        "all", gibibytes(total), f"{gibibytes(available_bytes(device))} are free on {device} here", style="bold"
    )
    return table
