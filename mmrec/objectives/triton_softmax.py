"""The log-sum-exp of :mod:`mmrec.objectives.blocked_softmax` as Triton kernels: blocks of scores never leave the chip.

In PyTorch each block of scores is written to memory and read several times (maximum, exponential, sum); on a GPU that
takes longer than the products. Here a tile of scores lives in registers, forward and again backward. Products are exact
to float32 (three TF32 products each), because scores are inner products times up to 100.

Legend: N rows (events), C candidates, D model width, E excluded runs cut at the borders of tiles of rows.
"""

# pyright: reportArgumentType=false
# (a kernel's constants are typed as Triton sees them within)

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from mmrec.objectives.excluded import Excluded

__all__ = ["logsumexp_backward", "logsumexp_forward", "triton_is_better"]

logger = logging.getLogger(__name__)

# Rows and candidates of a tile, and how much of the width is multiplied at once.
ROWS, COLUMNS, WIDTH = 64, 64, 64
# Programs that share the candidates of one tile of rows, so that few rows fill a GPU too.
SPLITS = 8
# Size of the trial: rows, candidates.
TRIAL = (4096, 65_536)


@dataclass(frozen=True)
class _Runs:
    """Excluded runs in the order in which a program meets them, and where those of each group of tiles begin."""

    column: Int[Tensor, " E"]
    start: Int[Tensor, " E"]
    stop: Int[Tensor, " E"]
    first: Int[Tensor, " groups+1"]


