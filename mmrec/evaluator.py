"""From vectors to the evaluation record: exact full ranking, slices, intervals, and baselines under the same rules.

The evaluator knows vectors, ranks and datasets; where the vectors come from is the caller's business.

Legend: Q queries, T targets of all queries, V items of the catalogue, D model width.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from mmrec.baselines.ranked import RankedBaseline, rank_baselines
from mmrec.blend import Blend
from mmrec.data.dataset import Dataset
from mmrec.data.splits import Queries, Split
from mmrec.errors import DataError
from mmrec.list_record import exposure_record, list_metrics
from mmrec.metrics.bootstrap import LEVEL, NUM_RESAMPLES, bootstrap_intervals
from mmrec.metrics.chance import chance_metrics
from mmrec.metrics.ranking import ranking_metrics
from mmrec.metrics.slices import ItemGroups, num_candidates, restrict, target_masks, training_events
from mmrec.report import render_report
from mmrec.retrieval import rank_targets, rank_targets_from_scores, top_k, top_k_from_scores

__all__ = [
    "Part",
    "RankResult",
    "baseline_records",
    "make_record",
    "run_baselines",
    "score_blend",
    "score_vectors",
    "write_baselines",
    "write_record",
]

Part = Literal["valid", "test"]

SCHEMA_VERSION = 1
LIST_LENGTH = 10

RULES = {
    "ranking": "full: every item of the catalogue, or of it what the split says under candidates; targets always",
    "cold": "items and users without a training event stay, as candidates, as targets and as queries",
    "ties": "rank = items that score higher + half of those that score the same",
    "aggregation": "per query, then mean over queries; recall = hits / number of targets",
    "ndcg": "binary gains, ideal over min(k, number of targets)",
    "selection": "settings are chosen on the validation part alone",
}


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """What ranking gave.

    Attributes:
        ranks: 0-based rank of each target, half-integers where scores tie. (T,)
        lists: the 10 best items of each query, -1 where none was left, or None. (Q, 10)
    """

    ranks: np.ndarray
    lists: np.ndarray | None = None


def score_vectors(
    split: Split,
    part: Part,
    user_vectors: np.ndarray | torch.Tensor,
    item_vectors: np.ndarray | torch.Tensor,
    *,
    lists: bool = True,
) -> RankResult:
    """Rank the whole catalogue by inner product for each query of a part.

    Args:
        user_vectors: row q belongs to query q. (Q, D)
        item_vectors: row v belongs to item_idx v. (V, D)
        lists: whether the best items of each query are looked for too.

    Raises:
        DataError: if the number of vectors is not that of the queries or items, or a score is not finite.
    """
    queries = queries_of(split, part)
    users, items = torch.as_tensor(user_vectors), torch.as_tensor(item_vectors)
    for what, given, wanted in (
        ("user vectors", len(users), len(queries)),
        ("item vectors", len(items), len(split.train_items)),
    ):
        if given != wanted:
            raise DataError(f"{given:,} {what} for {wanted:,} rows; export and evaluate on one dataset and split")
    ranks = rank_targets(users, items, queries)
    return RankResult(ranks=ranks, lists=top_k(users, items, LIST_LENGTH, queries=queries)[0] if lists else None)


def score_blend(
    split: Split, part: Part, user_vectors: torch.Tensor, item_vectors: torch.Tensor, blend: Blend
) -> RankResult:
    """:func:`score_vectors` with a blend's bonus in the scores."""
    queries, num_items = queries_of(split, part), len(item_vectors)
    scores = blend.score_block(user_vectors, item_vectors, queries.history)
    ranks = rank_targets_from_scores(scores, queries, num_items=num_items)
    lists, _ = top_k_from_scores(scores, len(queries), LIST_LENGTH, num_items=num_items, queries=queries)
    return RankResult(ranks=ranks, lists=lists)


def queries_of(split: Split, part: Part) -> Queries:
    return split.test if part == "test" else split.valid


