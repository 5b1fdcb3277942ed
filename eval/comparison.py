"""Runs beside each other on the same queries: metrics with intervals, paired tests, one plot."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from eval.study import METRIC, measured_row
from mmrec.data.splits import Split
from mmrec.evaluator import score_vectors
from mmrec.metrics.paired import compare_paired, holm
from mmrec.metrics.ranking import ranking_metrics
from mmrec.metrics.slices import restrict, target_masks

__all__ = ["PARTS", "PerQuery", "comparisons", "per_query", "plot_runs", "run_rows"]

PARTS = {"all": "all targets", "cold_items": "new items", "warm_items": "known items"}

PerQuery = Mapping[str, tuple[dict[str, np.ndarray], np.ndarray]]
"""By part of the targets, the metrics of each query and the query's user."""


def per_query(split: Split, users: Tensor, items: Tensor) -> PerQuery:
    """Metrics of the test queries, over all targets, new items and known ones.

    Args:
        users: vectors of the queries. ("Q", "D")
        items: vectors of the catalogue. ("V", "D")
    """
    queries = split.test
    ranks = score_vectors(split, "test", users, items, lists=False).ranks
    parts = {"all": (ranking_metrics(ranks, queries.target_offsets), queries.user)}
    for name, mask in target_masks(split, queries, {})[""].items():
        kept, offsets, rows = restrict(ranks, queries.target_offsets, mask)
        parts[name] = ranking_metrics(kept, offsets), queries.user[rows]
    return parts


def run_rows(measured: Mapping[str, PerQuery]) -> pl.DataFrame:
    """One row a run and part: queries, HR@10, NDCG@10 and its 95 % interval."""
    rows = []
    for name, part in itertools.product(measured, _shared_parts(measured)):
        values, users = measured[name][part]
        rows.append({"run": name, "targets": PARTS[part], **measured_row(values, users)})
    return pl.DataFrame(rows)


def comparisons(measured: Mapping[str, PerQuery], pairs: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """One row a pair and part: difference, 95 % interval, p, and whether it holds at 5 % after Holm's correction."""
    rows: list[dict[str, Any]] = []
    for (first, second), part in itertools.product(pairs, _shared_parts(measured)):
        (ours, users), (theirs, their_users) = measured[first][part], measured[second][part]
        assert np.array_equal(users, their_users), "runs on one split have the same queries"
        found = compare_paired(ours[METRIC], theirs[METRIC], users)
        rows.append(
            {
                "pair": f"{first} - {second}", "targets": PARTS[part], "difference": found.difference,
                "low": found.low, "high": found.high, "p": found.p_value,
            }
        )  # fmt: skip
    holds = [p <= 0.05 for p in holm([row["p"] for row in rows])]
    return pl.DataFrame(rows).with_columns(holds_at_5_percent=pl.Series(holds))


def _shared_parts(measured: Mapping[str, PerQuery]) -> list[str]:
    return [part for part in PARTS if all(part in found for found in measured.values())]


def plot_runs(runs: pl.DataFrame, path: Path) -> None:
    """Bars with intervals, one panel a part."""
    from matplotlib.figure import Figure

    parts = runs["targets"].unique(maintain_order=True).to_list()
    many = runs["run"].n_unique() > 3
    figure = Figure(figsize=(3.0 * len(parts) + 0.5, 3.2 if many else 2.6), layout="constrained")
    for axes, part in zip(np.atleast_1d(figure.subplots(1, len(parts))), parts, strict=True):
        rows = runs.filter(pl.col("targets") == part)
        values = rows["ndcg@10"].to_numpy()
        errors = np.stack([values - rows["low"].to_numpy(), rows["high"].to_numpy() - values]).clip(min=0)
        axes.bar(rows["run"].to_list(), values, yerr=errors, color="#2f81f7", width=0.6, capsize=3, ecolor="#c2571a")
        if many:  # their names are too long to stand side by side
            axes.set_xticks(range(len(rows)), rows["run"].to_list(), rotation=30, ha="right", fontsize=8)
        axes.set_title(f"{part} ({rows['queries'][0]:,} queries)", fontsize=9)
        axes.set_ylim(bottom=0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].set_ylabel("NDCG@10, full ranking")
    figure.savefig(path, format="svg", metadata={"Date": None})
