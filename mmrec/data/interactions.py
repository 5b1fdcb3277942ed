"""From a table of events to histories: cleaned, ordered, packed; what is left out is counted and named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from mmrec.data.sequences import pack
from mmrec.errors import DataError, unknown_name

__all__ = ["Histories", "build_histories", "write_histories"]

_SPLITS = ("train", "valid", "test")
# Upper bounds of plausible times, in the unit's own ticks: the year 5138 in seconds.
_TICKS = (("s", 10**11, 1), ("ms", 10**14, 10**3), ("us", 10**17, 10**6), ("ns", 2**63 - 1, 10**9))


@dataclass(kw_only=True)
class Histories:
    """Events sorted by user and time, and what was left out on the way.

    Attributes:
        events: columns user_id, item_idx (int32), and where the data has them time (int64), split (int8).
        facts: for the manifest: order, tie-break, unit of time, number of events given, kept and left out by reason.
        errors: rows for errors.parquet.
    """

    events: pl.DataFrame
    facts: dict[str, Any]
    errors: list[dict[str, str]] = field(default_factory=list)


def build_histories(
    table: pl.DataFrame,
    item_ids: pl.Series,
    path: Path,
    *,
    min_rating: float | None,
    unknown_items: Literal["error", "drop"],
) -> Histories:
    """Turn the interactions ``table`` into histories.

    Left out and recorded: events without user, item or time; events with an item that the catalogue lacks
    (``unknown_items="drop"``; an error otherwise); exact repetitions (same user, item and time; same user and item
    where there is no time). Left out and counted: ratings under ``min_rating``.
    Order: by user, then time, and events of one moment stay in the order of the file.

    Args:
        item_ids: the catalogue; the row number is ``item_idx``.

    Raises:
        DataError: on unknown items (unless dropped), a missing or unusable column, or if no event is left.
    """
    order = next((name for name in ("timestamp", "position") if name in table.columns), "none")
    facts: dict[str, Any] = {"order": order, "tie_break": "order in the file", "given": table.height, "left_out": {}}
    histories = Histories(events=table, facts=facts)
    if order != "none":
        histories.events, facts["time_unit"] = _with_time(table, order, path)
    if "split" in table.columns:
        histories.events = _split_codes(histories.events, path)

    missing = pl.col("user_id").is_null() | pl.col("item_id").is_null()
    _leave_out(histories, missing, "MissingId", "an event without user_id or item_id")
    if order != "none":
        _leave_out(histories, pl.col("at").is_null(), "MissingTime", f"an event without a {order}")
    _filter_ratings(histories, min_rating, path)
    _match_items(histories, item_ids, unknown_items, path)
    same = [name for name in ("user_id", "item_id", "at") if name in histories.events.columns]
    what = f"user, item and {order}" if order != "none" else "user and item"
    _leave_out(histories, ~pl.struct(same).is_first_distinct(), "RepeatedEvent", f"same {what} as an earlier event")
    if not histories.events.height:
        raise DataError(f"{path}: no event is left of {table.height:,} ({_reasons(facts['left_out'])})")

    # Sorted by the time as given: two events of one second keep the order of their milliseconds.
    keys = [name for name in ("user_id", "at") if name in histories.events.columns]
    columns = [name for name in ("user_id", "item_idx", "time", "split") if name in histories.events.columns]
    histories.events = histories.events.sort(keys, maintain_order=True).select(columns)
    facts["kept"] = histories.events.height
    return histories


def write_histories(histories: Histories, path: Path) -> int:
    """Write one row a user as an Arrow file of one batch, which maps into memory without a copy; return the users."""
    events = histories.events
    users, counts = np.unique(np.asarray(events["user_id"].rle_id()), return_counts=True)
    offsets = pa.array(pack(counts), pa.int64())
    ids = events["user_id"].rle().struct.field("value").to_list()
    columns = {"user_id": pa.array(ids, pa.string())}
    time = "positions" if histories.facts["order"] == "position" else "timestamps"
    for column, name in (("item_idx", "items"), ("time", time), ("split", "split")):
        if column in events.columns:
            columns[name] = pa.LargeListArray.from_arrays(offsets, pa.array(events[column].to_numpy()))
    batch = pa.RecordBatch.from_pydict(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
        file.write_batch(batch)
    return len(users)


def _with_time(table: pl.DataFrame, name: str, path: Path) -> tuple[pl.DataFrame, str]:
    """Add ``at``, the time as given or null, and ``time``, int64 seconds since 1970 (or positions); tell the unit."""
    kind = table.schema[name]
    column = pl.col(name)
    if name == "timestamp" and (kind == pl.Date or isinstance(kind, pl.Datetime)):
        at = column.cast(pl.Datetime("us"))
        return table.with_columns(at.alias("at"), at.dt.epoch("s").alias("time")), "date"
    if not kind.is_numeric():
        wanted = "seconds since 1970 or a date" if name == "timestamp" else "a number"
        raise DataError(f"{path}: column {name!r} is of type {kind}; it must be {wanted}")
    at = pl.when(column.is_finite()).then(column) if kind.is_float() else column
    whole = (at.floor() if kind.is_float() else at).cast(pl.Int64)
    if name == "position":
        return table.with_columns(at.alias("at"), whole.alias("time")), "position"
    largest = table.select(whole.abs().max()).item() or 0
    unit, _, per_second = next(tick for tick in _TICKS if largest < tick[1] or tick[0] == "ns")
    return table.with_columns(at.alias("at"), (whole // per_second).alias("time")), unit


def _split_codes(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    names = table["split"].cast(pl.String)
    for name in names.unique().to_list():
        if name not in _SPLITS:
            raise DataError(f"{path}: column 'split': {unknown_name('split', str(name), _SPLITS)}")
    codes = names.replace_strict({name: code for code, name in enumerate(_SPLITS)}, return_dtype=pl.Int8)
    return table.with_columns(codes.alias("split"))


def _leave_out(histories: Histories, which: pl.Expr, error: str, message: str) -> None:
    events = histories.events.with_columns(which.fill_null(False).alias("_out"))
    gone = events.filter("_out")
    if gone.height:
        histories.facts["left_out"][error] = gone.height
        for row in gone.select("user_id", "item_id").iter_rows():
            histories.errors.append(
                {
                    "item_id": row[1] or "",
                    "modality": "interactions",
                    "stage": "ingest",
                    "error": error,
                    "message": f"{message} (user {row[0]!r})",
                }
            )
        histories.events = events.filter(~pl.col("_out")).drop("_out")


def _filter_ratings(histories: Histories, min_rating: float | None, path: Path) -> None:
    if min_rating is None:
        return
    if "rating" not in histories.events.columns:
        raise DataError(f"{path} has no column 'rating'; add it, or leave --min-rating out")
    if not histories.events.schema["rating"].is_numeric():
        raise DataError(f"{path}: column 'rating' is of type {histories.events.schema['rating']}; it must be a number")
    rating = pl.col("rating").cast(pl.Float64)
    _leave_out(histories, rating.is_null() | rating.is_nan(), "MissingRating", "an event without a rating")
    before = histories.events.height
    histories.events = histories.events.filter(rating >= min_rating)
    if before > histories.events.height:
        histories.facts["left_out"]["under_min_rating"] = before - histories.events.height


def _match_items(histories: Histories, item_ids: pl.Series, unknown_items: str, path: Path) -> None:
    catalogue = pl.DataFrame({"item_id": item_ids, "item_idx": np.arange(len(item_ids), dtype=np.int32)})
    histories.events = histories.events.drop("item_idx", strict=False).join(
        catalogue, on="item_id", how="left", maintain_order="left"
    )
    unknown = histories.events.filter(pl.col("item_idx").is_null())
    if unknown.height and unknown_items == "error":
        raise DataError(
            f"{path}: {unknown.height:,} events name {unknown['item_id'].n_unique():,} items not in the item table, "
            f"for example {unknown['item_id'][0]!r}; add them to the items, or leave the events out with "
            "--unknown-items drop"
        )
    _leave_out(
        histories, pl.col("item_idx").is_null(), "UnknownItem", "an event with an item that is not in the item table"
    )


def _reasons(left_out: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {number:,}" for reason, number in left_out.items())
