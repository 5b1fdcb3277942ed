"""From a table of events to histories: cleaned, ordered, packed; what is left out is counted and named."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

from mmrec.data.sequences import pack
from mmrec.errors import ConfigError, DataError, unknown_name

__all__ = ["EventFilters", "Histories", "build_histories", "write_histories"]

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


@dataclass(frozen=True, kw_only=True)
class EventFilters:
    """Which events count; what each leaves out is counted in the manifest.

    Attributes:
        min_rating: least rating.
        since, until: first moment that counts, and the first that no longer does: dates (UTC) or seconds since 1970.
        min_user_events, min_item_events: least events of a user and of an item, after everything else has been left
            out, and again until both hold (k-core); 0: any.
    """

    min_rating: float | None = None
    since: str | None = None
    until: str | None = None
    min_user_events: int = 0
    min_item_events: int = 0

    def __post_init__(self) -> None:
        for name in ("min_user_events", "min_item_events"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 (any) or more")
        for name in ("since", "until"):
            self.moment(name)

    def moment(self, name: str) -> int | None:
        """``since`` or ``until`` in seconds since 1970. Raises: ConfigError if it is neither seconds nor a date."""
        given = getattr(self, name)
        if given is None or given.lstrip("-").isdigit():
            return None if given is None else int(given)
        try:
            at = datetime.fromisoformat(given)
        except ValueError as error:
            raise ConfigError(f"{name} is {given!r}; give a date such as 2024-05-31, or seconds since 1970") from error
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def build_histories(
    table: pl.DataFrame,
    item_ids: pl.Series,
    path: Path,
    *,
    filters: EventFilters,
    unknown_items: Literal["error", "drop"],
) -> Histories:
    """Turn the interactions ``table`` into histories.

    Left out and recorded: events without user, item or time; events with an item that the catalogue lacks
    (``unknown_items="drop"``; an error otherwise); exact repetitions (same user, item and time; same user and item
    where there is no time). Left out and counted: what ``filters`` do not let pass.
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
    _filter_ratings(histories, filters.min_rating, path)
    _filter_times(histories, filters, path)
    _match_items(histories, item_ids, unknown_items, path)
    _sort(histories, f"user, item and {order}" if order != "none" else "user and item")
    _keep_core(histories, filters)
    if not histories.events.height:
        raise DataError(f"{path}: no event is left of {table.height:,} ({_reasons(facts['left_out'])})")
    facts["kept"] = histories.events.height
    return histories


def _sort(histories: Histories, what: str) -> None:
    """By user and the time as given, so that events of one second keep the order of their milliseconds; repeated
    events, those of the same ``what``, are left out."""
    events = histories.events
    moment = [name for name in ("at",) if name in events.columns]
    keys = [_ranks(events["user_id"]), *(events[name].to_physical().to_numpy() for name in moment)]
    order = np.lexsort(keys[::-1]).astype(np.uint32 if events.height < 2**32 else np.int64)
    # Only events of one user and moment can be repetitions.
    alike = np.ones(max(len(order) - 1, 0), dtype=bool)
    for key in keys:
        ordered = key[order]
        alike &= ordered[1:] == ordered[:-1]
    tied = np.zeros(len(order), dtype=bool)
    tied[order[1:][alike]] = tied[order[:-1][alike]] = True
    rows = np.flatnonzero(tied)
    same = pl.DataFrame({str(number): key[rows] for number, key in enumerate([*keys, events["item_idx"].to_numpy()])})
    repeated = np.zeros(len(order), dtype=bool)
    repeated[rows] = ~same.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    _leave_out(histories, pl.lit(pl.Series(repeated)), "RepeatedEvent", f"same {what} as an earlier event")
    place = np.cumsum(~repeated) - 1
    columns = [name for name in ("user_id", "item_idx", "time", "split") if name in events.columns]
    histories.events = histories.events.select(columns)[place[order[~repeated[order]]]]


def _ranks(ids: pl.Series) -> np.ndarray:
    """The place of each id among the different ones in the order of their letters. int32"""
    distinct = ids.unique().sort()
    codes = distinct.to_physical().to_numpy()
    rank_of = np.zeros(int(codes.max(initial=0)) + 1, dtype=np.int32)
    rank_of[codes] = np.arange(len(codes), dtype=np.int32)
    return rank_of[ids.to_physical().to_numpy()]


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
    return table.with_columns(at.alias("at"), (whole // per_second if per_second > 1 else whole).alias("time")), unit


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
    _count_out(histories, "under_min_rating", histories.events.filter(rating >= min_rating))


def _filter_times(histories: Histories, filters: EventFilters, path: Path) -> None:
    since, until = filters.moment("since"), filters.moment("until")
    if since is None and until is None:
        return
    if histories.facts["order"] != "timestamp":
        raise DataError(f"{path} has no column 'timestamp'; add it, or leave --since and --until out")
    for reason, outside in (
        ("before_since", None if since is None else pl.col("time") < since),
        ("from_until", None if until is None else pl.col("time") >= until),
    ):
        if outside is not None:
            _count_out(histories, reason, histories.events.filter(~outside))


def _keep_core(histories: Histories, filters: EventFilters) -> None:
    """Leave out users and items with too few events until none is left.

    Source: the k-core by which the data sets of the field are made (Seidman 1983).
    """
    least = {"user_id": filters.min_user_events, "item_idx": filters.min_item_events}
    enough = [pl.len().over(name) >= number for name, number in least.items() if number > 1]
    events, before = histories.events, None
    while enough and events.height != before:
        before = events.height
        events = events.filter(pl.all_horizontal(enough))
    _count_out(histories, "outside_k_core", events)


def _count_out(histories: Histories, reason: str, kept: pl.DataFrame) -> None:
    if kept.height < histories.events.height:
        histories.facts["left_out"][reason] = histories.events.height - kept.height
        histories.events = kept


def _match_items(histories: Histories, item_ids: pl.Series, unknown_items: str, path: Path) -> None:
    known = pl.Series(item_ids, dtype=pl.Categorical).to_physical().to_numpy()
    codes = histories.events["item_id"].to_physical().to_numpy()
    index_of = np.full(max(known.max(initial=0), codes.max(initial=0)) + 1, -1, dtype=np.int32)
    index_of[known] = np.arange(len(known), dtype=np.int32)
    histories.events = histories.events.with_columns(pl.Series("item_idx", index_of[codes]))
    unknown = histories.events.filter(pl.col("item_idx") < 0)
    if unknown.height and unknown_items == "error":
        raise DataError(
            f"{path}: {unknown.height:,} events name {unknown['item_id'].n_unique():,} items not in the item table, "
            f"for example {unknown['item_id'][0]!r}; add them to the items, or leave the events out with "
            "--unknown-items drop"
        )
    _leave_out(histories, pl.col("item_idx") < 0, "UnknownItem", "an event with an item that is not in the item table")


def _reasons(left_out: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {number:,}" for reason, number in left_out.items())
