"""How good item vectors are, seen without users: do they collapse, and do modalities of one item find each other?

    python -m eval.embedding_quality demo/run-content --data demo/dataset --out results/demo-quality

For the whole item and for each modality alone (the model is shown nothing else): effective rank (directions in which
vectors differ), uniformity (the lower, the more evenly spread), and, for each pair of modalities over the items that
have both, alignment (mean squared distance) and cross-modal retrieval: find an item's vector by the one modality among
those by the other. New items, which training has not seen, are told apart. Written to --out: spread.csv, pairs.csv.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
import tyro
from rich.console import Console

from eval.study import run_study, show
from mmrec.inference import encode_views, use_feature_caches
from mmrec.metrics.embedding_quality import alignment, cross_modal_retrieval, effective_rank, uniformity
from mmrec.training.evaluation import open_checkpoint, stored_split


@dataclass(frozen=True, kw_only=True)
class EmbeddingQuality:
    """Look at the vectors of one checkpoint."""

    checkpoint: tyro.conf.Positional[Path]
    """Run folder (its best checkpoint) or checkpoint folder."""
    data: Path
    """The dataset that it was trained on."""
    out: Path
    """Folder for the results; must not exist."""


def study(config: EmbeddingQuality) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Spread of each view of the items, and how pairs of modalities find each other."""
    folder, dataset, model, catalog = open_checkpoint(config.checkpoint, config.data)
    use_feature_caches(model, catalog, fill=False)
    names = [name for name in model.inputs.modalities if name != "item_id"]
    everything = np.arange(dataset.num_items)
    views = encode_views(model, catalog, everything, [model.inputs.modalities, *([name] for name in names)])
    present = {name: catalog.present[:, model.inputs.modalities.index(name)] for name in names}
    spread = []
    for name, vectors in zip(["all", *names], views, strict=True):
        rows = vectors if name == "all" else vectors[present[name]]
        spread.append(
            {
                "shown": name, "items": len(rows), "effective rank": effective_rank(rows),
                "of": vectors.shape[1], "uniformity": uniformity(rows),
            }
        )  # fmt: skip
    known = stored_split(folder, dataset).train_items
    pairs = []
    for (first, query), (second, candidate) in itertools.permutations(zip(names, views[1:], strict=True), 2):
        both = present[first] & present[second]
        for which, those in (("known", both & known), ("new", both & ~known)):
            items = torch.from_numpy(np.flatnonzero(those))
            if len(items) >= 2:
                found = cross_modal_retrieval(query[items], candidate[items], cutoffs=(10,))
                row = {"from": first, "to": second, "items": which, "number": len(items)}
                pairs.append(row | {"alignment": alignment(query[items], candidate[items])} | found)
    return pl.DataFrame(spread), pl.DataFrame(pairs)


def write(found: tuple[pl.DataFrame, pl.DataFrame], out: Path, console: Console) -> None:
    """Both tables on the console and as CSV."""
    spread, pairs = found
    spread.write_csv(out / "spread.csv", float_precision=5)
    pairs.write_csv(out / "pairs.csv", float_precision=5)
    show(console, "Spread", spread, digits=3)
    show(console, "Modalities that find each other", pairs, digits=3)


if __name__ == "__main__":
    run_study(EmbeddingQuality, study, write)
