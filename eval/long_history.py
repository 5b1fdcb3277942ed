"""What are long histories worth? Each query with its last 1, 5, 10, 20, 50, 100, 200 events known, and with all.

    python -m eval.long_history RUN --data DATASET --out results/long-history

Nothing is trained. Queries are told apart by the length of their history, and each group is asked with histories cut
to each length below its own; what was seen is filtered in full, so that candidates stay the same. A model that reads no
more than its --max-length gains nothing beyond it. Written to --out: long_history.csv, long_history.svg.

Measured 2026-11-26 on a run of train/amazon_scientific.py (`features`, seed 0; one thread of a 2-core CPU that other
work shared), NDCG@10 with the last event known and with all: histories of 1 to 4 events .114 and .130 (1,252 queries),
5 to 9 .106 and .116 (1,439), with the last 5 .117; 10 to 19 .094 and .097 (221): nothing is gained beyond five.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from rich.console import Console

from eval.histories import keep_last, per_query, plot_lines
from eval.study import measured_row, run_study, show
from mmrec.errors import DataError
from mmrec.training.evaluation import vectors_of_checkpoint

LENGTHS = (1, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True, kw_only=True)
class LongHistory:
    """Histories cut to their last events."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder (its best checkpoint) or checkpoint folder."""
    data: Path
    """The dataset that it was trained on."""
    out: Path
    """Folder for the results; must not exist."""
    min_queries: int = 50
    """Of a group of the table; of fewer the interval says that nothing is known."""


def study(config: LongHistory) -> pl.DataFrame:
    """One row for each group of queries and number of events known.

    Raises: DataError if no group has so many queries.
    """
    given = vectors_of_checkpoint(config.checkpoint, config.data, "test")
    queries, lengths = given.split.test, given.split.test.history.lengths
    rows = []
    for low, high in zip(LENGTHS, (*LENGTHS[1:], None), strict=True):
        group = np.flatnonzero((lengths >= low) & (lengths < (np.inf if high is None else high)))
        if len(group) < config.min_queries:
            continue
        asked = queries.take(group)
        name = f"{low} or more" if high is None else f"{low} to {high - 1}"
        for known in (*(length for length in LENGTHS if length <= low), None):
            history = asked.history if known is None else keep_last(asked.history, known)
            label = "all" if known is None else str(known)
            rows.append({"history": name, "known": label, **measured_row(per_query(given, asked, history), asked.user)})
    if not rows:
        raise DataError(f"no group has {config.min_queries} queries; give a lower --min-queries")
    return pl.DataFrame(rows)


def write(found: pl.DataFrame, out: Path, console: Console) -> None:
    """The table on the console and as CSV, and a plot."""
    found.write_csv(out / "long_history.csv", float_precision=5)
    ticks = [*(str(length) for length in LENGTHS if str(length) in set(found["known"])), "all"]
    plot_lines(found, "known", "history", "last events known", out / "long_history.svg", ticks)
    show(console, "Long histories", found, digits=4)


if __name__ == "__main__":
    run_study(LongHistory, study, write)
