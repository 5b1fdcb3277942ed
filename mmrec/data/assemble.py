"""From the units of a build to a dataset folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mmrec.data.build import ERROR_COLUMNS, BuildFolder, unit_facts
from mmrec.data.build_plan import BuildPlan
from mmrec.data.dataset import Dataset
from mmrec.data.feature_sets import FeatureRows, write_feature_set
from mmrec.data.interactions import Histories, write_histories
from mmrec.data.manifest import MEDIA_MODALITIES, Writer
from mmrec.data.shards import shard_name
from mmrec.data.units import Fault

__all__ = ["NewData", "assemble", "next_key"]


@dataclass(frozen=True, kw_only=True)
class NewData:
    """What the user's tables say, beside a former version of the dataset if there is one. V items, F of them former.

    Attributes:
        items: the new rows of the item table; row i has the key F_keys + i. (V - F)
        number_of: item_idx of the former items, then of the new ones. (V,)
        row_of: of each item_idx, its row in the vectors: former item_idx, or F + row of the user's table. (V,)
        columns: modality -> column with paths.
        texts: columns that make up an item's text.
        features: vectors by name.
        promises_media: whether items without any medium, text or vector are worth a row of errors.parquet.
        former: the version that the items are added to.
    """

    items: pl.DataFrame
    number_of: np.ndarray
    row_of: np.ndarray
    histories: Histories
    columns: dict[str, str]
    texts: list[str]
    features: dict[str, FeatureRows]
    promises_media: bool
    former: Dataset | None = None


def assemble(
    out: Path, folder: BuildFolder, plan: BuildPlan, records: list[dict[str, Any]], new: NewData, facts: dict[str, Any]
) -> dict[str, int]:
    """Write the dataset folder and return its counts.

    Args:
        facts: name, source, licence and build settings, for the manifest.
    """
    columns, errors = unit_facts(folder, plan, records)
    writer = Writer(out)
    try:
        writer.root.mkdir(parents=True)
        num_shards = _share_shards(writer, new.former)
        _adopt_shards(writer, folder, records, num_shards)
        table = _item_table(new, columns, num_shards)
        has_any = np.zeros(table.height, dtype=bool)
        for name in MEDIA_MODALITIES:
            has_any |= table[f"{name}.shard"].is_not_null().to_numpy()
        for name, vectors in new.features.items():
            present, faults = write_feature_set(writer, name, vectors, new.row_of, table["item_id"].to_list())
            has_any |= present
            errors.extend(faults)
        if new.promises_media:
            is_new = np.ones(table.height, dtype=bool)
            is_new[new.number_of[: table.height - new.items.height]] = False
            errors.extend(_no_modality(table["item_id"].to_list(), has_any | ~is_new))
        _write_table(writer, "items.parquet", table)
        num_users = write_histories(new.histories, writer.path("sequences/sequences.arrow"))
        writer.done("sequences/sequences.arrow", num_users)
        errors.extend(new.histories.errors)
        faults = pl.DataFrame(errors, schema=dict.fromkeys(ERROR_COLUMNS, pl.String))
        if new.former is not None:
            faults = pl.concat([pl.read_parquet(new.former.path / "errors.parquet"), faults])
        _write_table(writer, "errors.parquet", faults)
        counts = {
            "items": table.height,
            "users": num_users,
            "events": new.histories.events.height,
            "errors": faults.height,
        }
        writer.commit(_manifest(table, new, counts, facts))
    finally:
        shutil.rmtree(writer.root, ignore_errors=True)
    return counts


def _share_shards(writer: Writer, former: Dataset | None) -> int:
    """Take the shards of the former version as they are; how many there are."""
    if former is None:
        return 0
    shards = {name: facts for name, facts in former.manifest["files"].items() if name.startswith("media/")}
    for name, facts in shards.items():
        writer.share(name, former.path / name, facts)
    return len(shards)


def _adopt_shards(writer: Writer, folder: BuildFolder, records: list[dict[str, Any]], first: int) -> None:
    """Move the units' tars; one that is killed in between finds them missing and makes them anew."""
    stored = [record for record in records if record["shard"] is not None]
    for number, record in enumerate(stored):
        facts = {"bytes": record["bytes"], "n": record["num_stored"], "sha256": record["sha256"]}
        writer.adopt(shard_name(first + number), folder.units / record["shard"], facts)


def _item_table(new: NewData, facts: pl.DataFrame, num_shards: int) -> pl.DataFrame:
    """One row an item in the order of item_idx: the user's columns, then places and facts of media."""
    facts = facts.with_columns(pl.col(f"{name}.shard") + num_shards for name in MEDIA_MODALITIES)
    items = new.items.rename({name: f"{modality}.path" for modality, name in new.columns.items()})
    first_key = next_key(new.former)
    keys = pl.Series("media_key", np.arange(first_key, first_key + items.height))
    table = items.select("item_id", keys, pl.exclude("item_id")).hstack(facts.get_columns())
    if new.former is not None:
        table = pl.concat([new.former.attributes.drop("item_idx"), table], how="diagonal_relaxed")
        table = table.select(*(name for name in table.columns if name not in facts.columns), *facts.columns)
    table = table[np.argsort(new.number_of)]
    return table.select(pl.Series("item_idx", np.arange(table.height), dtype=pl.Int32), pl.all())


def next_key(former: Dataset | None) -> int:
    """The first key of items that are added."""
    return 0 if former is None else int(former.attributes["media_key"].to_numpy().max()) + 1


def _no_modality(item_ids: list[str], has_any: np.ndarray) -> list[Fault]:
    fault = {
        "modality": "all",
        "stage": "ingest",
        "error": "NoModality",
        "message": "the item has no usable text, image, audio, video or vector; only its id tells it apart",
    }
    return [{"item_id": item_ids[item_idx], **fault} for item_idx in np.flatnonzero(~has_any).tolist()]


def _write_table(writer: Writer, name: str, table: pl.DataFrame) -> None:
    table.write_parquet(writer.path(name), compression="zstd", statistics=True)
    writer.done(name, table.height)


def _manifest(table: pl.DataFrame, new: NewData, counts: dict[str, int], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything but the files; paths and times stay out, so that equal input gives equal bytes."""
    media = {
        modality: dict(sorted(table[f"{modality}.status"].value_counts().iter_rows())) for modality in MEDIA_MODALITIES
    }
    digest = hashlib.sha256(json.dumps(facts["build"], sort_keys=True).encode()).hexdigest()
    former = {} if new.former is None else {"appended_to": new.former.fingerprint}
    return {
        **facts,
        **former,
        "counts": {**counts, "media": media},
        "text_columns": new.texts if new.former is None else new.former.manifest["text_columns"],
        "features": list(new.features),
        "interactions": new.histories.facts,
        "build": {**facts["build"], "hash": digest},
    }
