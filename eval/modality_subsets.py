"""What each modality is worth: one checkpoint, every subset of its modalities at evaluation time.

    python -m eval.modality_subsets demo/run-content --data demo/dataset --out results/demo-subsets

Nothing is trained: the model is shown the whole catalogue through each of the 2^M subsets in turn, histories too, and
ranks it for every held-out event as `mmrec evaluate` does. A subset that hides all that an item has leaves it the
vector of an item that has nothing. Written to --out: subsets.csv and subsets.svg.

Measured 2026-11-26 on a run of train/amazon_scientific.py (`features`, seed 0; one thread of a 2-core CPU that other
work shared), HR@10/NDCG@10 of 2,928 queries: all .1868/.1204, without ids .1687/.1109, without the image .1790/.1116,
without the text .1492/.0937; text alone .1441/.0903, image alone .1096/.0713, ids alone .0666/.0380. New items are 20
targets, too few to tell; what finds them is the text (3 with everything, 4 by text alone, none by the image alone).
The demo's world stands in README.md.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import tyro
from rich.console import Console
from rich.table import Table

from eval.study import run_study
from mmrec.data.dataset import Dataset
from mmrec.data.splits import Split
from mmrec.errors import ConfigError
from mmrec.evaluator import make_record, score_vectors
from mmrec.inference import encode_histories, encode_views, use_feature_caches
from mmrec.model import Recommender
from mmrec.test_reads import claim_test_read
from mmrec.training.evaluation import open_checkpoint, stored_split

MAX_MODALITIES = 8
# Of the vectors of all views that are held at once; the media are read once for each such group of subsets.
VIEW_BYTES = 2 << 30
METRICS = ("hr@10", "ndcg@10")


@dataclass(frozen=True, kw_only=True)
class ModalitySubsets:
    """Evaluate one checkpoint under every subset of its modalities."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder (its best checkpoint) or checkpoint folder."""
    data: Path
    """The dataset that it was trained on."""
    out: Path
    """Folder for the results; must not exist."""


def study(config: ModalitySubsets) -> pl.DataFrame:
    """One row a subset: modalities, HR@10 and NDCG@10 overall and on new items, and what chance has there.

    Raises: ConfigError if the model has more modalities than subsets can be gone through; DataError if another trial of
        the study that it belongs to has been tested.
    """
    folder, dataset, model, catalog = open_checkpoint(config.checkpoint, config.data)
    claim_test_read(folder)
    names = model.inputs.modalities
    if len(names) > MAX_MODALITIES:
        raise ConfigError(f"the model has {len(names)} modalities; this study goes through at most {MAX_MODALITIES}")
    split = stored_split(folder, dataset)
    use_feature_caches(model, catalog, fill=False)
    subsets = [subset for size in range(len(names), -1, -1) for subset in itertools.combinations(names, size)]
    rows = []
    at_once = max(1, VIEW_BYTES // (4 * dataset.num_items * model.config.item_encoder.dim))
    for start in range(0, len(subsets), at_once):
        group = subsets[start : start + at_once]
        views = encode_views(model, catalog, np.arange(dataset.num_items), group)
        rows += [_row(dataset, split, model, subset, items) for subset, items in zip(group, views, strict=True)]
    return pl.DataFrame(rows)


def _row(
    dataset: Dataset, split: Split, model: Recommender, subset: tuple[str, ...], items: torch.Tensor
) -> dict[str, Any]:
    users = encode_histories(model.user_encoder, items, split.test.history, query_times=split.test.times)
    result = score_vectors(split, "test", users, items, lists=False)
    record = make_record(dataset, split, "test", result)
    cold = record["slices"].get("cold_items", {"metrics": dict.fromkeys(METRICS)})["metrics"]
    chance = record["baselines"]["random"]
    cold_chance = chance["slices"].get("cold_items", chance)["metrics"]["hr@10"]
    return {
        "modalities": " + ".join(subset) or "nothing",
        "size": len(subset),
        **{metric: record["metrics"][metric] for metric in METRICS},
        **{f"{metric} new items": cold[metric] for metric in METRICS},
        "x chance on new items": None if cold["hr@10"] is None else cold["hr@10"] / cold_chance,
    }


def table(rows: pl.DataFrame) -> Table:
    """Subsets from all modalities to none, the best of each size first."""
    found = Table(title="What the model was shown of each item", title_justify="left")
    found.add_column("modalities")
    for name in rows.columns[2:]:
        found.add_column(name, justify="right")
    for row in rows.sort("size", "ndcg@10", descending=True).iter_rows(named=True):
        values = [row[name] for name in rows.columns[2:]]
        digits = [".4f"] * (len(values) - 1) + [".1f"]
        cells = [
            "no targets" if value is None else f"{value:{form}}" for value, form in zip(values, digits, strict=True)
        ]
        found.add_row(row["modalities"], *cells)
    return found


def plot(rows: pl.DataFrame, path: Path) -> None:
    """NDCG@10 by subset, overall and on new items."""
    from matplotlib.figure import Figure

    shown = rows.sort("size", "ndcg@10", descending=[False, False])
    figure = Figure(figsize=(7.5, 1.0 + 0.26 * len(shown)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(shown))
    axes.barh(places, shown["ndcg@10"].to_list(), height=0.62, color="#2f81f7", label="all targets")
    cold = [value if value is not None else np.nan for value in shown["ndcg@10 new items"].to_list()]
    axes.plot(cold, places, "o", color="#c2571a", markersize=5, label="targets that are new items")
    axes.set_yticks(places, shown["modalities"].to_list())
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel("NDCG@10 on the test part, full ranking")
    axes.legend(frameon=False, loc="lower right")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def write(rows: pl.DataFrame, out: Path, console: Console) -> None:
    """The table on the console and as CSV, and the plot."""
    rows.write_csv(out / "subsets.csv", float_precision=5)
    plot(rows, out / "subsets.svg")
    console.print(table(rows))


if __name__ == "__main__":
    run_study(ModalitySubsets, study, write)
