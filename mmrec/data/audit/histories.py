"""``sequences.arrow``: users, their events in order, and the split that the data brings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmrec.data.audit.wording import first_of, named
from mmrec.data.histories import weight_facts

__all__ = ["HistoryTable", "history_problems", "read_histories"]

_AGAIN = "ingest the data again"
_FILE = "sequences/sequences.arrow"
# The column of times that each order needs.
_TIMES = {"timestamp": "timestamps", "position": "positions", "none": None}
_PARTS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class HistoryTable:
    """The file as it stands: one entry a user, events packed. U users, N events."""

    user_ids: list[str | None]
    offsets: np.ndarray  # (U + 1,)
    columns: dict[str, np.ndarray]  # items, and what there is of timestamps, positions, split, weights; each (N,)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_events(self) -> int:
        return len(self.columns["items"])


def read_histories(path: Path) -> tuple[HistoryTable | None, list[str]]:
    """The table, or None and why it cannot be judged."""
    file = path / _FILE
    if not file.is_file():
        return None, []  # said by the check of files
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        table.validate(full=True)  # damaged offsets would have Arrow read anywhere
    except (pa.ArrowException, OSError) as error:
        return None, [f"{file} cannot be read as Arrow ({' '.join(str(error).split())[:100]}); {_AGAIN}"]
    lacking = [name for name in ("user_id", "items") if name not in table.column_names]
    if lacking:
        return None, [f"{file} lacks the columns {first_of(lacking)}; {_AGAIN}"]
    if table["items"].num_chunks != 1:
        return None, [f"{file} holds {table['items'].num_chunks} batches, it must hold one; {_AGAIN}"]
    offsets, columns = None, {}
    for name in ("items", "timestamps", "positions", "split", "weights"):
        if name not in table.column_names:
            continue
        chunk: Any = table[name].chunk(0)
        if not isinstance(chunk, pa.LargeListArray | pa.ListArray) or chunk.null_count or chunk.values.null_count:
            return None, [f"{file}: column {name!r} is no list of numbers without gaps; {_AGAIN}"]
        own = chunk.offsets.to_numpy()
        if offsets is None:
            offsets = own
        if not np.array_equal(own, offsets) or own[0] != 0 or own[-1] != len(chunk.values):
            return None, [f"{file}: the lists of column {name!r} are not as long as those of 'items'; {_AGAIN}"]
        columns[name] = chunk.values.to_numpy()
    assert offsets is not None
    return HistoryTable(user_ids=table["user_id"].to_pylist(), offsets=offsets, columns=columns), []


def history_problems(table: HistoryTable, manifest: dict[str, Any], num_items: int | None) -> Iterator[str]:
    """Ids, items out of range, weights, times that descend, a split out of order, an order that its column lacks."""
    yield from _ids(table.user_ids)
    items = table.columns["items"]
    if num_items is not None:
        outside = (items < 0) | (items >= num_items)
        if outside.any():
            yield (
                f"{_FILE}: {int(outside.sum()):,} events of {_users(table, outside)} name an item outside of "
                f"0 to {num_items - 1:,}, for example {int(items[outside][0])}; {_AGAIN}"
            )
    yield from _weights(table, manifest["interactions"].get("weights"))
    order = manifest["interactions"].get("order")
    if order not in _TIMES:
        yield f"manifest.json: the order is {order!r}, it must be one of {', '.join(_TIMES)}; {_AGAIN}"
        return
    there = [name for name in ("timestamps", "positions") if name in table.columns]
    wanted = [name for name in (_TIMES[order],) if name]
    if there != wanted:
        yield f"{_FILE}: order {order!r} needs {wanted or 'no column of times'}, there is {there or 'none'}; {_AGAIN}"
        return
    times = table.columns[wanted[0]] if wanted else None
    if times is not None:
        users = _user_of_event(table)
        back = np.zeros(len(times), dtype=bool)
        back[1:] = (times[1:] < times[:-1]) & (users[1:] == users[:-1])
        if back.any():
            yield f"{_FILE}: the {wanted[0]} of {_users(table, back)} do not ascend; {_AGAIN}"
    if "split" in table.columns:
        yield from _split(table, times)


def _ids(user_ids: list[str | None]) -> Iterator[str]:
    empty = sum(not str(user_id or "").strip() for user_id in user_ids)
    if empty:
        yield f"{_FILE}: {empty:,} users have an empty user_id; give each an id and ingest again"
    names, counts = np.unique([user_id for user_id in user_ids if user_id], return_counts=True)
    if (counts > 1).any():
        yield f"{_FILE}: {named('user', names[counts > 1].tolist())} on more than one row; {_AGAIN}"


def _weights(table: HistoryTable, stated: object) -> Iterator[str]:
    weights = table.columns.get("weights")
    if stated != weight_facts(weights):
        yield f"manifest.json says weights: {stated}, the folder holds {weight_facts(weights)}; {_AGAIN}"
    if weights is None:
        return
    if weights.dtype != np.float32:
        yield f"{_FILE}: column 'weights' holds {weights.dtype}, it must be float32; {_AGAIN}"
        return
    wrong = ~(np.isfinite(weights) & (weights > 0))
    if wrong.any():
        yield (
            f"{_FILE}: {int(wrong.sum()):,} events of {_users(table, wrong)} have a weight that is no finite number "
            f"above 0, for example {weights[wrong][0]}; {_AGAIN}"
        )


def _split(table: HistoryTable, times: np.ndarray | None) -> Iterator[str]:
    """Where histories have an order, nobody's training event may come after an event that is asked for."""
    split = table.columns["split"]
    unknown = (split < 0) | (split >= len(_PARTS))
    if unknown.any():
        yield (
            f"{_FILE}: {int(unknown.sum()):,} events of {_users(table, unknown)} have split {int(split[unknown][0])}, "
            f"but 0 ({_PARTS[0]}), 1 ({_PARTS[1]}) and 2 ({_PARTS[2]}) are all; {_AGAIN}"
        )
        return
    if times is None:
        return
    # Events of one moment have no order that a split could break.
    users = _user_of_event(table)
    info = np.iinfo(np.int64)
    for earlier, later in ((0, 1), (0, 2), (1, 2)):
        last, first = np.full(table.num_users, info.min), np.full(table.num_users, info.max)
        np.maximum.at(last, users[split == earlier], times[split == earlier])
        np.minimum.at(first, users[split == later], times[split == later])
        wrong = np.flatnonzero(last > first)
        if len(wrong):
            whose = named("user", [str(table.user_ids[user]) for user in wrong])
            yield (
                f"{_FILE}: {_PARTS[later]} events of {whose} come before {_PARTS[earlier]} events, so that the future "
                "is learned from; give a column `split` in the order of time, or leave it out and ingest again"
            )


def _user_of_event(table: HistoryTable) -> np.ndarray:
    return np.repeat(np.arange(table.num_users), np.diff(table.offsets))


def _users(table: HistoryTable, events: np.ndarray) -> str:
    users = np.unique(_user_of_event(table)[events])
    return named("user", [str(table.user_ids[user]) for user in users])
