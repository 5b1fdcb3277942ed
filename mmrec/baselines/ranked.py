"""Every baseline fitted, and the targets of some queries ranked by it, with a bar that says which, and for how long.

Legend: T targets of all queries.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmrec.baselines.selection import fit_baselines, rank_baseline
from mmrec.data.dataset import Dataset
from mmrec.data.splits import Queries, Split

__all__ = ["RankedBaseline", "rank_baselines"]


@dataclass(frozen=True, kw_only=True)
class RankedBaseline:
    """What a baseline gave.

    Attributes:
        ranks: 0-based rank of each target. (T,)
        settings: those that were chosen.
        validation: the NDCG@10 that chose them; None: there was nothing to choose on.
        cost: seconds of the clock: "fit_s" with all settings that were tried, "rank_s".
    """

    ranks: np.ndarray
    settings: Mapping[str, Any]
    validation: float | None
    cost: dict[str, float]


def rank_baselines(
    dataset: Dataset, split: Split, queries: Queries, *, progress: bool = True
) -> dict[str, RankedBaseline]:
    """Fit every baseline on the training events and rank the targets of ``queries``.

    Args:
        progress: say on standard error which baseline is fitted or ranked, and how long each took.
    """
    results: dict[str, RankedBaseline] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task("baselines", total=None, unit="")
        started = time.perf_counter()

        def fitting(name: str, tried: int, done: bool) -> None:
            nonlocal started
            if tried == 0:
                started = time.perf_counter()
                bar.reset(task, total=None, description=f"fitting {name}", unit="settings tried")
            bar.update(task, completed=tried)
            if done and progress:
                bar.console.print(f"{name}: {time.perf_counter() - started:.1f} s, settings tried: {tried}")

        def ranked(number: int) -> None:
            bar.update(task, advance=number, unit=f"{bar.tasks[0].speed or 0:,.0f} queries/s")

        for name, one in fit_baselines(dataset, split, progress=fitting).items():
            bar.reset(task, total=len(queries), description=f"ranking {name}", unit="")
            began = time.perf_counter()
            ranks = rank_baseline(one.baseline, queries, dataset.num_items, progress=ranked)
            cost = {"fit_s": one.seconds, "rank_s": time.perf_counter() - began}
            results[name] = RankedBaseline(ranks=ranks, settings=one.settings, validation=one.validation, cost=cost)
    return results
