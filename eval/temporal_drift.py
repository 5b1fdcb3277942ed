"""How fast does a model age? The metric week by week after the training data end.

    python -m eval.temporal_drift RUN --data DATASET --out results/drift

Nothing is trained. The run must have been trained with a split by time (--split global_time); its test queries are
told apart by the weeks between the cut and the query. Histories go on: each query knows all earlier events, only the
model is as old as the cut. Beside it popularity of the training events, which ages too. Weeks of fewer than
--min-queries are put together with those after them. Written to --out: temporal_drift.csv, temporal_drift.svg.

Measured 2026-11-26 on the demo's world (`mmrec train id --data demo/dataset --split global_time`, seed 0; one thread
of a 2-core CPU that other work shared), NDCG@10 of the weeks 1, 2, 3 and 4 to 5 after the cut: ids alone .209 (.181 to
.237), .212, .179, .140 (.100 to .182), popularity .034, .028, .025, .014: after a month a third is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from rich.console import Console

from eval.histories import plot_lines
from eval.study import measured_row, run_study, show
from mmrec.baselines.popularity import Popularity
from mmrec.baselines.selection import rank_baseline
from mmrec.errors import DataError
from mmrec.metrics.ranking import ranking_metrics
from mmrec.retrieval import rank_targets
from mmrec.training.evaluation import vectors_of_checkpoint

WEEK = 7 * 86_400


@dataclass(frozen=True, kw_only=True)
class TemporalDrift:
    """A run on the weeks after its training data."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder (its best checkpoint) or checkpoint folder, trained with a split by time."""
    data: Path
    """The dataset that it was trained on."""
    out: Path
    """Folder for the results; must not exist."""
    min_queries: int = 100
    """Of a row of the table."""


def study(config: TemporalDrift) -> pl.DataFrame:
    """One row for each span of weeks, for the model and for popularity.

    Raises: DataError if the run's split is not by time.
    """
    given = vectors_of_checkpoint(config.checkpoint, config.data, "test")
    protocol, queries = given.split.protocol, given.split.test
    if protocol["split"] != "global_time":
        raise DataError(
            f"this run was trained with the split {protocol['split']}, in which the training data have no end; "
            "give one of --split global_time"
        )
    assert queries.times is not None, "a split by time has times"
    popular = Popularity.fit(given.split.train, len(given.items))
    ranks = {
        given.model["name"]: rank_targets(given.users, given.items, queries),
        "popularity": rank_baseline(popular, queries, len(given.items)),
    }
    measured = {name: ranking_metrics(found, queries.target_offsets) for name, found in ranks.items()}
    weeks = (queries.times - protocol["test_from"]) // WEEK
    rows = []
    for first, last in spans(weeks, config.min_queries):
        mine = (weeks >= first) & (weeks <= last)
        label = str(first + 1) if first == last else f"{first + 1}-{last + 1}"
        for name, values in measured.items():
            row = measured_row({metric: found[mine] for metric, found in values.items()}, queries.user[mine])
            rows.append({"weeks": label, "scores": name, **row})
    return pl.DataFrame(rows)


def spans(weeks: np.ndarray, least: int) -> list[tuple[int, int]]:
    """First and last week of spans with at least so many queries; what is left over joins the last one."""
    found: list[tuple[int, int]] = []
    start, count = int(weeks.min()), 0
    for week, number in enumerate(np.bincount(weeks - weeks.min()), start=int(weeks.min())):
        count += number
        if count >= least:
            found.append((start, week))
            start, count = week + 1, 0
    if count:
        found = [*found[:-1], (found[-1][0] if found else start, int(weeks.max()))]
    return found


def write(found: pl.DataFrame, out: Path, console: Console) -> None:
    """The table on the console and as CSV, and a plot."""
    found.write_csv(out / "temporal_drift.csv", float_precision=5)
    plot_lines(found, "weeks", "scores", "weeks after the cut", out / "temporal_drift.svg")
    show(console, "Weeks after the training data", found, digits=4)


if __name__ == "__main__":
    run_study(TemporalDrift, study, write)
