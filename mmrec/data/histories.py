"""Events in the order of users and time, packed by user, and their file.

Legend: N events, U users.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mmrec.data.sequences import pack

__all__ = ["Histories", "core", "first_of_their_kind", "numbered", "pack_histories", "weight_facts", "write_histories"]


@dataclass(kw_only=True)
class Histories:
    """Events packed by user, oldest first, and what was left out on the way.

    Attributes:
        user_ids, lengths: of each user with an event, sorted by id, and how many events. (U,)
        columns: "items" int32; where the data has them "timestamps" or "positions" int64, "weights" float32, "split"
            int8. (N,) each
        facts: for the manifest: order, tie-break, unit of time, number of events given, kept and left out by reason.
        errors: rows for errors.parquet.
    """

    user_ids: pl.Series
    lengths: np.ndarray
    columns: dict[str, np.ndarray]
    facts: dict[str, Any]
    errors: pl.DataFrame

    @property
    def num_events(self) -> int:
        return len(self.columns["items"])


def numbered(ids: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """The place of each of the categorical ``ids`` among the different ones in the order of their letters, and these.

    Returns: int32 (N,), strings (U,)
    """
    distinct = ids.unique().sort()
    codes = distinct.to_physical().to_numpy()
    rank_of = np.zeros(int(codes.max(initial=0)) + 1, dtype=np.int32)
    rank_of[codes] = np.arange(len(codes), dtype=np.int32)
    return pl.Series(rank_of).gather(ids.to_physical()).to_numpy(), distinct.cast(pl.String)


def first_of_their_kind(users: np.ndarray, at: np.ndarray | None, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of events by user and time, those of one moment as they come, and which are no repetition.

    Args:
        users: number of each event's user. (N,)
        at: its time; None where there is none. (N,)
        items: its item. (N,)

    Returns:
        order: rows by user and time. (N,)
        first: False for a row whose user, time and item an earlier row has. bool (N,)
    """
    keys = [users] if at is None else [users, at]
    order = np.lexsort(keys[::-1])
    # Only events of one user and moment can be repetitions.
    alike = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        ordered = key[order]
        alike &= ordered[1:] == ordered[:-1]
    tied = np.zeros(len(order), dtype=bool)
    tied[order[1:][alike]] = tied[order[:-1][alike]] = True
    rows = np.flatnonzero(tied)
    same = pl.DataFrame({str(number): key[rows] for number, key in enumerate([*keys, items])})
    first = np.ones(len(order), dtype=bool)
    first[rows] = same.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    return order.astype(np.uint32 if len(order) < 2**32 else np.int64), first


def core(users: np.ndarray, items: np.ndarray, keep: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """Of the events ``keep`` those that are left when users and items with too few go until there is none. bool (N,)

    Source: the k-core by which the data sets of the field are made (Seidman 1983).
    """
    least = [(codes, number) for codes, number in ((users, min_user), (items, min_item)) if number > 1]
    while least:
        enough = keep.copy()
        for codes, number in least:
            enough &= (np.bincount(codes[keep], minlength=int(codes.max(initial=0)) + 1) >= number)[codes]
        if enough.sum() == keep.sum():
            break
        keep = enough
    return keep


def pack_histories(
    users: np.ndarray, user_ids: pl.Series, columns: dict[str, np.ndarray], order: np.ndarray
) -> tuple[pl.Series, np.ndarray, dict[str, np.ndarray]]:
    """``user_ids``, ``lengths`` and ``columns`` of :class:`Histories`.

    Args:
        users: number of each event's user, ascending along ``order``.
        user_ids: by number; users without an event are left out.
        columns: emptied on the way, so that no column lies in memory twice for long.
        order: rows to take.
    """
    counts = np.bincount(users[order], minlength=len(user_ids))
    there = np.flatnonzero(counts)
    rows, packed = pl.Series(order), {}
    for name in list(columns):
        # numpy would make a copy of the rows, of eight bytes each.
        packed[name] = pl.Series(columns.pop(name)).gather(rows).to_numpy()
    return user_ids.gather(there), counts[there], packed


def weight_facts(weights: np.ndarray | None) -> dict[str, float] | None:
    """For the manifest."""
    return None if weights is None or not len(weights) else {"min": float(weights.min()), "max": float(weights.max())}


def write_histories(histories: Histories, path: Path) -> int:
    """Write one row a user as an Arrow file of one batch, which maps into memory without a copy; return the users."""
    offsets = pa.array(pack(histories.lengths), pa.int64())
    columns: dict[str, pa.Array] = {"user_id": pa.array(histories.user_ids.to_list(), pa.string())}
    for name in ("items", "timestamps", "positions", "split", "weights"):
        if name in histories.columns:
            columns[name] = pa.LargeListArray.from_arrays(offsets, pa.array(histories.columns[name]))
    batch = pa.RecordBatch.from_pydict(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
        file.write_batch(batch)
    return len(histories.user_ids)
