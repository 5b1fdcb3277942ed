"""What the units of a build tell of media, brought to one row an item: equal media have the place of the one stored.

Legend: V new items, F items of a former version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from mmrec.data.build import BuildFolder
from mmrec.data.build_plan import BuildPlan
from mmrec.data.dataset import Dataset
from mmrec.data.error_rows import ERROR_COLUMNS
from mmrec.data.manifest import MEDIA_FIELDS, MEDIA_MODALITIES
from mmrec.media.probe import misnaming

__all__ = ["media_facts"]


def media_facts(
    folder: BuildFolder, plan: BuildPlan, records: list[dict[str, Any]], former: Dataset | None, first_shard: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Columns of items.parquet for the new items, and rows for errors.parquet.

    Args:
        first_shard: number of the first new shard; the others follow in the order of units.
    """
    tables, found = [], []
    for record in records:
        table = pl.read_parquet(folder.units / f"{record['key']}.parquet")
        tables.append(table.with_columns(pl.col(f"{name}.shard") + first_shard for name in MEDIA_MODALITIES))
        first_shard += len(record["shards"])
        found.append(pl.read_parquet(folder.units / f"{record['key']}.errors.parquet"))
    table, faults = pl.concat(tables), pl.concat(found)
    columns, errors = [], [faults]
    for modality in MEDIA_MODALITIES:
        names = [f"{modality}.{name}" for name in ("shard", "offset", "size", "xxh3", "ext", "status")]
        group = table.select(*names, *(f"{modality}.{name}" for name in MEDIA_FIELDS[modality]))
        if modality in plan.owner:
            group, others = _of_owners(plan, modality, group, faults, former)
            errors += [*others, _misnamed(plan, modality, group[f"{modality}.source_ext"])]
        columns.append(group)
    return pl.concat(columns, how="horizontal"), pl.concat(errors)


def _of_owners(
    plan: BuildPlan, modality: str, group: pl.DataFrame, faults: pl.DataFrame, former: Dataset | None
) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """One row an item from one row for each that brings a medium itself, and faults of those that have it too. (V,)"""
    owner, known = plan.owner[modality], plan.known[modality]
    told = {"item_id": plan.item_ids, "path": plan.paths[modality]}
    names = pl.DataFrame(told, schema={"item_id": pl.String, "path": pl.String})
    rows = np.where(owner >= 0, owner, np.arange(len(owner)))
    again = np.flatnonzero((owner >= 0) & (owner != np.arange(len(owner))))
    errors = [_told_again(faults, modality, names[owner[again]], names[again])]
    if former is not None:
        before = former.attributes
        group = pl.concat([before.select(group.columns), group])
        rows = np.where(known >= 0, known, rows + before.height)
        again = np.flatnonzero(known >= 0)
        if len(again):
            partial = pl.read_parquet(former.path / "errors.parquet").filter(pl.col("error") == "PartialMedia")
            owners = before.select("item_id", pl.col(f"{modality}.path").alias("path"))[known[again]]
            errors.append(_told_again(partial, modality, owners, names[again]))
    return group[rows], errors


def _told_again(faults: pl.DataFrame, modality: str, owners: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """What is told of the media of ``owners``, of ``others`` with the same bytes; item_id and path, row by row."""
    pairs = owners.hstack(others.select(pl.all().name.prefix("other_")))
    told = faults.filter((pl.col("modality") == modality) & (pl.col("stage") == "probe"))
    told = pairs.join(told, on="item_id", how="inner", maintain_order="left")
    reason = pl.col("message").str.slice(pl.col("path").str.len_chars())
    told = told.with_columns(pl.col("other_item_id").alias("item_id"), (pl.col("other_path") + reason).alias("message"))
    return told.select(ERROR_COLUMNS)


def _misnamed(plan: BuildPlan, modality: str, exts: pl.Series) -> pl.DataFrame:
    """A row for each file whose name claims another format than it has."""
    paths = pl.Series(plan.paths[modality], dtype=pl.String)
    ending = paths.str.extract(r"\.([^./]*)$").str.to_lowercase()
    rows = []
    for item in (ending != exts).fill_null(False).arg_true().to_list():
        note = misnaming(exts[item], paths[item])
        if note:
            rows.append((plan.item_ids[item], modality, "probe", "MislabelledMedia", f"{paths[item]}: {note}"))
    return pl.DataFrame(rows, schema=dict.fromkeys(ERROR_COLUMNS, pl.String), orient="row")
