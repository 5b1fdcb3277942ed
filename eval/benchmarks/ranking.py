"""Exact full ranking against the bare matrix product that it cannot do without.

    python -m eval.benchmarks.ranking                      # Amazon Beauty's shape: 22,363 users x 12,101 items x d 64
    python -m eval.benchmarks.ranking --users 200000 --items 200000 --seen 10 --repeats 1     # minutes of the processor

Measured 2026-11-26, 2-core CPU, 2 threads, least time of a round on the clock:

| users x items | bare product | rank_targets | ratio (processor) | peak memory |
|---|---|---|---|---|
| 22,363 x 12,101 | .35 s | .50 s | 1.44 (1.43), median of 5 rounds | .57 GiB |
| 200,000 x 200,000, beside other tests | 95 s | 105 s | 1.11 (1.21), one round | .77 GiB |

Both in one process, one after the other in each of --repeats rounds: the blocked product of all users and items, its
scores thrown away, and `rank_targets`: the same product, the histories filtered, the ranks counted with half-ties. The
least time of the rounds stands there, and the median of the rounds' ratios. Time of the processor (all threads) stands
beside that of the clock, for the machine may be shared. Peak memory is that of the process.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from mmrec.data.sequences import Sequences
from mmrec.data.splits import Queries
from mmrec.retrieval import block_rows, rank_targets


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """One target a user, some events seen."""

    users: int = 22_363
    items: int = 12_101
    dim: int = 64
    seen: int = 8
    """Events of each history."""
    repeats: int = 5
    threads: int = 2


def bare_product(users: torch.Tensor, items: torch.Tensor) -> None:
    """All scores, a block of the size that ranking uses at a time, into one buffer; both sides in whole tiles of 64."""
    rows = block_rows(len(items))
    users = torch.nn.functional.pad(users, (0, 0, 0, -len(users) % rows))
    items = torch.nn.functional.pad(items, (0, 0, 0, -len(items) % 64))
    scores = torch.empty(rows, len(items))
    for start in range(0, len(users), rows):
        torch.mm(users[start : start + rows], items.T, out=scores)


def timed(*works: Callable[[], object], repeats: int) -> np.ndarray:
    """Seconds of the clock and of the processor of each work in each round. (repeats, works, 2)"""
    seconds = np.zeros((repeats, len(works), 2))
    for found in seconds:
        for n, work in enumerate(works):
            start, used = time.perf_counter(), time.process_time()
            work()
            found[n] = time.perf_counter() - start, time.process_time() - used
    return seconds


def main(config: Ranking) -> None:
    """Print both times, their ratio and the peak memory."""
    torch.set_num_threads(config.threads)
    generator = np.random.default_rng(0)
    users = torch.from_numpy(generator.standard_normal((config.users, config.dim), dtype=np.float32))
    items = torch.from_numpy(generator.standard_normal((config.items, config.dim), dtype=np.float32))
    events = generator.integers(0, config.items, config.users * config.seen, dtype=np.int32)
    history = Sequences(
        user_ids=np.arange(config.users), offsets=np.arange(config.users + 1) * config.seen, item_idx=events,
        timestamps=None, split=None, order="position",
    )  # fmt: skip
    targets = generator.integers(0, config.items, config.users, dtype=np.int32)
    queries = Queries(
        user=np.arange(config.users), history=history, target_offsets=np.arange(config.users + 1), targets=targets
    )
    seconds = timed(
        lambda: bare_product(users, items), lambda: rank_targets(users, items, queries), repeats=config.repeats
    )
    shape = f"{config.users:,} users x {config.items:,} items x d {config.dim}, {config.threads} threads"
    print(shape)
    for name, (clock, processor) in zip(("bare blocked product", "rank_targets"), seconds.min(axis=0), strict=True):
        print(f"{name:22} {clock:9.2f} s  {processor:9.2f} s of the processor")
    clock, processor = np.median(seconds[:, 1] / seconds[:, 0], axis=0)
    print(f"{'ratio (median)':22} {clock:9.2f}    {processor:9.2f}")
    rate = config.users * config.items / seconds[:, 1, 1].min() / 1e9
    print(f"{rate:.2f} billion scores ranked in a second of the processor")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main(tyro.cli(Ranking, description=__doc__))
