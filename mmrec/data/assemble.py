"""From the units of a build to a dataset folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mmrec.data.build import BuildFolder
from mmrec.data.build_plan import BuildPlan
from mmrec.data.dataset import Dataset
from mmrec.data.error_rows import error_rows
from mmrec.data.feature_sets import FeatureRows, write_feature_set
from mmrec.data.histories import Histories, write_histories
from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.data.media_facts import media_facts
from mmrec.data.shards import shard_name
from mmrec.data.writer import Writer
from mmrec.errors import DataError

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
        errors: rows for errors.parquet that reading the tables has given.
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
    errors: pl.DataFrame
    promises_media: bool
    former: Dataset | None = None


def assemble(
    folder: BuildFolder, plan: BuildPlan, records: list[dict[str, Any]], new: NewData, facts: dict[str, Any]
) -> dict[str, int]:
    """Write the dataset beside the units and return its counts.

    Args:
        facts: name, source, licence and build settings, for the manifest.
    """
    writer = Writer(folder.dataset)
    num_former = _share_former_shards(writer, new.former)
    _share_units(writer, folder, records, num_former)
    columns, probed = media_facts(folder, plan, records, new.former, num_former)
    table = _item_table(new, columns)
    item_ids = table["item_id"].to_list()
    errors = [probed, new.errors]
    has_any = np.zeros(table.height, dtype=bool)
    for name in MEDIA_MODALITIES:
        has_any |= table[f"{name}.shard"].is_not_null().to_numpy()
    for name, vectors in new.features.items():
        present, unusable = write_feature_set(writer, name, vectors, new.row_of, item_ids)
        has_any |= present
        errors.append(unusable)
    if new.promises_media:
        nothing = ~has_any
        nothing[new.number_of[: table.height - new.items.height]] = False  # told when they came
        errors.append(_no_modality(table["item_id"].filter(pl.Series(nothing))))
    _write_table(writer, "items.parquet", table)
    num_users = write_histories(new.histories, writer.path("sequences/sequences.arrow"))
    writer.done("sequences/sequences.arrow", num_users)
    former = [] if new.former is None else [pl.read_parquet(new.former.path / "errors.parquet")]
    rows = pl.concat([*former, *errors, new.histories.errors])
    _write_table(writer, "errors.parquet", rows)
    counts = {
        "items": table.height,
        "users": num_users,
        "events": new.histories.num_events,
        "errors": rows.height,
    }
    writer.finish(_manifest(table, new, counts, facts))
    return counts


def next_key(former: Dataset | None) -> int:
    """The first key of items that are added."""
    return 0 if former is None else int(former.attributes["media_key"].to_numpy().max()) + 1


def _share_former_shards(writer: Writer, former: Dataset | None) -> int:
    """Take the shards of the former version as they are, from wherever it lies; how many there are."""
    if former is None:
        return 0
    shards = {name: facts for name, facts in former.manifest["files"].items() if name.startswith("media/")}
    for name, facts in shards.items():
        if former.remote is None:
            writer.share(name, former.path / name, facts)
            continue
        former.remote.fetch(name, writer.path(name))
        writer.done(name, facts["n"])
        if writer.files[name] != facts:
            raise DataError(
                f"{former.place}/{name} is damaged: its sha256 is not that of the manifest; ingest it again"
            )
    return len(shards)


def _share_units(writer: Writer, folder: BuildFolder, records: list[dict[str, Any]], first: int) -> None:
    """Take the units' tars, which stay where they are until the dataset is complete."""
    shards = [shard for record in records for shard in record["shards"]]
    for number, shard in enumerate(shards, start=first):
        facts = {"bytes": shard["bytes"], "n": shard["num_items"], "sha256": shard["sha256"]}
        writer.share(shard_name(number), folder.units / shard["name"], facts)


def _item_table(new: NewData, facts: pl.DataFrame) -> pl.DataFrame:
    """One row an item in the order of item_idx: the user's columns, then places and facts of media."""
    items = new.items.rename({name: f"{modality}.path" for modality, name in new.columns.items()})
    first_key = next_key(new.former)
    keys = pl.Series("media_key", np.arange(first_key, first_key + items.height))
    table = items.select("item_id", keys, pl.exclude("item_id")).hstack(facts.get_columns())
    if new.former is not None:
        table = pl.concat([new.former.attributes.drop("item_idx"), table], how="diagonal_relaxed")
        table = table.select(*(name for name in table.columns if name not in facts.columns), *facts.columns)
    table = table[np.argsort(new.number_of)]
    return table.select(pl.Series("item_idx", np.arange(table.height), dtype=pl.Int32), pl.all())


def _no_modality(item_ids: pl.Series) -> pl.DataFrame:
    message = "the item has no usable text, image, audio, video or vector; only its id tells it apart"
    return error_rows(item_ids, message, modality="all", error="NoModality")


def _write_table(writer: Writer, name: str, table: pl.DataFrame) -> None:
    table.write_parquet(writer.path(name), compression="zstd", statistics=True)
    writer.done(name, table.height)


def _manifest(table: pl.DataFrame, new: NewData, counts: dict[str, int], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything but the files; paths and times stay out, so that equal input gives equal bytes."""
    media = {
        modality: dict(sorted(table[f"{modality}.status"].value_counts().iter_rows())) for modality in MEDIA_MODALITIES
    }
    digest = hashlib.sha256(json.dumps(facts["build"], sort_keys=True).encode()).hexdigest()
    manifest = {
        **facts,
        "counts": {**counts, "media": media},
        "text_columns": new.texts,
        "features": list(new.features),
        "interactions": new.histories.facts,
        "build": {**facts["build"], "hash": digest},
    }
    if new.former is not None:
        former = new.former.manifest
        manifest["text_columns"] = former["text_columns"]
        manifest["appended_to"] = new.former.fingerprint
        manifest["former_builds"] = [*former.get("former_builds", []), former["build"]]
    return manifest
