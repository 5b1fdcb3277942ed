"""Log-sum-exp of scores against many candidates, without ever holding all the scores.

Legend: N rows (events), C candidates, D model width, S excluded pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["blocked_logsumexp"]

# Scores held at once: what stays in a CPU's cache, and what keeps a GPU busy.
BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}
MIN_ROWS = 64  # fewer would starve the matrix product, however large the catalogue


def blocked_logsumexp(
    users: Float[Tensor, "N D"],
    candidates: Float[Tensor, "C D"],
    scale: Float[Tensor, ""] | float,
    log_inclusion: Float[Tensor, " C"],
    excluded: tuple[Int[Tensor, " S"], Int[Tensor, " S"]],
) -> Float[Tensor, " N"]:
    """``logsumexp_j(scale * users @ candidates.T - log_inclusion)`` over the candidates that a row does not exclude.

    Scores are made a block of rows at a time and made again in the backward pass, so that memory grows with N + C
    instead of N x C, and a block stays in the cache. -inf where a row excludes everything. Differentiable once, in
    users, candidates and scale; computed in float32 at least, whatever autocast says.

    Args:
        excluded: (rows, candidates) of the pairs that are left out, in any order; a pair may stand there twice.

    Source: recomputation as in Chen et al. 2016 and in Liger's fused linear cross-entropy (Hsu et al. 2024).
    """
    dtype = torch.promote_types(users.dtype, torch.float32)
    order = torch.argsort(excluded[0])
    rows, columns = excluded[0][order], excluded[1][order]
    scale = torch.as_tensor(scale, dtype=dtype, device=users.device)
    result = _BlockedLogSumExp.apply(
        users.to(dtype), candidates.to(dtype), scale, log_inclusion.to(dtype), rows, columns
    )
    assert isinstance(result, Tensor)
    return result


class _BlockedLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, users: Tensor, candidates: Tensor, scale: Tensor, log_inclusion: Tensor, rows: Tensor, columns: Tensor
    ) -> Tensor:
        result = users.new_empty(len(users))
        with torch.autocast(users.device.type, enabled=False):
            for part, scores in _blocks(users, candidates, scale, log_inclusion, rows, columns):
                result[part] = torch.logsumexp(scores, dim=1)
        ctx.save_for_backward(users, candidates, scale, log_inclusion, rows, columns, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        users, candidates, scale, log_inclusion, rows, columns, result = ctx.saved_tensors
        of_users, of_candidates = torch.empty_like(users), torch.zeros_like(candidates)
        shift = result.masked_fill(result == -torch.inf, 0.0)  # a row that excludes everything has probability 0
        with torch.autocast(users.device.type, enabled=False):
            for part, scores in _blocks(users, candidates, scale, log_inclusion, rows, columns):
                weights = scores.sub_(shift[part, None]).exp_().mul_(gradients[0][part, None])
                torch.mm(weights, candidates, out=of_users[part])
                of_candidates.addmm_(weights.T, users[part])
            of_scale = (of_users * users).sum()
        return of_users.mul_(scale), of_candidates.mul_(scale), of_scale, None, None, None


def _blocks(
    users: Tensor, candidates: Tensor, scale: Tensor, log_inclusion: Tensor, rows: Tensor, columns: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a block and their scores, -inf where excluded; the caller may overwrite them."""
    size = max(MIN_ROWS, BLOCK.get(users.device.type, BLOCK["cuda"]) // max(len(candidates), 1))
    starts = range(0, len(users), size)
    edges = torch.searchsorted(rows, torch.tensor([*starts, len(users)], device=rows.device)).tolist()
    for number, start in enumerate(starts):
        part = slice(start, min(start + size, len(users)))
        scores = (users[part] @ candidates.T).mul_(scale).sub_(log_inclusion)
        pairs = slice(edges[number], edges[number + 1])
        scores[rows[pairs] - start, columns[pairs]] = -torch.inf
        yield part, scores