def _cut(excluded: Excluded) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Runs cut at the borders of tiles of rows, each row's own candidate among them: tile, column, start, stop."""
    device, num_rows = excluded.own.device, len(excluded.own)
    (hit,) = torch.nonzero(excluded.own >= 0, as_tuple=True)
    real = excluded.stops > excluded.starts
    starts, stops, columns = excluded.starts[real], excluded.stops[real], excluded.columns[real]
    first, last = starts // ROWS, (stops - 1) // ROWS
    pieces = last - first + 1
    which = torch.repeat_interleave(torch.arange(len(starts), device=device), pieces)
    before = torch.cumsum(pieces, 0) - pieces
    tile = first[which] + torch.arange(len(which), device=device) - before[which]
    start = torch.maximum(starts[which], tile * ROWS)
    stop = torch.minimum(stops[which], ((tile + 1) * ROWS).clamp(max=num_rows))
    return (
        torch.cat([hit // ROWS, tile]),
        torch.cat([excluded.own[hit], columns[which]]),
        torch.cat([hit, start]),
        torch.cat([hit + 1, stop]),
    )


def _sorted(pieces: tuple[Tensor, Tensor, Tensor, Tensor], group: Tensor, within: Tensor, num_groups: int) -> _Runs:
    _, column, start, stop = pieces
    order = torch.argsort(within)
    order = order[torch.argsort(group[order], stable=True)]
    counts = torch.bincount(group, minlength=num_groups)
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return _Runs(column[order].int(), start[order].int(), stop[order].int(), first.int())


def logsumexp_forward(
    left: Float[Tensor, "N D"], candidates: Float[Tensor, "C D"], log_inclusion: Float[Tensor, " C"], excluded: Excluded
) -> Float[Tensor, " N"]:
    """``logsumexp_j(left @ candidates.T - log_inclusion)`` over what a row does not exclude; ``left`` is scaled."""
    num_rows, num_candidates = len(left), len(candidates)
    tiles, share = triton.cdiv(num_rows, ROWS), triton.cdiv(triton.cdiv(num_candidates, COLUMNS), SPLITS) * COLUMNS
    pieces = _cut(excluded)
    runs = _sorted(pieces, pieces[0] * SPLITS + pieces[1] // share, pieces[1], tiles * SPLITS)
    greatest = left.new_full((SPLITS, num_rows), -torch.inf)
    total = left.new_zeros(SPLITS, num_rows)
    _forward[(tiles, SPLITS)](
        left, candidates, log_inclusion, runs.column, runs.start, runs.stop, runs.first, greatest, total,
        num_rows, num_candidates, share, left.shape[1],
        ROWS=ROWS, COLUMNS=COLUMNS, WIDTH=WIDTH, SPLITS=SPLITS,
    )  # fmt: skip
    peak = greatest.amax(0)
    shift = peak.masked_fill(peak == -torch.inf, 0.0)
    return (total * (greatest - shift).exp()).sum(0).log() + shift


def logsumexp_backward(
    left: Float[Tensor, "N D"],
    candidates: Float[Tensor, "C D"],
    log_inclusion: Float[Tensor, " C"],
    excluded: Excluded,
    result: Float[Tensor, " N"],
    gradient: Float[Tensor, " N"],
) -> tuple[Float[Tensor, "N D"], Float[Tensor, "C D"]]:
    """Gradients of ``left`` and of ``candidates``: softmax weights, made again, times the other side."""
    num_rows, num_candidates = len(left), len(candidates)
    shift = result.masked_fill(result == -torch.inf, 0.0)
    pieces = _cut(excluded)
    of_left, of_candidates = torch.zeros_like(left), torch.zeros_like(candidates)
    row_tiles, column_tiles = triton.cdiv(num_rows, ROWS), triton.cdiv(num_candidates, COLUMNS)
    sizes: dict[str, Any] = {"ROWS": ROWS, "COLUMNS": COLUMNS, "WIDTH": WIDTH}
    by_row = _sorted(pieces, pieces[0], pieces[1], row_tiles)
    _backward_left[(row_tiles,)](
        left, candidates, log_inclusion, shift, gradient, by_row.column, by_row.start, by_row.stop, by_row.first,
        of_left, num_rows, num_candidates, left.shape[1], FULL=triton.next_power_of_2(left.shape[1]), **sizes,
    )  # fmt: skip
    by_column = _sorted(pieces, pieces[1] // COLUMNS, pieces[0], column_tiles)
    _backward_candidates[(column_tiles,)](
        left, candidates, log_inclusion, shift, gradient, by_column.column, by_column.start, by_column.stop,
        by_column.first, of_candidates, num_rows, num_candidates, left.shape[1],
        FULL=triton.next_power_of_2(left.shape[1]), **sizes,
    )  # fmt: skip
    return of_left, of_candidates


@triton.jit
def _scores(left, candidates, log_inclusion, rows, columns, num_rows, num_candidates, dim,
            ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    """A tile of scores, -inf beyond the last candidate."""
    scores = tl.zeros((ROWS, COLUMNS), tl.float32)
    for begin in range(0, dim, WIDTH):
        place = begin + tl.arange(0, WIDTH)
        a = tl.load(left + rows[:, None] * dim + place, mask=(rows[:, None] < num_rows) & (place < dim), other=0.0)
        b = tl.load(
            candidates + columns[:, None] * dim + place, mask=(columns[:, None] < num_candidates) & (place < dim),
            other=0.0,
        )  # fmt: skip
        scores = tl.dot(a, tl.trans(b), scores, input_precision="tf32x3")
    correction = tl.load(log_inclusion + columns, mask=columns < num_candidates, other=0.0)
    return tl.where(columns[None, :] < num_candidates, scores - correction[None, :], float("-inf"))


@triton.jit
def _without(scores, rows, columns, column, start, stop):
    """The tile without one run."""
    out = (columns[None, :] == column) & (rows[:, None] >= start) & (rows[:, None] < stop)
    return tl.where(out, float("-inf"), scores)


@triton.jit
def _forward(left, candidates, log_inclusion, run_column, run_start, run_stop, run_first, greatest, total,
             num_rows, num_candidates, share, dim,
             ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr):  # fmt: skip
    tile, split = tl.program_id(0), tl.program_id(1)
    rows = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    sums = tl.zeros((ROWS,), tl.float32)
    run, last = tl.load(run_first + tile * SPLITS + split), tl.load(run_first + tile * SPLITS + split + 1)
    for begin in range(split * share, tl.minimum((split + 1) * share, num_candidates), COLUMNS):
        columns = (begin + tl.arange(0, COLUMNS)).to(tl.int64)
        scores = _scores(left, candidates, log_inclusion, rows, columns, num_rows, num_candidates, dim,
                         ROWS, COLUMNS, WIDTH)  # fmt: skip
        column = tl.load(run_column + run, mask=run < last, other=2147483647)
        while column < begin + COLUMNS:
            scores = _without(scores, rows, columns, column, tl.load(run_start + run), tl.load(run_stop + run))
            run += 1
            column = tl.load(run_column + run, mask=run < last, other=2147483647)
        higher = tl.maximum(peak, tl.max(scores, 1))
        shift = tl.where(higher == float("-inf"), 0.0, higher)
        sums = sums * tl.exp(peak - shift) + tl.sum(tl.exp(scores - shift[:, None]), 1)
        peak = higher
    tl.store(greatest + split * num_rows + rows, peak, mask=rows < num_rows)
    tl.store(total + split * num_rows + rows, sums, mask=rows < num_rows)


@triton.jit
def _backward_left(left, candidates, log_inclusion, shift, gradient, run_column, run_start, run_stop, run_first,
                   of_left, num_rows, num_candidates, dim,
                   FULL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    tile = tl.program_id(0)
    rows, place = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64), tl.arange(0, FULL)
    lse = tl.load(shift + rows, mask=rows < num_rows, other=0.0)
    factor = tl.load(gradient + rows, mask=rows < num_rows, other=0.0)
    found = tl.zeros((ROWS, FULL), tl.float32)
    run, last = tl.load(run_first + tile), tl.load(run_first + tile + 1)
    for begin in range(0, num_candidates, COLUMNS):
        columns = (begin + tl.arange(0, COLUMNS)).to(tl.int64)
        scores = _scores(left, candidates, log_inclusion, rows, columns, num_rows, num_candidates, dim,
                         ROWS, COLUMNS, WIDTH)  # fmt: skip
        column = tl.load(run_column + run, mask=run < last, other=2147483647)
        while column < begin + COLUMNS:
            scores = _without(scores, rows, columns, column, tl.load(run_start + run), tl.load(run_stop + run))
            run += 1
            column = tl.load(run_column + run, mask=run < last, other=2147483647)
        softmax = tl.exp(scores - lse[:, None])
        b = tl.load(
            candidates + columns[:, None] * dim + place, mask=(columns[:, None] < num_candidates) & (place < dim),
            other=0.0,
        )  # fmt: skip
        found = tl.dot(softmax, b, found, input_precision="tf32x3")
    found = found * factor[:, None]
    tl.store(of_left + rows[:, None] * dim + place, found, mask=(rows[:, None] < num_rows) & (place < dim))


@triton.jit
def _backward_candidates(left, candidates, log_inclusion, shift, gradient, run_column, run_start, run_stop, run_first,
                         of_candidates, num_rows, num_candidates, dim,
                         FULL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
                         WIDTH: tl.constexpr):  # fmt: skip
    tile = tl.program_id(0)
    columns, place = (tile * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64), tl.arange(0, FULL)
    found = tl.zeros((COLUMNS, FULL), tl.float32)
    run, last = tl.load(run_first + tile), tl.load(run_first + tile + 1)
    for begin in range(0, num_rows, ROWS):
        rows = (begin + tl.arange(0, ROWS)).to(tl.int64)
        scores = _scores(left, candidates, log_inclusion, rows, columns, num_rows, num_candidates, dim,
                         ROWS, COLUMNS, WIDTH)  # fmt: skip
        start = tl.load(run_start + run, mask=run < last, other=2147483647)
        while start < begin + ROWS:
            scores = _without(scores, rows, columns, tl.load(run_column + run), start, tl.load(run_stop + run))
            run += 1
            start = tl.load(run_start + run, mask=run < last, other=2147483647)
        lse = tl.load(shift + rows, mask=rows < num_rows, other=float("inf"))
        factor = tl.load(gradient + rows, mask=rows < num_rows, other=0.0)
        softmax = tl.exp(scores - lse[:, None])
        a = tl.load(left + rows[:, None] * dim + place, mask=(rows[:, None] < num_rows) & (place < dim), other=0.0)
        found = tl.dot(tl.trans(softmax), a * factor[:, None], found, input_precision="tf32x3")
    tl.store(
        of_candidates + columns[:, None] * dim + place, found,
        mask=(columns[:, None] < num_candidates) & (place < dim),
    )  # fmt: skip


@functools.cache
def triton_is_better(device: torch.device, dim: int) -> bool:
    """Whether the kernels compile on a device, give the sums and gradients of PyTorch's blocks there, and are faster.

    Tried once a process and width, on some thousand rows; a line says what was found.
    """
    from mmrec.objectives.blocked_softmax import blocked_logsumexp

    generator = torch.Generator(device).manual_seed(0)
    shapes = [(rows, dim) for rows in TRIAL]
    users, candidates = (torch.randn(*shape, device=device, generator=generator) / dim**0.5 for shape in shapes)
    log_q, excluded = -torch.rand(TRIAL[1], device=device, generator=generator), _trial_excluded(device)
    found, seconds = [], []
    try:
        for kernels in (True, False):
            leaves = [value.clone().requires_grad_(True) for value in (users, candidates)]
            with torch.inference_mode(False), torch.enable_grad():
                for _ in range(3):  # the first one compiles
                    torch.cuda.synchronize(device)
                    began = time.perf_counter()
                    result = blocked_logsumexp(leaves[0], leaves[1], 10.0, log_q, excluded, kernels=kernels)
                    gradients = torch.autograd.grad(result.sum(), leaves)
                    torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
            found.append([result.detach(), *gradients])
    except Exception as error:  # whatever a compiler may say: there is another way
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        logger.warning("the Triton softmax does not run on %s (%s); PyTorch's blocks are used", device, first)
        return False
    for kernel, blocks in zip(*found, strict=True):
        if not (kernel - blocks).abs().max() <= 1e-3 * blocks.abs().max():
            logger.warning("the Triton softmax gives other results on %s; PyTorch's blocks are used", device)
            return False
    logger.debug("softmax of %s on %s: Triton %.1f ms, PyTorch %.1f ms", TRIAL, device, *(1e3 * s for s in seconds))
    return seconds[0] < seconds[1]


def _trial_excluded(device: torch.device) -> Excluded:
    """Histories of a hundred events each of which excludes those before it."""
    rows = torch.arange(TRIAL[0], device=device)
    columns = (rows * 15_485_863) % TRIAL[1]
    stops = (rows // 100 + 1) * 100
    return Excluded(own=columns.roll(-1), columns=columns, starts=rows, stops=stops.clamp(max=TRIAL[0]))
