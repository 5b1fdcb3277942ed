"""Exact ranking over the whole catalogue, a block of queries at a time: ranks of targets, and top k.

A rank is 0-based and counts the candidates that score higher than the target plus half of those that score the same:
the expected place under a random order of ties, so that a constant score earns the rank of chance. Candidates are all
items but those in the query's history; the query's own targets always stay.

Legend: Q queries, T targets of all queries, V items of the catalogue, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmrec.data.sequences import Sequences
from mmrec.data.splits import Queries
from mmrec.errors import DataError

__all__ = ["BLOCK", "block_rows", "rank_targets", "rank_targets_from_scores", "top_k", "top_k_from_scores"]

BLOCK = 1 << 24
"""Scores held at once: 64 MiB of float32."""

# Matrix kernels sum the edge of a matrix in another order than its middle, which splits exact ties by one ulp.
# Padded to whole tiles, equal items have equal scores, whatever block, process or place they are in.
_TILE = 64


def rank_targets(
    users: Float[Tensor, "Q D"],
    items: Float[Tensor, "V D"],
    queries: Queries,
    *,
    filter_seen: bool = True,
    block: int = BLOCK,
) -> np.ndarray:
    """Rank of each target by inner product, exact in float32 whatever precision the process prefers.

    Args:
        users: row q is the user of query q.
        items: vectors of the whole catalogue, on the device of ``users``.
        filter_seen: leave the items of a query's history out of its candidates (its targets stay).
        block: scores held at once.

    Returns:
        float64 ranks, in the order of ``queries.targets``. (T,)

    Raises:
        DataError: if a score is not finite.
    """
    rows = block_rows(len(items), block)
    tiles = _pad_rows(items.float(), _TILE)

    def score_block(part: slice) -> Tensor:
        return (_pad_rows(users[part].float(), rows) @ tiles.T)[: part.stop - part.start, : len(items)]

    with torch.no_grad(), _full_precision(users.device):
        return _rank(score_block, queries, filter_seen, rows)


def rank_targets_from_scores(
    score_block: Callable[[slice], np.ndarray],
    queries: Queries,
    *,
    num_items: int,
    filter_seen: bool = True,
    block: int = BLOCK,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """:func:`rank_targets` for recommenders that have scores and no vectors.

    Args:
        score_block: scores of all items for the queries of a slice, an array of its own that may be overwritten. (q, V)
        num_items: V.
        progress: called with the number of queries done after each block.
    """

    def scores(part: slice) -> Tensor:
        values = torch.from_numpy(score_block(part))
        if progress:
            progress(part.stop - part.start)
        return values

    return _rank(scores, queries, filter_seen, block_rows(num_items, block))


def top_k(
    users: Float[Tensor, "Q D"],
    items: Float[Tensor, "V D"],
    k: int,
    *,
    exclude: Sequences | None = None,
    block: int = BLOCK,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each user by inner product, best first.

    Args:
        exclude: row q holds the items that user q is not to get, such as the history.

    Returns:
        catalogue indices, int64 (Q, k), and scores, float32 (Q, k). Where fewer than k items are left, the rest is
        index -1 with score -inf.

    Raises:
        DataError: if a score is not finite.
    """
    rows = block_rows(len(items), block)
    tiles = _pad_rows(items.float(), _TILE)

    def score_block(part: slice) -> Tensor:
        return (_pad_rows(users[part].float(), rows) @ tiles.T)[: part.stop - part.start, : len(items)]

    with torch.no_grad(), _full_precision(users.device):
        return _top_k(score_block, len(users), len(items), k, exclude, rows)


def top_k_from_scores(
    score_block: Callable[[slice], np.ndarray],
    num_queries: int,
    k: int,
    *,
    num_items: int,
    exclude: Sequences | None = None,
    block: int = BLOCK,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`top_k` for recommenders that have scores and no vectors; ``score_block`` as for the ranks."""

    def scores(part: slice) -> Tensor:
        return torch.from_numpy(score_block(part))

    return _top_k(scores, num_queries, num_items, k, exclude, block_rows(num_items, block))


def _top_k(
    score_block: Callable[[slice], Tensor],
    num_queries: int,
    num_items: int,
    k: int,
    exclude: Sequences | None,
    rows: int,
) -> tuple[np.ndarray, np.ndarray]:
    found = min(k, num_items)
    idx = np.full((num_queries, k), -1, dtype=np.int64)
    best = np.full((num_queries, k), -np.inf, dtype=np.float32)
    for start in range(0, num_queries, rows):
        part = slice(start, min(start + rows, num_queries))
        scores = score_block(part)
        _check_finite(scores, part)
        if exclude is not None:
            scores[_events(exclude, part, scores.device)] = -torch.inf
        values, places = scores.topk(found, dim=1)
        best[part, :found] = values.cpu().numpy()
        idx[part, :found] = places.masked_fill(values == -torch.inf, -1).cpu().numpy()
    return idx, best


def block_rows(num_items: int, block: int = BLOCK) -> int:
    """Queries in a block; a function of the catalogue alone, so that every process multiplies equal shapes."""
    return int(np.clip(block // max(num_items, 1), 1, 1024))


def _rank(score_block: Callable[[slice], Tensor], queries: Queries, filter_seen: bool, rows: int) -> np.ndarray:
    ranks = np.zeros(len(queries.targets))
    for start in range(0, len(queries), rows):
        part = slice(start, min(start + rows, len(queries)))
        scores = score_block(part)
        _check_finite(scores, part)
        first, last = queries.target_offsets[part.start], queries.target_offsets[part.stop]
        num_targets = np.diff(queries.target_offsets[part.start : part.stop + 1])
        of_query = torch.from_numpy(np.repeat(np.arange(len(num_targets)), num_targets)).to(scores.device)
        targets = torch.from_numpy(queries.targets[first:last].astype(np.int64)).to(scores.device)
        own = scores[of_query, targets]
        if filter_seen:
            scores[_events(queries.history, part, scores.device)] = -torch.inf
            scores[of_query, targets] = own
        ranks[first:last] = _count(scores, of_query, own, rows).cpu().numpy()
    return ranks


def _count(scores: Tensor, of_query: Tensor, own: Tensor, rows: int) -> Tensor:
    """Scores greater than each target's own, and half of the other equal ones; at most ``rows`` rows at once."""
    counts = []
    for start in range(0, len(own), rows):
        chosen, mine = of_query[start : start + rows], own[start : start + rows, None]
        one_each = len(own) == len(scores)  # the common case needs no copy of the block
        candidates = scores if one_each else scores[chosen]
        greater = (candidates > mine).sum(dim=1)
        equal = (candidates == mine).sum(dim=1) - 1
        counts.append(greater.double() + equal.double() / 2)
    return torch.cat(counts)


def _events(history: Sequences, part: slice, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row in the block and item of every event of the queries in ``part``."""
    events = history.item_idx[history.offsets[part.start] : history.offsets[part.stop]].astype(np.int64)
    lengths = np.diff(history.offsets[part.start : part.stop + 1])
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return torch.from_numpy(rows).to(device), torch.from_numpy(events).to(device)


def _check_finite(scores: Tensor, part: slice) -> None:
    low, high = scores.aminmax()  # one pass without a mask of the block's size; both are NaN if any score is
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise DataError(
            f"the scores of queries {part.start} to {part.stop - 1} are not all finite, so they have no order; "
            "look for NaN or inf in the user and item vectors (a diverged training run?)"
        )


def _pad_rows(matrix: Tensor, multiple: int) -> Tensor:
    return F.pad(matrix, (0, 0, 0, -len(matrix) % multiple))


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
