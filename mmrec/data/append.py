"""A new version of a dataset: former items and events, and those that are added. Former shards stay as they are.

Legend: F former items, V items of the new version.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from mmrec.data.dataset import Dataset
from mmrec.data.feature_sets import FeatureRows
from mmrec.data.interactions import Histories
from mmrec.errors import DataError

__all__ = ["append_histories", "check_new_items", "join_features"]


def check_new_items(former: Dataset, items: pl.DataFrame, text_columns: tuple[str, ...]) -> None:
    """Raises: DataError if items cannot be added: known ones, texts of other columns, a version without keys."""
    if "media_key" not in former.attributes.columns:
        raise DataError(f"{former.path} does not tell the keys of its shards; ingest it again before appending to it")
    texts = former.manifest["build"]["text_columns"]
    if items.height and list(text_columns) != texts:
        raise DataError(
            f"{former.path} makes texts of {','.join(texts)}, the new items of {','.join(text_columns)}; "
            f"give --text-columns {','.join(texts)}"
        )
    known = set(former.item_ids.tolist())
    again = [item_id for item_id in items["item_id"].to_list() if item_id in known]
    if again:
        raise DataError(
            f"{len(again):,} of the items are in {former.path} already, for example {again[0]!r}; append new items "
            "only, and ingest everything again where old ones have changed"
        )


def join_features(former: Dataset, new: dict[str, FeatureRows]) -> dict[str, FeatureRows]:
    """Feature sets of either version, former rows first.

    Raises: DataError if a set has another width than in the former version, or is not known there.
    """
    joined = {}
    for name in former.manifest["features"]:
        vectors = former.features(name)
        rows = new[name].new if name in new else None
        if rows is not None and rows.shape[1] != vectors.shape[1]:
            raise DataError(
                f"--features {name}: {rows.shape[1]} numbers a row, but {vectors.shape[1]} in {former.path}; "
                "give vectors of the same model"
            )
        joined[name] = FeatureRows(new=rows, former=vectors, present=former.present(name))
    for name in new:
        if name not in joined:
            raise DataError(f"--features {name}: {former.path} has no such vectors; ingest everything again with them")
    return joined


def append_histories(former: Dataset, added: Histories, number_of: np.ndarray, path: Path) -> Histories:
    """Former histories and added events, as if both had been ingested together, the former ones first in the file.

    Events of one second keep that order: what came with milliseconds is whole seconds in a dataset.

    Args:
        added: of the new interactions, with indices of the new version.
        number_of: new index of each former item, and more. (V,)
        path: of the new interactions, for messages.

    Raises: DataError if the two do not measure order alike.
    """
    sequences = former.sequences
    if sequences.order == "position":
        raise DataError(f"{former.path} orders events by position, which does not go on; ingest everything again")
    columns = {
        "user_id": pl.Series(np.repeat(sequences.user_ids, sequences.lengths), dtype=pl.Categorical),
        "item_idx": pl.Series(number_of[sequences.item_idx], dtype=pl.Int32),
    }
    if sequences.timestamps is not None:
        columns["time"] = pl.Series(sequences.timestamps, dtype=pl.Int64)
    if sequences.split is not None:
        columns["split"] = pl.Series(sequences.split, dtype=pl.Int8)
    events = pl.DataFrame(columns)
    facts = dict(former.manifest["interactions"])
    if added.events.columns != events.columns:
        raise DataError(
            f"{path} has the columns {', '.join(added.events.columns)}, {former.path} has {', '.join(events.columns)}; "
            "append events that are told in the same way"
        )
    together = pl.concat([events, added.events])
    same = [name for name in ("user_id", "item_idx", "time") if name in columns]
    first = together.select(pl.struct(same).is_first_distinct()).to_series()
    keys = [name for name in ("user_id", "time") if name in columns]
    left_out = {name: facts["left_out"].get(name, 0) + number for name, number in added.facts["left_out"].items()}
    repeated = int((~first).sum())
    if repeated:
        left_out["RepeatedEvent"] = left_out.get("RepeatedEvent", 0) + repeated
    facts["left_out"] = {**facts["left_out"], **left_out}
    facts["given"] += added.facts["given"]
    kept = together.filter(first).sort(keys, maintain_order=True)
    facts["kept"] = kept.height
    return Histories(events=kept, facts=facts, errors=added.errors)
