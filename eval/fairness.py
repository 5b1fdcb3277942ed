"""Who is served worse, and who is shown less than is taken of theirs?

    python -m eval.fairness RUN --data DATASET --out results/fairness
    python -m eval.fairness RUN --data DATASET --users users.csv --user-column age_group --provider brand --out OUT

Nothing is trained. Users: NDCG@10 by the length of the history (thirds of the queries) and by a column of a table of
users, with the gap between the best and the worst served group and how often groups drawn at random have one as large.
Items: exposure in the lists of ten against the share of the held-out targets, by popularity decile, by which modalities
an item has (is what has no video shown less than it is taken?), and by an attribute such as its provider; intervals are
over users. Written to --out: users.csv, items.csv, fairness.svg.

Measured 2026-11-26 on a run of train/amazon_scientific.py (`features`, seed 0; one thread of a 2-core CPU that other
work shared): no gap between thirds of the users by length of history beyond chance (.130, .113, .113; gap .016, p
.44). Exposure over what is taken rises with popularity: .08 (.07 to .09) for the least popular tenth of the events,
.98 for the fifth, 2.90 (2.59 to 3.27) for the most popular; new items .17 (.10 to .29).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from rich.console import Console

from eval.study import METRIC, run_study, show
from mmrec.errors import ConfigError, DataError, unknown_name
from mmrec.evaluator import score_vectors
from mmrec.list_record import exposure_record
from mmrec.metrics.ranking import ranking_metrics
from mmrec.metrics.slices import item_groups
from mmrec.metrics.user_groups import group_gap
from mmrec.training.evaluation import vectors_of_checkpoint


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """Gaps between groups of users, and exposure of groups of items."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder (its best checkpoint) or checkpoint folder."""
    data: Path
    """The dataset that it was trained on."""
    out: Path
    """Folder for the results; must not exist."""
    users: Path | None = None
    """CSV or Parquet table of users with the columns user_id and --user-column."""
    user_column: str | None = None
    """Column of --users whose values are the groups."""
    provider: str | None = None
    """Attribute column of the items."""


def study(config: Fairness) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of user groups and of item groups.

    Raises: ConfigError or DataError if a column or table is not there or does not fit.
    """
    if (config.users is None) != (config.user_column is None):
        raise ConfigError("--users and --user-column go together: a table, and the column of it that groups the users")
    given = vectors_of_checkpoint(config.checkpoint, config.data, "test")
    queries = given.split.test
    found = score_vectors(given.split, "test", given.users, given.items)
    values = ranking_metrics(found.ranks, queries.target_offsets)[METRIC]
    ids = np.asarray(queries.history.user_ids)
    groupings = {"history length": thirds(queries.history.lengths, queries.user)}
    if config.users is not None and config.user_column is not None:
        groupings[config.user_column] = groups_of_users(config.users, config.user_column, ids)
    rows = []
    for by, (group, names) in groupings.items():
        gap = group_gap(values, queries.user, group, names)
        for name, one in gap["groups"].items():
            rows.append({"by": by, "group": name, **one, "gap": gap["gap"], "p": gap["p_value"]})
    provider = None if config.provider is None else item_groups(given.dataset, config.provider)
    assert found.lists is not None, "vectors give lists"
    exposure = exposure_record(given.dataset, given.split, queries, found.lists, provider)
    items = [{"by": by, "group": name, **one} for by, groups in exposure.items() for name, one in groups.items()]
    return pl.DataFrame(rows), pl.DataFrame(items)


def thirds(lengths: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Users in three groups of about equal size by the longest history with which they are asked."""
    _, place = np.unique(users, return_inverse=True)
    longest = np.zeros(int(place.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(longest, place, lengths)
    edges = np.quantile(longest, [1 / 3, 2 / 3])
    group = np.searchsorted(edges, longest, side="left")
    names = [f"up to {edges[0]:.0f} events", f"up to {edges[1]:.0f}", "more"]
    return group[place], names


def groups_of_users(path: Path, column: str, ids: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The group of each id by a column of a table of users; -1 for those that it lacks."""
    if not path.is_file():
        raise DataError(f"--users {path} is no file; give a CSV or Parquet table with a column user_id")
    table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    for name in ("user_id", column):
        if name not in table.columns:
            raise ConfigError(unknown_name(f"column of {path}", name, table.columns))
    value_of = dict(zip(table["user_id"].cast(str).to_list(), table[column].cast(str).to_list(), strict=True))
    names = sorted({value for value in value_of.values() if value})
    number = {name: place for place, name in enumerate(names)}
    group = np.array([number.get(value_of.get(str(one)) or "", -1) for one in ids], dtype=np.int64)
    if not (group >= 0).any():
        raise DataError(f"none of the users of the test part stands in {path}; give the ids of the interactions")
    return group, names


def write(found: tuple[pl.DataFrame, pl.DataFrame], out: Path, console: Console) -> None:
    """Both tables on the console and as CSV, and a plot of exposure against merit."""
    users, items = found
    users.write_csv(out / "users.csv", float_precision=5)
    items.write_csv(out / "items.csv", float_precision=5)
    _plot(items, out / "fairness.svg")
    show(console, f"Users ({METRIC})", users, digits=4)
    show(console, "Items: exposure / merit", items, digits=3)


def _plot(items: pl.DataFrame, path: Path) -> None:
    from matplotlib.figure import Figure

    shown = items.filter(pl.col("ratio").is_not_null()).reverse()
    figure = Figure(figsize=(6.2, 0.8 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    names = [
        f"{row['by'].removesuffix('_decile').replace('_', ' ')}: {row['group']}" for row in shown.iter_rows(named=True)
    ]
    values, low, high = (shown[name].to_numpy() for name in ("ratio", "low", "high"))
    errors = np.stack([values - low, high - values]).clip(min=0)
    axes.errorbar(values, np.arange(len(shown)), xerr=errors, fmt="o", markersize=4, color="#2f81f7", ecolor="#c2571a")
    axes.axvline(1, color="#7d8590", linewidth=1)
    axes.set_yticks(range(len(shown)), names, fontsize=7)
    axes.set_xlabel("exposure / merit (1: shown as it is taken), 95 % intervals")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    run_study(Fairness, study, write)
