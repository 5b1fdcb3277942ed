"""Results folders beside each other: the same queries under several runs, with paired tests.

Legend: Q queries.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mmrec.errors import ConfigError, DataError, unknown_name
from mmrec.metrics.bootstrap import bootstrap_intervals
from mmrec.metrics.paired import compare_paired, holm
from mmrec.metrics.ranking import check_metric, metric_of
from mmrec.metrics.slices import restrict

__all__ = ["Comparison", "compare_results", "read_record", "read_results"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What several runs earn on the same queries.

    Attributes:
        runs: one row a run and metric: "run", "metric", "mean", "low", "high" (95 % bootstrap over users).
        pairs: one row a pair and metric: "pair" (first - second), "metric", "difference", "low", "high",
            "p_permutation", "p_wilcoxon", and "p_holm", the first of the two after Holm's correction for all rows.
        num_queries, num_users: on which all this rests.
        protocol: of all the runs.
    """

    runs: pl.DataFrame
    pairs: pl.DataFrame
    num_queries: int
    num_users: int
    protocol: dict[str, Any]


def compare_results(folders: Sequence[Path], metrics: Sequence[str], part: str = "all") -> Comparison:
    """Compare results folders of `mmrec evaluate` by some metrics.

    Args:
        folders: at least two; the last parts of their paths name the runs.
        metrics: such as "ndcg@10", at any cutoff.
        part: "all", or a slice: cold_items, warm_items, has_<modality>, missing_<modality>.

    Raises:
        ConfigError: if there are fewer than two runs, one is given twice, or a metric or slice is not known.
        DataError: if a folder holds no results, the protocols differ, or no target is in the slice.
    """
    for metric in metrics:
        check_metric(metric)
    if len(folders) < 2:
        raise ConfigError(f"{len(folders)} results folder given; comparing needs two or more")
    names = _names(folders)
    read = [read_results(folder) for folder in folders]
    protocol = _one_protocol(names, [record["protocol"] for record, _ in read])
    tables = [ranks for _, ranks in read]
    keys = ["query", "user_id", "item_id"]
    for name, ranks in zip(names[1:], tables[1:], strict=True):
        if not ranks.select(keys).equals(tables[0].select(keys)):
            raise DataError(
                f"{names[0]} and {name} do not hold the same queries in the same order; evaluate both again"
            )
    kept = _mask(tables[0], part)
    query = tables[0]["query"].to_numpy()
    offsets = np.append(np.flatnonzero(np.diff(query, prepend=-1)), len(query))
    user = np.unique(tables[0]["user_id"].to_numpy(), return_inverse=True)[1][offsets[:-1]]
    values: dict[tuple[str, str], np.ndarray] = {}
    rows = np.arange(len(user))
    for name, ranks in zip(names, tables, strict=True):
        mine, mine_offsets, rows = restrict(ranks["rank"].to_numpy(), offsets, kept)
        values |= {(name, metric): metric_of(metric, mine, mine_offsets) for metric in metrics}
    users = user[rows]
    return Comparison(
        runs=_runs(names, metrics, values, users),
        pairs=_pairs(names, metrics, values, users),
        num_queries=len(users),
        num_users=len(np.unique(users)),
        protocol=protocol,
    )


def read_results(folder: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """The record and the ranks of a results folder.

    Raises: DataError if it is none.
    """
    record = read_record(folder)
    if not (folder / "ranks.parquet").is_file():
        raise DataError(f"{folder} holds no ranks.parquet; give a folder made by `mmrec evaluate`")
    ranks = pl.read_parquet(folder / "ranks.parquet")
    if "query" not in ranks.columns:
        raise DataError(f"{folder} is of an mmrec that did not number its queries; evaluate again")
    return record, ranks


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a results folder.

    Raises: DataError if it is none, or that of all baselines together.
    """
    if not (folder / "metrics.json").is_file():
        raise DataError(f"{folder} holds no metrics.json; give a folder made by `mmrec evaluate`")
    record = json.loads((folder / "metrics.json").read_text())
    if "metrics" not in record:
        raise DataError(
            f"{folder} holds the results of all baselines; give those of one, such as {folder / 'best_mixture'}"
        )
    return record


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell all of them apart."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ConfigError("a results folder is given twice; give each run once")
    for length in itertools.count(1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths differ somewhere")


def _one_protocol(names: Sequence[str], protocols: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = protocols[0]
    for name, other in zip(names[1:], protocols[1:], strict=True):
        if other["hash"] == first["hash"]:
            continue
        differ = [
            key for key in first | other if key not in ("hash", "dataset_name") and first.get(key) != other.get(key)
        ]
        told = "; ".join(f"{key}: {_short(first.get(key))} against {_short(other.get(key))}" for key in differ)
        raise DataError(
            f"{names[0]} and {name} were evaluated by different protocols ({told}), so their numbers cannot be "
            "compared; evaluate both on one dataset, split and part"
        )
    return first


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items() if key != "hash")
    return str(value)[:24]


def _mask(ranks: pl.DataFrame, part: str) -> np.ndarray:
    known = {"all": np.ones(len(ranks), dtype=bool)}
    cold = ranks["cold_item"].to_numpy()
    known |= {"cold_items": cold, "warm_items": ~cold}
    for column in ranks.columns:
        if column.startswith("has_"):
            has = ranks[column].to_numpy()
            known |= {column: has, f"missing_{column.removeprefix('has_')}": ~has}
    if part not in known:
        raise ConfigError(unknown_name("slice", part, known))
    if not known[part].any():
        raise DataError(f"no target is in the slice {part!r}, so there is nothing to compare; leave --slice out")
    return known[part]


def _runs(names: Sequence[str], metrics: Sequence[str], values: dict, users: np.ndarray) -> pl.DataFrame:
    rows = []
    for name, metric in itertools.product(names, metrics):
        low, high = bootstrap_intervals({metric: values[name, metric]}, users)[metric]
        mean = float(values[name, metric].mean())
        rows.append({"run": name, "metric": metric, "mean": mean, "low": low, "high": high})
    return pl.DataFrame(rows)


def _pairs(names: Sequence[str], metrics: Sequence[str], values: dict, users: np.ndarray) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for (first, second), metric in itertools.product(itertools.combinations(names, 2), metrics):
        found = compare_paired(values[first, metric], values[second, metric], users)
        rows.append(
            {
                "pair": f"{first} - {second}", "metric": metric, "difference": found.difference, "low": found.low,
                "high": found.high, "p_permutation": found.p_value, "p_wilcoxon": found.p_wilcoxon,
            }
        )  # fmt: skip
    return pl.DataFrame(rows).with_columns(p_holm=pl.Series(holm([row["p_permutation"] for row in rows])))
