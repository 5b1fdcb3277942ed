"""Exact ranking over the whole catalogue, a block of queries at a time: ranks of targets, and top k.

A rank is 0-based and counts the candidates that score higher than the target plus half of those that score the same:
the expected place under a random order of ties, so that a constant score earns the rank of chance. Candidates are all
items but those in the query's history; the query's own targets always stay.

No matrix of users x items is ever held, only a block of it, and no more than a number comes back for each target. One
sum over the catalogue gives the rank: of V items, G score higher than the target, E the same and L lower, and
``S = G - L`` is the sum of the signs of their differences, so that ``G + E / 2 = (V - 1 + S) / 2``. Items that are
filtered count as lower. Parts of the catalogue on several processes have sums of their own, and these add up.

Legend: Q queries, T targets of all queries, V items of the catalogue, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmrec.data.sequences import Sequences
from mmrec.data.splits import Queries
from mmrec.distributed import rank, world_size
from mmrec.errors import DataError

__all__ = [
    "block_rows",
    "catalog_shard",
    "rank_targets",
    "rank_targets_from_scores",
    "rank_targets_sharded",
    "top_k",
    "top_k_from_scores",
]

# Scores held at once: 8 MiB of float32, which the caches of a CPU hold while they are counted. Of a large catalogue
# more, for a matrix product of few rows is as slow as reading the other matrix.
_BLOCK, _ROWS, _LARGEST_BLOCK = 1 << 21, 64, 1 << 26

# Matrix kernels sum the edge of a matrix in another order than its middle, which splits exact ties by one ulp.
# Padded to whole tiles, equal items have equal scores, whatever block, process or place they are in.
_TILE = 64


def rank_targets(
    users: Float[Tensor, "Q D"],
    items: Float[Tensor, "V D"],
    queries: Queries,
    *,
    filter_seen: bool = True,
    block: int | None = None,
) -> np.ndarray:
    """Rank of each target by inner product, exact in float32 whatever precision the process prefers.

    Args:
        users: row q is the user of query q.
        items: vectors of the whole catalogue, on the device of ``users``.
        filter_seen: leave the items of a query's history out of its candidates (its targets stay), unless the queries
            say that they stay.
        block: scores held at once, see :func:`block_rows`.

    Returns:
        float64 ranks, in the order of ``queries.targets``. (T,)

    Raises:
        DataError: if a score is not finite.
    """
    rows = block_rows(len(items), block)
    with torch.no_grad(), _full_precision(users.device):
        return _rank(_inner_products(users, items, rows), queries, filter_seen, rows, len(items))


def rank_targets_sharded(
    users: Float[Tensor, "Q D"],
    shard: Float[Tensor, "v D"],
    queries: Queries,
    *,
    num_items: int,
    filter_seen: bool = True,
    block: int | None = None,
) -> np.ndarray:
    """:func:`rank_targets` where each process holds a part of the catalogue; every process gets all ranks.

    Processes exchange two numbers a target, its own score and its sum of signs.

    Args:
        users, queries: the same on every process.
        shard: vectors of the items :func:`catalog_shard`, on the device of ``users``.
        num_items: V, of the whole catalogue.

    Raises:
        DataError: if a score is not finite, or ``shard`` has another number of rows than this process's part.
    """
    own_part = catalog_shard(num_items)
    if len(shard) != own_part.stop - own_part.start:
        raise DataError(
            f"{len(shard):,} item vectors on process {rank()}, whose part of {num_items:,} items are those from "
            f"{own_part.start} to {own_part.stop - 1}; take them by catalog_shard"
        )
    rows = block_rows(num_items, block)
    # Equal shapes on all processes, so that their kernels add up in one order and copies of an item tie everywhere.
    longest = -(-num_items // world_size())
    with torch.no_grad(), _full_precision(users.device):
        scores = _inner_products(users, shard, rows, longest)
        return _rank(scores, queries, filter_seen, rows, num_items, first=own_part.start)


def catalog_shard(num_items: int) -> slice:
    """Items of this process: the catalogue in as many consecutive parts as there are processes, the last ones short."""
    longest = -(-num_items // world_size())
    return slice(min(rank() * longest, num_items), min((rank() + 1) * longest, num_items))


def rank_targets_from_scores(
    score_block: Callable[[slice], np.ndarray],
    queries: Queries,
    *,
    num_items: int,
    filter_seen: bool = True,
    block: int | None = None,
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
        _check_finite(values, part)
        if progress:
            progress(part.stop - part.start)
        return values

    return _rank(scores, queries, filter_seen, block_rows(num_items, block), num_items)


def top_k(
    users: Float[Tensor, "Q D"],
    items: Float[Tensor, "V D"],
    k: int,
    *,
    exclude: Sequences | None = None,
    queries: Queries | None = None,
    block: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of each user by inner product, best first.

    Args:
        exclude: row q holds the items that user q is not to get, such as the history.
        queries: what the users ask; their rules say which items they may get.

    Returns:
        catalogue indices, int64 (Q, k), and scores, float32 (Q, k). Where fewer than k items are left, the rest is
        index -1 with score -inf.

    Raises:
        DataError: if a score is not finite.
    """
    rows = block_rows(len(items), block)
    with torch.no_grad(), _full_precision(users.device):
        return _top_k(_inner_products(users, items, rows), len(users), len(items), k, exclude, queries, rows)


