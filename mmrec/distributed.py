"""Collectives with exact gradients for rows that ranks hold in unequal numbers.

``accelerate.gather`` has no gradient; here the backward pass sums over ranks what each of them sent back for a row, so
that a loss computed on local rows against gathered rows differentiates as it would in one process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor

__all__ = ["all_gather_rows", "dealt_in_turn", "gather_dealt", "gather_on_first", "rank", "world_size"]


def world_size() -> int:
    """Number of processes; 1 where no process group exists."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place among ``world_size()``."""
    return dist.get_rank() if world_size() > 1 else 0


def dealt_in_turn(length: int) -> Int[Tensor, " S"]:
    """Which rank has each of ``length`` things that are dealt like cards: ``rows[rank::world_size]`` are a rank's."""
    return torch.arange(length) % world_size()


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


def gather_dealt(rows: Tensor, owner: Int[Tensor, " S"]) -> Tensor:
    """What all ranks made of the things that were dealt to them, in the order of the things, with gradient.

    Args:
        rows: of this rank's things, in their order. ("n", ...)
        owner: which rank has each thing; known to all, on the CPU.

    Returns: ("S", ...). In one process, ``rows`` itself.
    """
    if world_size() == 1:
        return rows
    sizes = torch.bincount(owner, minlength=world_size()).tolist()
    place = torch.argsort(torch.argsort(owner, stable=True))  # of each thing in the concatenation of all ranks' rows
    return all_gather_rows(rows, sizes)[place.to(rows.device)]


def gather_on_first(rows: Tensor, sizes: Sequence[int]) -> Tensor | None:
    """Concatenate the ranks' rows on the first rank, which alone has memory for all of them; None on the others.

    Args:
        rows: this rank's rows, ``sizes[rank]`` of them, on the CPU. ("n", ...)
    """
    if world_size() == 1:
        return rows
    longest = max(sizes)
    padded = torch.cat([rows, rows.new_zeros(longest - rows.shape[0], *rows.shape[1:])])
    parts = [torch.empty_like(padded) for _ in sizes] if rank() == 0 else None
    dist.gather(padded, parts, dst=0)
    return None if parts is None else torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


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
