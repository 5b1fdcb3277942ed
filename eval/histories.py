"""What the studies of histories share: other histories for the same questions, a model's metrics on them, one plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from eval.study import METRIC
from mmrec.data.sequences import Sequences, ragged_range
from mmrec.data.splits import Queries
from mmrec.errors import DataError
from mmrec.inference import encode_histories
from mmrec.metrics.ranking import ranking_metrics
from mmrec.retrieval import rank_targets
from mmrec.training.evaluation import Vectors

__all__ = ["at_least", "keep_last", "per_query", "plot_lines"]

_BESIDE = 0.07


def at_least(queries: Queries, length: int) -> Queries:
    """The queries whose history has so many events.

    Raises: DataError if there are none.
    """
    rows = np.flatnonzero(queries.history.lengths >= length)
    if not len(rows):
        longest = int(queries.history.lengths.max(initial=0))
        raise DataError(f"no query has a history of {length} events or more (the longest has {longest}); ask for less")
    return queries.take(rows)


def keep_last(history: Sequences, most: int) -> Sequences:
    """The last ``most`` events of each history."""
    kept = np.minimum(history.lengths, most)
    return history.gather(np.arange(len(history)), kept, ragged_range(history.offsets[1:] - kept, kept))


def per_query(given: Vectors, queries: Queries, known: Sequences) -> dict[str, np.ndarray]:
    """Metrics of each query when the model knows the histories ``known``; what is filtered is the whole history."""
    users = encode_histories(given.user_encoder, given.items, known, query_times=queries.times)
    return ranking_metrics(rank_targets(users, given.items, queries), queries.target_offsets)


def plot_lines(
    rows: pl.DataFrame, x: str, line: str | None, label: str, path: Path, ticks: Sequence[str] | None = None
) -> None:
    """NDCG@10 with intervals over ``x``, a line for each value of ``line``; without it points: ``x`` is no scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 3.2), layout="constrained")
    axes = figure.subplots()
    names = ticks or [str(value) for value in rows[x].unique(maintain_order=True)]
    parts = list(rows.group_by(line, maintain_order=True)) if line else [(("",), rows)]
    for number, (name, part) in enumerate(parts):
        beside = _BESIDE * (number - (len(parts) - 1) / 2)  # intervals of one place do not lie over each other
        places = [names.index(str(value)) + beside for value in part[x]]
        values = part[METRIC].to_numpy()
        errors = np.stack([values - part["low"].to_numpy(), part["high"].to_numpy() - values]).clip(min=0)
        style: dict[str, Any] = {"marker": "o", "markersize": 4, "capsize": 3, "label": str(name[0])}
        axes.errorbar(places, values, yerr=errors, linestyle="-" if line else "none", linewidth=1.5, **style)
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 8 else 0)
    axes.set_xlabel(label)
    axes.set_ylabel("NDCG@10, full ranking")
    axes.set_ylim(bottom=0)
    if line:
        axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})