def top_k_from_scores(
    score_block: Callable[[slice], np.ndarray],
    num_queries: int,
    k: int,
    *,
    num_items: int,
    exclude: Sequences | None = None,
    queries: Queries | None = None,
    block: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`top_k` for recommenders that have scores and no vectors; ``score_block`` as for the ranks."""

    def scores(part: slice) -> Tensor:
        values = torch.from_numpy(score_block(part))
        _check_finite(values, part)
        return values

    return _top_k(scores, num_queries, num_items, k, exclude, queries, block_rows(num_items, block))


def _top_k(
    score_block: Callable[[slice], Tensor],
    num_queries: int,
    num_items: int,
    k: int,
    exclude: Sequences | None,
    queries: Queries | None,
    rows: int,
) -> tuple[np.ndarray, np.ndarray]:
    found = min(k, num_items)
    idx = np.full((num_queries, k), -1, dtype=np.int64)
    best = np.full((num_queries, k), -np.inf, dtype=np.float32)
    if queries is not None and queries.filter_seen:
        exclude = queries.history
    for start in range(0, num_queries, rows):
        part = slice(start, min(start + rows, num_queries))
        scores = score_block(part)
        if exclude is not None:
            scores[_events(exclude, part, scores.device)] = -torch.inf
        if queries is not None and queries.available_from is not None:
            _mask_unavailable(scores, queries, part, 0)
        values, places = scores.topk(found, dim=1)
        best[part, :found] = values.cpu().numpy()
        idx[part, :found] = places.masked_fill(values == -torch.inf, -1).cpu().numpy()
    return idx, best


def block_rows(num_items: int, block: int | None = None) -> int:
    """Queries in a block; a function of the catalogue alone, so that every process multiplies equal shapes.

    Args:
        block: scores held at once; by default 8 MiB of them, up to 256 MiB where that would be fewer than 64 queries.
    """
    num_items = max(num_items, 1)
    rows = block // num_items if block else max(_BLOCK // num_items, min(_ROWS, _LARGEST_BLOCK // num_items))
    return int(np.clip(rows, 1, 1024))


def _inner_products(users: Tensor, items: Tensor, rows: int, longest: int = 0) -> Callable[[slice], Tensor]:
    """Scores of a block of at most ``rows`` queries; each call overwrites the block of the one before.

    Args:
        longest: items that the matrix is padded to at least.
    """
    tiles = _pad_rows(items.float(), _TILE, longest).T
    buffer = tiles.new_empty(rows, tiles.shape[1])
    safe = _products_are_finite(users, items)

    def score_block(part: slice) -> Tensor:
        torch.mm(_pad_rows(users[part].float(), rows), tiles, out=buffer)
        scores = buffer[: part.stop - part.start, : len(items)]
        if not safe:
            _check_finite(scores, part)
        return scores

    return score_block


def _rank(
    score_block: Callable[[slice], Tensor],
    queries: Queries,
    filter_seen: bool,
    rows: int,
    num_items: int,
    *,
    first: int | None = None,
) -> np.ndarray:
    """Args: first: of a part of the catalogue, its first item; sums of all processes are added."""
    ranks = np.zeros(len(queries.targets))
    for start in range(0, len(queries), rows):
        part = slice(start, min(start + rows, len(queries)))
        scores = score_block(part)
        low, high = queries.target_offsets[part.start], queries.target_offsets[part.stop]
        num_targets = np.diff(queries.target_offsets[part.start : part.stop + 1])
        of_query = torch.from_numpy(np.repeat(np.arange(len(num_targets)), num_targets)).to(scores.device)
        targets = torch.from_numpy(queries.targets[low:high].astype(np.int64)).to(scores.device)
        own = scores.new_zeros(len(targets))
        targets = targets - (first or 0)
        here = (targets >= 0) & (targets < scores.shape[1])
        own[here] = scores[of_query[here], targets[here]]
        if first is not None:
            _add_over_processes(own)  # all but one add zero
        if filter_seen and queries.filter_seen:
            row, item = _events(queries.history, part, scores.device)
            item = item - (first or 0)
            mine = (item >= 0) & (item < scores.shape[1])
            scores[row[mine], item[mine]] = -torch.inf
        if queries.available_from is not None:
            _mask_unavailable(scores, queries, part, first or 0)
        scores[of_query[here], targets[here]] = own[here]
        signs = _signs(scores, of_query, own, rows)
        if first is not None:
            _add_over_processes(signs)
        ranks[low:high] = (num_items - 1 + signs.cpu().numpy()) / 2
    return ranks


def _signs(scores: Tensor, of_query: Tensor, own: Tensor, rows: int) -> Tensor:
    """For each target, how many scores are greater than its own minus how many are less. Overwrites ``scores``."""
    # Sums of signs are whole numbers, exact in float32 below 2 ** 24.
    dtype = torch.float32 if scores.shape[1] < 1 << 24 else torch.float64
    if len(own) == len(scores):  # one target a query needs no copy of the block
        return scores.sub_(own[:, None]).sign_().sum(dim=1, dtype=dtype).double()
    parts = [
        (scores[of_query[start : start + rows]] - own[start : start + rows, None]).sign_().sum(dim=1, dtype=dtype)
        for start in range(0, len(own), rows)
    ]
    return torch.cat(parts).double()


def _add_over_processes(values: Tensor) -> None:
    if world_size() > 1:
        dist.all_reduce(values)


def _mask_unavailable(scores: Tensor, queries: Queries, part: slice, first: int) -> None:
    assert queries.available_from is not None
    assert queries.times is not None, "splits make the one with the other"
    since = torch.from_numpy(queries.available_from[first : first + scores.shape[1]]).to(scores.device)
    now = torch.from_numpy(queries.times[part]).to(scores.device)
    scores.masked_fill_(since[None, :] > now[:, None], -torch.inf)


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


def _products_are_finite(users: Tensor, items: Tensor) -> bool:
    """True if no inner product can overflow, which spares a look at every score; False if a vector is not finite."""
    if not len(users) or not len(items):
        return True
    longest = [torch.linalg.vector_norm(vectors.double(), dim=1).max() for vectors in (users, items)]
    return bool(longest[0] * longest[1] < torch.finfo(torch.float32).max / 2)


def _pad_rows(matrix: Tensor, multiple: int, at_least: int = 0) -> Tensor:
    rows = max(len(matrix), at_least)
    return F.pad(matrix, (0, 0, 0, rows + -rows % multiple - len(matrix)))


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
