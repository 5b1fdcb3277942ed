"""What a run holds in memory all the time, and what is free: known before the first step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from mmrec.data.dataset import Dataset
from mmrec.distributed import world_size
from mmrec.errors import ConfigError
from mmrec.model import Recommender
from mmrec.training.config import TrainConfig

__all__ = ["LESS_MEMORY", "Memory", "available_bytes", "gibibytes", "lasting_bytes", "refuse_too_little_memory"]

LESS_MEMORY = (
    "give a lower --batch-size, --model.chunk-histories 64, --model.item-encoder.chunk-items 64, a smaller "
    "--model.item-encoder.dim, or --parallel fsdp on more processes"
)


@dataclass(frozen=True)
class Memory:
    """One line of the estimate: what, bytes a process, and where the number comes from."""

    what: str
    num_bytes: float
    source: str


def lasting_bytes(config: TrainConfig, model: Recommender, dataset: Dataset) -> list[Memory]:
    """What each process holds all the time."""
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())
    ids = model.item_encoder.encoders["item_id"].embedding.weight.numel() if config.shard_ids else 0  # pyright: ignore
    shares = world_size() if config.parallel == "fsdp" else 1
    dim = config.model.item_encoder.dim
    lines = [
        Memory("weights", 4 * (every - ids) * (1 + (1 / shares if shares > 1 else 0)), "4 bytes each"),
        Memory("gradients", 4 * (learning - ids) / shares, "4 bytes each that learns"),
        Memory("optimiser", 8 * (learning - ids) / shares, "8 bytes each that learns"),
        Memory("catalogue vectors", 8 * dataset.num_items * dim, "at validation, twice"),
    ]
    if config.average_decay:
        lines.append(Memory("moving average", 4 * learning / shares, "4 bytes each that learns"))
    if config.shard_ids:
        lines.append(Memory("item ids", 8 * ids * (1 + 1 / dim) / world_size(), "rows and moments of this process"))
    if config.model.next_item.refresh_steps:
        lines.append(Memory("candidates", 8 * dataset.num_items * dim, "kept vectors, and those of the step"))
    return lines


def refuse_too_little_memory(config: TrainConfig, model: Recommender, dataset: Dataset, device: torch.device) -> None:
    """Raises: ConfigError, before the first step, if what lasts does not fit into what is free."""
    lines, free = lasting_bytes(config, model, dataset), available_bytes(device)
    # The weights are there already.
    needed = sum(line.num_bytes for line in lines if line.what != "weights")
    if needed > free:
        largest = max(lines, key=lambda line: line.num_bytes)
        raise ConfigError(
            f"this run needs about {gibibytes(needed)} more on each process, most of it for {largest.what}, and "
            f"{gibibytes(free)} are free on {device}; {LESS_MEMORY}"
        )


def available_bytes(device: torch.device) -> float:
    """Free memory of the device, or of this machine divided by its processes, within the limits of a container."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = 1024.0 * int(lines["MemAvailable"].split()[0])
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (bound := limit.read_text().strip()) != "max":
        free = min(free, float(bound) - float(used.read_text()))
    return free / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def gibibytes(num_bytes: float) -> str:
    """For a reader."""
    return f"{num_bytes / 2**30:,.2f} GiB" if num_bytes >= 2**27 else f"{num_bytes / 2**20:,.1f} MiB"
