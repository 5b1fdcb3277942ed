"""Sums over the scores against many candidates, without ever holding all the scores.

Legend: N rows (events), C candidates, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmrec.objectives.excluded import Excluded

__all__ = ["blocked_logsumexp", "blocked_softplus_sum"]

# Rows and candidates of a block: its scores stay in a CPU's cache, or keep a GPU busy.
BLOCK = {"cpu": (256, 4096), "cuda": (4096, 16384)}


def blocked_logsumexp(
    users: Float[Tensor, "N D"],
    candidates: Float[Tensor, "C D"],
    scale: Float[Tensor, ""] | float,
    log_inclusion: Float[Tensor, " C"],
    excluded: Excluded,
    *,
    kernels: bool | None = None,
) -> Float[Tensor, " N"]:
    """``logsumexp_j(scale * users @ candidates.T - log_inclusion)`` over the candidates that a row does not exclude.

    Scores are made a block at a time and made again in the backward pass, so that memory grows with N + C instead of
    N x C, and a block stays in the cache. -inf where a row excludes everything. Differentiable once, in users,
    candidates and scale; computed in float32 at least, whatever autocast says.

    Args:
        kernels: by the Triton kernels; None: on CUDA, where a trial found them right and faster.

    Source: running maximum and sum of Milakov and Gimelshein 2018; recomputation as in Chen et al. 2016.
    """
    dtype = torch.promote_types(users.dtype, torch.float32)
    scale = torch.as_tensor(scale, dtype=dtype, device=users.device)
    if kernels is None:
        kernels = users.is_cuda and dtype == torch.float32 and _kernels_are_better(users.device, users.shape[1])
    function = _KernelLogSumExp if kernels else _BlockedLogSumExp
    result = function.apply(users.to(dtype), candidates.to(dtype), scale, log_inclusion.to(dtype), excluded)
    assert isinstance(result, Tensor)
    return result


class _BlockedLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, users: Tensor, candidates: Tensor, scale: Tensor, log_inclusion: Tensor, excluded: Excluded
    ) -> Tensor:
        greatest = users.new_full((len(users),), -torch.inf)
        total = users.new_zeros(len(users))  # of exp(score - greatest)
        with torch.autocast(users.device.type, enabled=False):
            left = torch.cat([scale * users, users.new_ones(len(users), 1)], 1)
            right = torch.cat([candidates, -log_inclusion[:, None]], 1)  # the correction comes with the product
            for part, _, scores in _blocks(left, right, excluded):
                before, after = greatest[part], torch.maximum(greatest[part], scores.amax(1))
                shift = after.masked_fill(after == -torch.inf, 0.0)  # -inf - -inf would be no number
                total[part] = total[part] * (before - shift).exp() + scores.sub_(shift[:, None]).exp_().sum(1)
                greatest[part] = after
        result = greatest + total.log()  # -inf + -inf where a row excludes everything
        ctx.save_for_backward(users, candidates, scale, log_inclusion, result)
        ctx.excluded = excluded
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        users, candidates, scale, log_inclusion, result = ctx.saved_tensors
        of_users, of_candidates = torch.zeros_like(users), torch.zeros_like(candidates)
        shift = result.masked_fill(result == -torch.inf, 0.0)  # a row that excludes everything has probability 0
        with torch.autocast(users.device.type, enabled=False):
            left = torch.cat([scale * users, users.new_ones(len(users), 1), -shift[:, None]], 1)
            right = torch.cat([candidates, -log_inclusion[:, None], candidates.new_ones(len(candidates), 1)], 1)
            weighted = users * gradients[0][:, None]
            for part, place, scores in _blocks(left, right, ctx.excluded):
                softmax = scores.exp_()
                of_users[part].addmm_(softmax, candidates[place])
                of_candidates[place].addmm_(softmax.T, weighted[part])
            of_users *= gradients[0][:, None]
            of_scale = (of_users * users).sum()
        return of_users.mul_(scale), of_candidates.mul_(scale), of_scale, None, None


class _KernelLogSumExp(torch.autograd.Function):
    """The same by Triton kernels."""

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, candidates: Tensor, scale: Tensor, log_inclusion: Tensor, excluded: Excluded
    ) -> Tensor:
        from mmrec.objectives.triton_softmax import logsumexp_forward

        result = logsumexp_forward(scale * users, candidates.contiguous(), log_inclusion, excluded)
        ctx.save_for_backward(users, candidates, scale, log_inclusion, result)
        ctx.excluded = excluded
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from mmrec.objectives.triton_softmax import logsumexp_backward

        users, candidates, scale, log_inclusion, result = ctx.saved_tensors
        of_left, of_candidates = logsumexp_backward(
            scale * users, candidates.contiguous(), log_inclusion, ctx.excluded, result, gradients[0].contiguous()
        )
        return scale * of_left, of_candidates, (of_left * users).sum(), None, None


def _kernels_are_better(device: torch.device, dim: int) -> bool:
    from mmrec.objectives.triton_softmax import triton_is_better

    return triton_is_better(device, dim)


def blocked_softplus_sum(
    users: Float[Tensor, "N D"],
    candidates: Float[Tensor, "C D"],
    scale: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float,
    excluded: Excluded,
) -> tuple[Float[Tensor, " N"], Int[Tensor, " N"]]:
    """``sum_j log(1 + exp(scale * users @ candidates.T + bias))`` over the candidates that a row does not exclude.

    Memory, precision and ``excluded`` as in :func:`blocked_logsumexp`; differentiable once, in users, candidates,
    scale and bias.

    Returns: the sums, and over how many candidates each goes.
    """
    dtype = torch.promote_types(users.dtype, torch.float32)
    scale, bias = (torch.as_tensor(value, dtype=dtype, device=users.device) for value in (scale, bias))
    result = _BlockedSoftplusSum.apply(users.to(dtype), candidates.to(dtype), scale, bias, excluded)
    assert isinstance(result, tuple)
    return result


class _BlockedSoftplusSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, users: Tensor, candidates: Tensor, scale: Tensor, bias: Tensor, excluded: Excluded
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(users, candidates, scale, bias)
        ctx.excluded = excluded
        total = users.new_zeros(len(users))
        count = torch.zeros(len(users), dtype=torch.long, device=users.device)
        with torch.autocast(users.device.type, enabled=False):
            for part, _, scores in _blocks(*_with_bias(users, candidates, scale, bias), excluded):
                total[part] += F.softplus(scores).sum(1)  # 0 for -inf
                count[part] += (scores > -torch.inf).sum(1)
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        users, candidates, scale, bias = ctx.saved_tensors
        of_users, of_candidates, of_bias = torch.zeros_like(users), torch.zeros_like(candidates), torch.zeros_like(bias)
        weighted = users * gradients[0][:, None]
        with torch.autocast(users.device.type, enabled=False):
            for part, place, scores in _blocks(*_with_bias(users, candidates, scale, bias), ctx.excluded):
                slope = scores.sigmoid_()  # of softplus
                of_users[part].addmm_(slope, candidates[place])
                of_candidates[place].addmm_(slope.T, weighted[part])
                of_bias += slope.sum(1) @ gradients[0][part]
            of_users *= gradients[0][:, None]
            of_scale = (of_users * users).sum()
        return of_users.mul_(scale), of_candidates.mul_(scale), of_scale, of_bias, None


def _with_bias(users: Tensor, candidates: Tensor, scale: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Two matrices whose product is ``scale * users @ candidates.T + bias``."""
    left = torch.cat([scale * users, bias.expand(len(users), 1)], 1)
    return left, torch.cat([candidates, candidates.new_ones(len(candidates), 1)], 1)


def _blocks(left: Tensor, right: Tensor, excluded: Excluded) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows and columns of each block of ``left @ right.T``, -inf where excluded; the caller may overwrite it."""
    height, width = BLOCK.get(left.device.type, BLOCK["cuda"])
    for part, place, rows, columns in excluded.blocks(height, width, len(right)):
        scores = left[part] @ right[place].T
        scores[rows, columns] = -torch.inf
        yield part, place, scores
