"""Collectives with exact gradients for rows that ranks hold in unequal numbers.

``accelerate.gather`` has no gradient; here the backward pass sums over ranks what each of them sent back for a row, so
that a loss computed on local rows against gathered rows differentiates as it would in one process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["all_gather_rows", "gather_shares", "rank", "share", "world_size"]


def world_size() -> int:
    """Number of processes; 1 where no process group exists."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place among ``world_size()``."""
    return dist.get_rank() if world_size() > 1 else 0


def share(length: int) -> list[int]:
    """How many of ``length`` rows each rank holds under ``rows[rank::world_size]``."""
    return [len(range(index, length, world_size())) for index in range(world_size())]


def all_gather_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Concatenate the ranks' rows along the first dimension, with gradient.

    Args:
        rows: this rank's rows, ``sizes[rank]`` of them. ("n", ...)
        sizes: number of rows of every rank, known to all (ranks derive it from the global batch; nothing is sent).

    Returns: ("sum of sizes", ...), in the order of ranks. In one process, ``rows`` itself.
    """
    if world_size() == 1:
        return rows
    longest = max(sizes)
    padded = torch.cat([rows, rows.new_zeros(longest - rows.shape[0], *rows.shape[1:])])
    gathered = _AllGather.apply(padded)
    return torch.cat([gathered[index, :size] for index, size in enumerate(sizes)])


def gather_shares(rows: Tensor, length: int) -> Tensor:
    """What all ranks made of their shares ``things[rank::world_size]``, in the order of the things, with gradient.

    Args:
        rows: this rank's rows. ("n", ...)
        length: number of things.
    """
    if world_size() == 1:
        return rows
    dealt = torch.cat([torch.arange(index, length, world_size()) for index in range(world_size())])
    return all_gather_rows(rows, share(length))[torch.argsort(dealt).to(rows.device)]


class _AllGather(torch.autograd.Function):
    """Forward: stack the ranks' tensors. Backward: each rank receives the sum of all ranks' gradients of its own."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(world_size(), *rows.shape)
        dist.all_gather(list(gathered.unbind(0)), rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        # gloo has no reduce_scatter for every dtype; the all-reduce moves world_size times the bytes and is exact.
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[rank()]
