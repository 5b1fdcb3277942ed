"""The model on several processes: all weights on each (DDP), or shards of them (FSDP2); the step is the same.

FSDP here is one unit: weights are gathered for the time of a step, while gradients and the optimiser's state stay
sharded all the time. Which modalities a rank's items have, and in how many chunks, differs between ranks, so that units
within the towers would wait for each other for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from mmrec.distributed import rank, world_size

__all__ = [
    "clip_gradients",
    "full_weights",
    "gathered",
    "load_sharded_optimizer",
    "save_sharded_optimizer",
    "shard",
]

SHARDS = "optimizer"


def shard(model: nn.Module) -> None:
    """Deal the rows of every weight over the processes. Raises nothing in one process: it keeps everything."""
    if world_size() > 1:
        fully_shard(model)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Within, a sharded model has whole weights, so that its parts can be called one by one; not to learn in."""
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def clip_gradients(
    accelerator: Accelerator, model: nn.Module, bound: float, others: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale gradients down to a global norm.

    Args:
        others: squared norm of gradients that are not the model's own and count too; () or None.

    Returns: the norm before, and the factor for the other gradients.
    """
    accelerator.unscale_gradients()
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if others is not None:
        norm = (norm.square() + others).sqrt()
    nn.utils.clip_grads_with_norm_(parameters, bound, norm)
    return norm, (bound / (norm + 1e-6)).clamp(max=1.0)


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights, copied to the CPU, on the first rank; of a sharded model every rank must ask, others get nothing."""
    if isinstance(model, FSDPModule):
        found: Any = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        return found
    if rank() != 0:
        return {}
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def save_sharded_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> Future:
    """Begin to write each rank's shard of the optimiser's state below ``folder``; the future is done when all are."""
    state = get_optimizer_state_dict(model, optimizer)
    group = _cpu_group()
    found: Any = async_save({"optimizer": state}, checkpoint_id=folder / SHARDS, process_group=group)
    return found


def load_sharded_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Take this rank's shard of what any number of processes wrote."""
    state = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    load(state, checkpoint_id=folder / SHARDS, process_group=_cpu_group())
    set_optimizer_state_dict(model, optimizer, state["optimizer"])


_GROUPS: list[Any] = []


def _cpu_group() -> Any:
    """A process group that moves CPU memory, in which a thread plans sharded files in the background."""
    if not _GROUPS:
        _GROUPS.append(dist.new_group(backend="gloo"))
    return _GROUPS[0]
