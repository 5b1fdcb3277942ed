"""A new version of a dataset: former items and events, and those that are added. Former shards stay as they are.

Legend: F former items, V items of the new version.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from mmrec.data.dataset import Dataset
from mmrec.data.feature_sets import FeatureRows
from mmrec.data.histories import Histories, first_of_their_kind, numbered, pack_histories, weight_facts
from mmrec.errors import DataError

__all__ = ["append_histories", "check_new_items", "join_features"]


def check_new_items(former: Dataset, items: pl.DataFrame) -> None:
    """Raises: DataError if items cannot be added: known ones, or attributes of types that do not go together."""
    known = set(former.item_ids.tolist())
    again = [item_id for item_id in items["item_id"].to_list() if item_id in known]
    if again:
        raise DataError(
            f"{len(again):,} of the items are in {former.place} already, for example {again[0]!r}; append new items "
            "only, and ingest everything again where old ones have changed"
        )
    for name in items.columns:
        kinds = [table.schema.get(name, pl.Null()) for table in (former.attributes, items)]
        if not _go_together(*kinds):
            raise DataError(
                f"column {name!r} of the new items is of type {kinds[1]}, in {former.place} it is of type {kinds[0]}; "
                "give it the same type"
            )


def _go_together(one: pl.DataType, other: pl.DataType) -> bool:
    """Whether columns of two types make one: of a common type that both are cast to."""
    if one == other or pl.Null in (one, other):
        return True
    if any(kind.is_nested() or kind == pl.Binary for kind in (one, other)):
        return False
    try:
        pl.concat([pl.Series("", [], dtype=kind).to_frame() for kind in (one, other)], how="vertical_relaxed")
    except pl.exceptions.PolarsError:
        return False
    return True


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
                f"--features {name}: {rows.shape[1]} numbers a row, but {vectors.shape[1]} in {former.place}; "
                "give vectors of the same model"
            )
        joined[name] = FeatureRows(new=rows, former=vectors, present=former.present(name))
    for name in new:
        if name not in joined:
            raise DataError(f"--features {name}: {former.place} has no such vectors; ingest everything again with them")
    return joined


def append_histories(former: Dataset, added: Histories, number_of: np.ndarray, name: str) -> Histories:
    """Former histories and added events, as if both had been ingested together, the former ones first in the file.

    Events of one second keep that order: what came with milliseconds is whole seconds in a dataset.

    Args:
        added: of the new interactions, with indices of the new version.
        number_of: new index of each former item, and more. (V,)
        name: of the new interactions, for messages.

    Raises: DataError if the two do not measure order alike.
    """
    sequences = former.sequences
    if sequences.order == "position":
        raise DataError(f"{former.place} orders events by position, which does not go on; ingest everything again")
    before = {
        "items": number_of[sequences.item_idx].astype(np.int32),
        "timestamps": sequences.timestamps,
        "split": sequences.split,
        "weights": sequences.weights,
    }
    before = {column: values for column, values in before.items() if values is not None}
    if before.keys() != added.columns.keys():
        raise DataError(
            f"{name} has {', '.join(sorted(added.columns))} of events, {former.place} has {', '.join(sorted(before))}; "
            "append events that are told in the same way"
        )
    columns = {column: np.concatenate([values, added.columns[column]]) for column, values in before.items()}
    owners = pl.concat([pl.Series(sequences.user_ids, dtype=pl.String), added.user_ids]).cast(pl.Categorical)
    numbers, user_ids = numbered(owners)
    users = np.repeat(numbers, np.concatenate([sequences.lengths, added.lengths]))
    order, first = first_of_their_kind(users, columns.get("timestamps"), columns["items"])
    facts = dict(former.manifest["interactions"])
    left_out = dict(facts["left_out"])
    repeated = int((~first).sum())
    for reason, number in [*added.facts["left_out"].items(), *([("RepeatedEvent", repeated)] if repeated else [])]:
        left_out[reason] = left_out.get(reason, 0) + number
    user_ids, lengths, columns = pack_histories(users, user_ids, columns, order[first[order]])
    facts |= {
        "given": facts["given"] + added.facts["given"],
        "kept": int(lengths.sum()),
        "left_out": left_out,
        "weights": weight_facts(columns.get("weights")),
    }
    return Histories(user_ids=user_ids, lengths=lengths, columns=columns, facts=facts, errors=added.errors)
