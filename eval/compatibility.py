"""Old and new models beside each other: may the new one's users be matched with the old one's index?

    python -m eval.compatibility OLD_RUN NEW_RUN --data DATASET --out results/compatibility

Nothing is trained. Test queries are ranked with the users of either model, made of that model's own item vectors, in
the index of either; and with the new model's user encoder reading histories from the old index. A new model is backward
compatible if its users find at least as much in the old index as the old model's do (Shen et al. 2020); then users can
be renewed first and the index behind them. Written to --out: compatibility.csv, differences.csv, compatibility.svg.

Measured 2026-11-26 on Amazon Scientific (preset `features`, 2-core CPU that other work shared), HR@10/NDCG@10 of 2,928
queries; old: seed 0; new: seed 1, trained apart or with `--compatible-with` an export of the old one:

| users and index | apart | compatible |
|---|---|---|
| old | .1868/.1204 | .1868/.1204 |
| new in old index | .0065/.0032 | .1861/.1212 |
| new from and in old index | .1779/.1157 | .1895/.1229 |
| old in new index | .0038/.0013 | .1803/.1167 |
| new | .1895/.1195 | .1865/.1208 |
| mean cosine of an item's two vectors | .013 | .953 |

Trained apart, users and index are strangers (chance: HR@10 .006). Trained to be compatible, no difference to the old
model alone holds at 5 % after Holm's correction, and the new model on its own loses nothing. Staying near alone,
without the users' part of the objective, left the new users .0097 NDCG behind in the old index.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import tyro
from rich.console import Console

from eval.comparison import comparisons, per_query, plot_runs, run_rows
from eval.study import run_study, show
from mmrec.inference import encode_histories
from mmrec.training.evaluation import vectors_of_checkpoint

# Whose user encoder, reading whose item vectors, in whose index.
PAIRS = {
    "old": ("old", "old", "old"),
    "new in old index": ("new", "new", "old"),
    "new from and in old index": ("new", "old", "old"),
    "old in new index": ("old", "old", "new"),
    "new": ("new", "new", "new"),
}


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """Users and index of two models, crossed."""

    old: tyro.conf.Positional[Path]
    """Run folder or checkpoint folder of the model whose export is deployed."""
    new: tyro.conf.Positional[Path]
    """Of the model that is to follow it."""
    data: Path
    """The dataset of both."""
    out: Path
    """Folder for the results; must not exist."""


def study(config: Compatibility) -> tuple[pl.DataFrame, pl.DataFrame, float]:
    """Metrics of each pair, differences to the old model on its own, and the mean cosine of an item's two vectors."""
    old = vectors_of_checkpoint(config.old, config.data, "test")
    new = vectors_of_checkpoint(config.new, config.data, "test")
    queries = old.split.test
    pairs = {}
    for name, (users, histories, index) in PAIRS.items():
        models = {"old": old, "new": new}
        encoder, read = models[users].user_encoder, models[histories].items
        vectors = encode_histories(encoder, read, queries.history, query_times=queries.times)
        pairs[name] = per_query(old.split, vectors, models[index].items)
    first, *others = pairs
    tested = comparisons(pairs, [(other, first) for other in others])
    return run_rows(pairs), tested, float((old.items * new.items).sum(1).mean())


def write(found: tuple[pl.DataFrame, pl.DataFrame, float], out: Path, console: Console) -> None:
    """The tables on the console and as CSV, and a plot."""
    rows, tested, cosine = found
    rows.write_csv(out / "compatibility.csv", float_precision=5)
    tested.write_csv(out / "differences.csv", float_precision=5)
    plot_runs(rows, out / "compatibility.svg")
    show(console, f"Users and index of two models (mean cosine of an item's two vectors {cosine:.3f})", rows, digits=4)
    show(console, "Differences in NDCG@10", tested, digits=4)


if __name__ == "__main__":
    run_study(Compatibility, study, write)