def run_baselines(
    dataset: Dataset, split: Split, part: Part = "test", *, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Fit every baseline on the training events, rank the queries of ``part``, measure: :func:`baseline_records`."""
    return baseline_records(split, part, rank_baselines(dataset, split, queries_of(split, part), progress=progress))


def baseline_records(split: Split, part: Part, ranked: dict[str, RankedBaseline]) -> dict[str, dict[str, Any]]:
    """What the record says of baselines.

    Returns:
        by name: "settings", "validation_ndcg@10", "metrics", "confidence_interval", "cost" and "slices":
        {"cold_items", ...}; and "random", the expectation of a uniformly random ranking.
    """
    queries = queries_of(split, part)
    results: dict[str, dict[str, Any]] = {"random": _chance(split, queries)}
    masks = target_masks(split, queries, {})[""]
    for name, one in ranked.items():
        results[name] = {
            "settings": one.settings,
            "validation_ndcg@10": one.validation,
            **_measure(one.ranks, queries),
            "slices": {slice_name: _measure(one.ranks, queries, mask) for slice_name, mask in masks.items()},
            "cost": one.cost,
        }
    return results


def make_record(
    dataset: Dataset,
    split: Split,
    part: Part,
    result: RankResult,
    *,
    baselines: dict[str, dict[str, Any]] | None = None,
    cost: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    query_time: Literal["unknown", "known"] = "unknown",
    category: ItemGroups | None = None,
    provider: ItemGroups | None = None,
) -> dict[str, Any]:
    """The evaluation record: what `metrics.json` holds.

    Args:
        baselines: from :func:`run_baselines` for the same split and part; None leaves only "random".
        cost: the caller's cost ledger, such as seconds, device, peak memory.
        model: what made the vectors, such as its name, checkpoint and hash.
        query_time: whether the model was told when each item was taken; part of the protocol.
        category: an attribute of items for slices and calibration.
        provider: an attribute of items whose exposure is compared with what its items merit.
    """
    queries = queries_of(split, part)
    present = {name: dataset.present(name) for name in dataset.modalities}
    groups = target_masks(split, queries, present, category)
    slices: dict[str, Any] = {}
    for group, masks in groups.items():
        intervals = ("hr@10", "ndcg@10") if group else None
        measured = {name: _measure(result.ranks, queries, mask, intervals=intervals) for name, mask in masks.items()}
        if group:
            slices[group] = measured
        else:
            slices |= measured
    lists, exposure = {}, {}
    if result.lists is not None:
        lists = list_metrics(dataset, split, queries, result.lists, category)
        exposure = exposure_record(dataset, split, queries, result.lists, provider)
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": _protocol(dataset, split, part, query_time),
        "model": model or {},
        "data": _data_counts(dataset, split, queries),
        **_measure(result.ranks, queries),
        "slices": slices,
        "baselines": baselines or {"random": _chance(split, queries)},
        "beyond_accuracy": lists,
        "exposure": exposure,
        "cost": cost or {},
    }


def write_record(
    out: Path,
    record: dict[str, Any],
    dataset: Dataset,
    split: Split,
    part: Part,
    result: RankResult,
    *,
    overwrite: bool = False,
    examples: dict[str, Any] | None = None,
) -> Path:
    """Write metrics.json, ranks.parquet and report.html into a new folder, complete or not at all.

    Args:
        examples: what the report shows of single items and users; kept as examples.json.

    Raises:
        DataError: if ``out`` exists and ``overwrite`` is not set.
    """
    with _new_folder(out, overwrite) as folder:
        _write_json(folder / "metrics.json", record)
        _rank_table(dataset, split, queries_of(split, part), result.ranks).write_parquet(folder / "ranks.parquet")
        if examples is not None:
            (folder / "examples.json").write_text(json.dumps(examples) + "\n")
        (folder / "report.html").write_text(render_report(record, examples), encoding="utf-8")
    return out


def write_baselines(
    out: Path,
    dataset: Dataset,
    split: Split,
    part: Part,
    ranked: dict[str, RankedBaseline],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a new folder, complete or not at all: metrics.json with :func:`baseline_records` and their protocol, and
    for each baseline a folder of its name with metrics.json and ranks.parquet, as :func:`write_record` has them.

    Raises:
        DataError: if ``out`` exists and ``overwrite`` is not set.
    """
    queries, records = queries_of(split, part), baseline_records(split, part, ranked)
    common = {
        "schema_version": SCHEMA_VERSION,
        "protocol": _protocol(dataset, split, part, "unknown"),
        "data": _data_counts(dataset, split, queries),
    }
    with _new_folder(out, overwrite) as folder:
        _write_json(folder / "metrics.json", {**common, "baselines": records})
        for name, one in ranked.items():
            (folder / name).mkdir()
            model = {"name": name, "settings": one.settings, "validation_ndcg@10": one.validation}
            nothing_more = {"baselines": {"random": records["random"]}, "beyond_accuracy": {}, "exposure": {}}
            record = {**common, "model": model, **records[name], **nothing_more}
            _write_json(folder / name / "metrics.json", record)
            _rank_table(dataset, split, queries, one.ranks).write_parquet(folder / name / "ranks.parquet")
    return out


@contextmanager
def _new_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder that takes the place of ``out`` in the end, unless something is raised."""
    if out.exists() and not overwrite:
        raise DataError(f"{out} exists already; give another --out, or --overwrite to replace it")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.tmp-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        if out.exists():
            shutil.rmtree(out)
        os.rename(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n")


def _measure(
    ranks: np.ndarray, queries: Queries, mask: np.ndarray | None = None, *, intervals: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """Metrics of all queries, or of the targets in ``mask``; intervals of the metrics named, else of all."""
    users, target_offsets = queries.user, queries.target_offsets
    if mask is not None:
        ranks, target_offsets, rows = restrict(ranks, target_offsets, mask)
        users = users[rows]
    per_query = ranking_metrics(ranks, target_offsets)
    measured: dict[str, Any] = {
        "num_queries": len(target_offsets) - 1,
        "num_targets": len(ranks),
        "metrics": {name: float(values.mean()) for name, values in per_query.items()},
    }
    chosen = per_query if intervals is None else {name: per_query[name] for name in intervals}
    measured["confidence_interval"] = {
        "level": LEVEL,
        "method": f"percentile bootstrap over users, {NUM_RESAMPLES} resamples, seed 0",
        **{name: list(bounds) for name, bounds in bootstrap_intervals(chosen, users).items()},
    }
    return measured


def _chance(split: Split, queries: Queries) -> dict[str, Any]:
    candidates = num_candidates(queries, len(split.train_items))
    num_targets = np.diff(queries.target_offsets)

    def expected(mask: np.ndarray) -> dict[str, Any]:
        kept = np.bincount(np.repeat(np.arange(len(queries)), num_targets)[mask], minlength=len(queries))
        rows = kept > 0
        values = chance_metrics(candidates[rows], kept[rows])
        return {
            "num_queries": int(rows.sum()),
            "num_targets": int(mask.sum()),
            "metrics": {name: float(value.mean()) for name, value in values.items()},
        }

    slices = {name: expected(mask) for name, mask in target_masks(split, queries, {})[""].items()}
    return {**expected(np.ones(len(queries.targets), dtype=bool)), "slices": slices}


def _protocol(dataset: Dataset, split: Split, part: Part, query_time: str) -> dict[str, Any]:
    protocol = {
        "dataset": dataset.fingerprint,
        "split": split.protocol,
        "part": part,
        "num_candidates": dataset.num_items,
        "query_time": query_time,
        **RULES,
    }
    digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()
    return {**protocol, "dataset_name": dataset.name, "hash": digest[:16]}


def _data_counts(dataset: Dataset, split: Split, queries: Queries) -> dict[str, Any]:
    faults = pl.read_parquet(dataset.path / "errors.parquet")
    counted = faults.group_by("modality", "stage", "error").len("count").sort("count", "modality", descending=True)
    learned, asked = split.train.timestamps, queries.times
    future = None
    if learned is not None and asked is not None:
        later = len(learned) - np.searchsorted(np.sort(learned), asked, side="right")
        future = float(later.mean() / len(learned))
    return {
        "items": dataset.num_items,
        "users": dataset.num_users,
        "interactions": len(dataset.sequences.item_idx),
        "training_events": len(split.train.item_idx),
        "queries": len(queries),
        "targets": len(queries.targets),
        "cold_items": int((~split.train_items).sum()),
        "training_after_the_question": future,
        "items_with": {name: int(dataset.present(name).sum()) for name in dataset.modalities},
        "errors": counted.to_dicts(),
    }


def _rank_table(dataset: Dataset, split: Split, queries: Queries, ranks: np.ndarray) -> pl.DataFrame:
    """One row a target, with the slices that it belongs to."""
    query = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    columns: dict[str, Any] = {
        "query": query,
        "user_id": np.asarray(queries.history.user_ids)[query],
        "item_id": dataset.item_ids[queries.targets],
        "rank": ranks,
        "cold_item": ~split.train_items[queries.targets],
        "history_length": queries.history.lengths[query],
        "training_events": training_events(split)[queries.targets],
    }
    columns |= {f"has_{name}": dataset.present(name)[queries.targets] for name in dataset.modalities}
    return pl.DataFrame(columns)
