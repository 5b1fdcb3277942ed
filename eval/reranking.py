"""What do variety, caps and fair shares cost, and what do they bring?

    python -m eval.reranking RUN --data DATASET --attribute category --out results/reranking

Nothing is trained. Each test query's best 200 items are reordered as `mmrec recommend --rerank` does: MMR with several
lambdas, caps and fair shares by an attribute of the items. For each: HR@10, NDCG@10 and its 95 % interval, diversity
of lists (by the items' own content, not by the vectors that MMR sees), coverage of the catalogue, and how far the
exposure of the attribute's values is from their share of the catalogue and from that of the held-out targets (half the
sum of absolute differences, 0 to 1). Written to --out: reranking.csv, reranking.svg.

The demo's world, hybrid of seed 0, 1,500 queries, three categories (2-core CPU that other work shared, 2026-11-26):

    order            HR@10   NDCG@10              diversity   gap to catalogue   gap to targets
    plain            .4107   .2298 (.213, .247)   .838        .0151              .0346
    mmr:0.9          .4067   .2296 (.213, .247)   .846        .0099              .0294
    mmr:0.8          .4080   .2298 (.213, .247)   .857        .0036              .0231
    mmr:0.7          .3800   .2152 (.199, .232)   .870        .0054              .0174
    mmr:0.5          .2873   .1695 (.153, .186)   .915        .0154              .0120
    mmr:0.3          .1427   .1133 (.098, .130)   .949        .0153              .0247
    cap:category=5   .4073   .2288 (.212, .246)   .839        .0147              .0292
    cap:category=4   .4007   .2266 (.210, .244)   .840        .0199              .0270
    fair:category    .3953   .2246 (.208, .242)   .842        .0078              .0273

MMR down to .8 is variety for nothing here; below, each step costs more than it brings. Exposure is nearly that of the
catalogue before anything is done, so that fair shares have little to mend: they halve the gap, at a hundredth of HR@10
and more. Coverage is .99 or more in all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from rich.console import Console

from eval.study import METRIC, measured_row, run_study, show
from mmrec.data.splits import Queries
from mmrec.list_record import list_metrics
from mmrec.metrics.exposure import exposure_by_group
from mmrec.metrics.ranking import ranking_metrics
from mmrec.metrics.slices import ItemGroups, item_groups
from mmrec.reranking import Candidates, Reranking, pool_size
from mmrec.retrieval import top_k
from mmrec.training.evaluation import Vectors, vectors_of_checkpoint

LENGTH = 10
LAMBDAS = (0.9, 0.8, 0.7, 0.5, 0.3)
CAPS = (5, 4)


@dataclass(frozen=True, kw_only=True)
class RerankingStudy:
    """Lists of one checkpoint, reordered."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder (its best checkpoint) or checkpoint folder."""
    data: Path
    """The dataset that it was trained on."""
    attribute: str
    """Column of the items for caps, shares and exposure."""
    out: Path
    """Folder for the results; must not exist."""


def study(config: RerankingStudy) -> pl.DataFrame:
    """One row a way of ordering, the plain one first.

    Raises: ConfigError if there is no such column, or it groups nothing.
    """
    given = vectors_of_checkpoint(config.checkpoint, config.data, "test")
    groups = item_groups(given.dataset, config.attribute)
    pool = top_k(given.users, given.items, pool_size(LENGTH), queries=given.split.test)
    ways = [*(f"mmr:{one}" for one in LAMBDAS), *(f"cap:{config.attribute}={one}" for one in CAPS)]
    ways.append(f"fair:{config.attribute}")
    rows = [_measured("plain", pool[0][:, :LENGTH], given, groups)]
    for way in ways:
        rows.append(_measured(way, _reordered(pool, Reranking.parse(way), given, groups), given, groups))
    return pl.DataFrame(rows)


def _reordered(pool: tuple[np.ndarray, np.ndarray], order: Reranking, given: Vectors, groups: ItemGroups) -> np.ndarray:
    """Lists of catalogue indices, -1 where a list ended. (Q, 10)"""
    lists = np.full((len(pool[0]), LENGTH), -1)
    candidates = _candidates(order, given, groups)
    for row, (items, scores) in enumerate(zip(*pool, strict=True)):
        there = items >= 0
        chosen = items[there][order.choose(candidates(items[there], scores[there]), LENGTH)]
        lists[row, : len(chosen)] = chosen
    return lists


def _candidates(order: Reranking, given: Vectors, groups: ItemGroups) -> Callable[[np.ndarray, np.ndarray], Candidates]:
    """As an engine makes them of an export: for shares, items without a value are a group of their own."""
    vectors, group = given.items.float().cpu().numpy(), groups.group
    if order.kind == "fair":
        group = np.where(group < 0, len(groups.names), group)
    counts = np.bincount(group[group >= 0])
    return lambda items, scores: Candidates(
        scores=scores, vectors=vectors[items], group=group[items], shares=counts / counts.sum()
    )


def _measured(name: str, lists: np.ndarray, given: Vectors, groups: ItemGroups) -> dict[str, object]:
    queries = given.split.test
    per_query = ranking_metrics(_ranks(lists, queries, len(given.items)), queries.target_offsets, (LENGTH,))
    shown = list_metrics(given.dataset, given.split, queries, lists, groups)
    exposure = exposure_by_group(
        lists, queries.targets, queries.target_offsets, queries.user, groups.group, groups.names
    ).values()
    row = measured_row(per_query, queries.user)
    del row["queries"]
    return {
        "order": name,
        **row,
        "diversity": shown.get(f"diversity@{LENGTH}"),
        "coverage": shown.get(f"coverage@{LENGTH}"),
        "gap to catalogue": sum(abs(one["exposure"] - one["catalogue"]) for one in exposure) / 2,
        "gap to targets": sum(abs(one["exposure"] - one["merit"]) for one in exposure) / 2,
    }


def _ranks(lists: np.ndarray, queries: Queries, num_items: int) -> np.ndarray:
    """Place of each target in its list; the last of the catalogue if it is not in it. (T,)"""
    query = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    found = lists[query] == queries.targets[:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1), num_items - 1).astype(np.float64)


def write(found: pl.DataFrame, out: Path, console: Console) -> None:
    """The table on the console and as CSV, and what each way costs beside what it brings."""
    found.write_csv(out / "reranking.csv", float_precision=5)
    _plot(found, out / "reranking.svg")
    show(console, "Re-ranking the best 200", found, digits=4)


def _plot(found: pl.DataFrame, path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = [name for name in ("diversity", "coverage", "gap to catalogue") if found[name].null_count() == 0]
    figure = Figure(figsize=(3.4 * len(drawn), 3.0), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(drawn), sharey=True)), drawn, strict=True):
        for row in found.iter_rows(named=True):
            colour = "#c2571a" if row["order"] == "plain" else "#2f81f7"
            axes.plot(row[name], row[METRIC], "o", color=colour, markersize=5)
            axes.annotate(row["order"], (row[name], row[METRIC]), fontsize=6, xytext=(4, 2), textcoords="offset points")
        axes.set_xlabel(name)
        axes.margins(x=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].set_ylabel("NDCG@10")
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    run_study(RerankingStudy, study, write)
