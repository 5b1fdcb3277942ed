"""How much must be known? The metric as users and items come to have 0, 1, 2, 5, 10 interactions.

    python -m eval.cold_start RUN --data DATASET --out results/cold-start

Nothing is trained. Users: the same test queries, those with 10 events or more, are asked with the last 0, 1, 2, 5, 10
and all events of their histories known (what was seen is filtered in full, so that candidates stay the same). Items:
all test queries, told apart by the training events of their targets. Beside the model, the same for popularity, which
knows nothing of users. Written to --out: cold_start.csv, users.svg, items.svg.

Measured 2026-11-26 on a run of train/amazon_scientific.py (`features`, seed 0; one thread of a 2-core CPU that other
work shared), NDCG@10. Users with 0, 1, 2, 5, 10 and all events known: .000, .098, .105, .093, .096, .099 (popularity
.030; 237 queries, intervals .03 to each side): one event is worth as much as all, and without any popularity has to
stand in. Items with 0, 1, 2, 3 to 5, 6 to 10 and more training events: .062 (20 targets, .000 to .137), .000 (90),
.028, .049, .067, .209; popularity finds none with 10 or fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from rich.console import Console

from eval.histories import at_least, keep_last, per_query, plot_lines
from eval.study import measured_row, run_study, show
from mmrec.baselines.popularity import Popularity
from mmrec.baselines.selection import rank_baseline
from mmrec.data.splits import Queries
from mmrec.metrics.ranking import ranking_metrics
from mmrec.metrics.slices import restrict, training_events
from mmrec.retrieval import rank_targets
from mmrec.training.evaluation import Vectors, vectors_of_checkpoint

KNOWN = (0, 1, 2, 5, 10)
# Bounds of the training events of a target, both included.
EVENTS = ((0, 0), (1, 1), (2, 2), (3, 5), (6, 10), (11, None))


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """The ramp from nothing known to much."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder (its best checkpoint) or checkpoint folder."""
    data: Path
    """The dataset that it was trained on."""
    out: Path
    """Folder for the results; must not exist."""
    min_history: int = 10
    """Events that the users of the first ramp have at least."""


def study(config: ColdStart) -> pl.DataFrame:
    """One row for each number known, of users and of items, for the model and for popularity.

    Raises: DataError if no query has a history long enough.
    """
    given = vectors_of_checkpoint(config.checkpoint, config.data, "test")
    asked = at_least(given.split.test, config.min_history)
    popular = Popularity.fit(given.split.train, len(given.items))
    flat = measured_row(_popularity(popular, asked, len(given.items)), asked.user)
    rows = []
    for known in (*KNOWN, None):
        history = asked.history if known is None else keep_last(asked.history, known)
        label = "all" if known is None else str(known)
        for name, row in (
            (given.model["name"], measured_row(per_query(given, asked, history), asked.user)), ("popularity", flat),
        ):  # fmt: skip
            rows.append({"of": "users", "known": label, "scores": name, **row})
    return pl.DataFrame([*rows, *_items(given, popular)])


def _items(given: Vectors, popular: Popularity) -> list[dict]:
    queries, num_items = given.split.test, len(given.items)
    events = training_events(given.split)[queries.targets]
    ours = rank_targets(given.users, given.items, queries)
    ranks = {given.model["name"]: ours, "popularity": rank_baseline(popular, queries, num_items)}
    rows = []
    for low, high in EVENTS:
        mask = (events >= low) & (events <= (np.inf if high is None else high))
        label = f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"
        for name, all_ranks in ranks.items() if mask.any() else ():
            kept, offsets, asked = restrict(all_ranks, queries.target_offsets, mask)
            row = measured_row(ranking_metrics(kept, offsets), queries.user[asked])
            rows.append({"of": "items", "known": label, "scores": name, **row})
    return rows


def _popularity(popular: Popularity, queries: Queries, num_items: int) -> dict[str, np.ndarray]:
    return ranking_metrics(rank_baseline(popular, queries, num_items), queries.target_offsets)


def write(found: pl.DataFrame, out: Path, console: Console) -> None:
    """The table on the console and as CSV, and a plot of each ramp."""
    found.write_csv(out / "cold_start.csv", float_precision=5)
    for of, label in (("users", "events of the user known"), ("items", "training events of the target")):
        plot_lines(found.filter(pl.col("of") == of), "known", "scores", label, out / f"{of}.svg")
    show(console, "Cold start", found, digits=4)


if __name__ == "__main__":
    run_study(ColdStart, study, write)
