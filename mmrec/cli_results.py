"""The commands that come after training: evaluate, baselines, explain."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from mmrec.data.splits import SplitName
from mmrec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mmrec.baselines.ranked import RankedBaseline
    from mmrec.data.dataset import Dataset
    from mmrec.data.splits import Split
    from mmrec.evaluator import Part, RankResult
    from mmrec.training.evaluation import Vectors

__all__ = ["baselines", "evaluate", "explain"]

Positional = tyro.conf.Positional


def evaluate(
    checkpoint: Positional[Path | None] = None,
    *,
    data: Path,
    out: Path,
    embeddings: Path | None = None,
    part: Literal["test", "valid"] = "test",
    blend: bool = False,
    dim: int | None = None,
    baselines: bool = True,
    sasrec: bool = False,
    category: str | None = None,
    provider: str | None = None,
    overwrite: bool = False,
) -> None:
    """Rank the whole catalogue for every held-out event; write metrics.json, ranks.parquet and report.html.

    The split is the one that the model was trained with. Of a study of `mmrec tune` one trial may read the test part.

    Args:
        checkpoint: run folder (its best checkpoint) or checkpoint folder.
        data: dataset folder.
        out: folder for the results; must not exist.
        embeddings: an export to evaluate instead of a checkpoint: its vectors and its user encoder alone. With a
            CHECKPOINT too, its users against the export's vectors, if it was trained to be compatible with them.
        part: test, or valid to look without touching the test part.
        blend: add what sequential rules (item-kNN for sets) say to the model's scores, weighted by validation; with
            --embeddings, the blend that was exported.
        dim: first dimensions of the vectors that count, a width of --model.matryoshka; the default is all.
        baselines: fit and rank the baselines (`mmrec baselines`) on the same queries.
        sasrec: also train SASRec on item ids alone (preset id, same split; minutes to hours) as a baseline.
        category: attribute column of the items: slices by its values, and whether lists have the user's mix of them.
        provider: attribute column of the items: who is shown more, or less, than is taken of theirs.
        overwrite: replace OUT.
    """
    from rich.console import Console

    from mmrec.evaluator import baseline_records, make_record, queries_of, write_record
    from mmrec.metrics.slices import item_groups
    from mmrec.report import summary_table, verdict
    from mmrec.report_examples import curves_of, make_examples
    from mmrec.training.telemetry import peak_memory

    if out.exists() and not overwrite:
        raise DataError(f"{out} exists already; give another --out, or --overwrite to replace it")
    command = _command_line(
        "evaluate", checkpoint, data=data, out=out, embeddings=embeddings, part=part, blend=blend, dim=dim,
        baselines=baselines, sasrec=sasrec, category=category, provider=provider,
    )  # fmt: skip
    given = _vectors(checkpoint, embeddings, data, part, blend=blend, dim=dim)
    groups = {
        name: item_groups(given.dataset, column)
        for name, column in (("category", category), ("provider", provider)) if column
    }  # fmt: skip
    with _timed(given.cost, "rank_s"):
        result = _blended(given, embeddings, part) if blend else _plain(given, part)
    others: dict[str, RankedBaseline] = {}
    if baselines or sasrec:
        with _timed(given.cost, "baselines_s"):
            others |= _rank_baselines(given.dataset, given.split, part) if baselines else {}
            if sasrec:
                others |= _rank_sasrec(data, given.split_name, given.split_quantile, part, given.refit_of is not None)
    given.cost.update(peak_memory(given.items.device))
    record = make_record(
        given.dataset, given.split, part, result, baselines=baseline_records(given.split, part, others),
        cost=given.cost, model=given.model, query_time=given.query_time, **groups,
    )  # fmt: skip
    record["reproduce"] = command
    assert result.lists is not None, "vectors give lists"
    examples = make_examples(
        given.dataset, given.split, queries_of(given.split, part), result.ranks, result.lists, given.items,
        shares=given.shares,
    )  # fmt: skip
    examples["curves"] = curves_of(checkpoint)
    write_record(out, record, given.dataset, given.split, part, result, overwrite=overwrite, examples=examples)
    print(verdict(record))
    Console().print(summary_table(record))
    print(f"report: {out / 'report.html'}")


def _vectors(
    checkpoint: Path | None, embeddings: Path | None, data: Path, part: Part, *, blend: bool, dim: int | None
) -> Vectors:
    """Of a checkpoint, of an export, or of a checkpoint's users and an export's items."""
    from mmrec.training.evaluation import vectors_of_checkpoint, vectors_of_export

    if embeddings is None:
        if checkpoint is None:
            raise ConfigError("give a CHECKPOINT, or --embeddings EXPORT, or both")
        return vectors_of_checkpoint(checkpoint, data, part, dim=dim)
    if dim is not None:
        raise ConfigError("an export has the dimensions that it was exported with; --dim is for checkpoints")
    if blend and checkpoint is not None:
        raise ConfigError("--blend belongs to the export's own model; leave it out, or the CHECKPOINT")
    return vectors_of_export(embeddings, data, part, users_of=checkpoint)


def _plain(given: Vectors, part: Part) -> RankResult:
    from mmrec.evaluator import score_vectors

    return score_vectors(given.split, part, given.users, given.items)


def _blended(given: Vectors, embeddings: Path | None, part: Part) -> RankResult:
    """The vectors with counts: those that validation chooses, or that the export carries."""
    from mmrec.blend import Blend
    from mmrec.evaluator import score_blend
    from mmrec.export_folder import ExportFolder

    blended = given.blend() if embeddings is None else Blend.load(ExportFolder.open(embeddings).path / "model")
    given.model.update(name=f"{given.model['name']} + {blended.settings.baseline}", blend=asdict(blended.settings))
    return score_blend(given.split, part, given.users, given.items, blended)


def baselines(
    data: Path,
    out: Path | None = None,
    split: SplitName = "auto",
    split_quantile: float = 0.9,
    part: Literal["test", "valid"] = "test",
    sasrec: bool = False,
    overwrite: bool = False,
) -> None:
    """Popularity, item-kNN, EASE, ALS, sequential rules, content and their mixture, settings chosen on validation.

    What the data do not allow is named with the reason before anything is fitted. The last column tells the seconds
    that fitting, with all settings that were tried, and ranking took.

    Args:
        data: dataset folder.
        out: folder for the results: metrics.json of all baselines, and a folder for each that `mmrec compare` takes.
        split: auto (the split that the interactions bring, else leave_one_out), leave_one_out, global_time, user_folds,
            sessions, provided; options behind a colon, such as global_time:date=2018-05-01,targets=last,seen=kept or
            user_folds:folds=5,fold=0 (mmrec/data/split_spec.py).
        split_quantile: global_time only.
        part: test or valid.
        sasrec: also train SASRec on item ids alone (preset id, same split; minutes to hours); a run that
            `mmrec train id` has made of this data is taken as it is.
        overwrite: replace OUT.
    """
    from rich.console import Console

    from mmrec.baselines.selection import left_out
    from mmrec.data.dataset import Dataset
    from mmrec.data.splits import make_split
    from mmrec.evaluator import baseline_records, write_baselines
    from mmrec.report import baselines_table

    if out is not None and out.exists() and not overwrite:
        raise DataError(f"{out} exists already; give another --out, or --overwrite to replace it")
    dataset = Dataset.open(data)
    chosen = make_split(dataset.sequences, dataset.num_items, split, quantile=split_quantile)
    for name, reason in left_out(dataset, chosen).items():
        print(f"left out: {name}: {reason}")
    ranked = _rank_baselines(dataset, chosen, part)
    if sasrec:
        ranked |= _rank_sasrec(data, split, split_quantile, part, False)
    Console().print(baselines_table(baseline_records(chosen, part, ranked)))
    if out is not None:
        write_baselines(out, dataset, chosen, part, ranked, overwrite=overwrite)
        print(f"written: {out / 'metrics.json'}; for mmrec compare: {out / 'best_mixture'} or any other beside it")


def _rank_baselines(dataset: Dataset, split: Split, part: Part) -> dict[str, RankedBaseline]:
    from mmrec.baselines.ranked import rank_baselines
    from mmrec.evaluator import queries_of

    return rank_baselines(dataset, split, queries_of(split, part))


def _rank_sasrec(data: Path, split: SplitName, quantile: float, part: Part, refit: bool) -> dict[str, RankedBaseline]:
    from mmrec.training.sasrec_baseline import SASREC, rank_sasrec

    return {SASREC: rank_sasrec(data, split, quantile, part, refit=refit)}


def explain(checkpoint: Positional[Path], data: Path, items: tuple[str, ...]) -> None:
    """Which modality made an item's vector: shares of the fusion's weights, and how far it moves without each.

    Args:
        checkpoint: run folder (its best checkpoint) or checkpoint folder.
        data: the dataset that it was trained on.
        items: item ids.
    """
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from mmrec.explanation import explain_items
    from mmrec.training.evaluation import open_checkpoint

    _, dataset, model, catalog = open_checkpoint(checkpoint, data)
    chosen = np.array([dataset.item_index(item) for item in items])
    found = explain_items(model, catalog, chosen)
    weights = model.item_encoder.fusion.weights_are
    caption = f"share: {weights}\nmoved: 1 - cosine to the vector that the item would have without the modality"
    table = Table(caption=caption, caption_justify="left")
    for heading in ("item", "title", "modality", "share", "moved"):
        table.add_column(heading, justify="right" if heading in ("share", "moved") else "left")
    for row, item in enumerate(chosen):
        columns = np.flatnonzero(found.present[row])
        for place, column in enumerate(columns):
            first = [str(dataset.item_ids[item]), dataset.titles[item]] if place == 0 else ["", ""]
            values = [f"{values[row, column]:.2f}" for values in (found.share, found.left_out)]
            table.add_row(*first, found.modalities[column], *values, end_section=place == len(columns) - 1)
        if not len(columns):
            table.add_row(str(dataset.item_ids[item]), dataset.titles[item], "none: the learned vector", "", "")
    Console().print(table)


@contextlib.contextmanager
def _timed(cost: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds that the block took, into the ledger."""
    started = time.perf_counter()
    yield
    cost[name] = time.perf_counter() - started


def _command_line(command: str, *places: Path | None, **options: Path | str | int | None) -> str:
    """A command as one types it; options that are False or None are left out, but for --no-baselines."""
    words = ["mmrec", command, *(str(place) for place in places if place is not None)]
    for name, value in options.items():
        if value is True and name != "baselines":
            words.append(f"--{name}")
        elif value is False and name == "baselines":
            words.append("--no-baselines")
        elif not isinstance(value, bool) and value is not None:
            words += [f"--{name}", str(value)]
    return shlex.join(words)
