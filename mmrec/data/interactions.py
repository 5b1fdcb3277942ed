"""From a table of events to histories: cleaned, ordered, packed; what is left out is counted and named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import polars as pl

from mmrec.data.error_rows import error_rows
from mmrec.data.histories import Histories, core, first_of_their_kind, numbered, pack_histories, weight_facts
from mmrec.errors import ConfigError, DataError, unknown_name

__all__ = ["MOST_ERROR_ROWS", "EventFilters", "build_histories"]

# So many events of one kind are named in errors.parquet; the manifest counts all.
MOST_ERROR_ROWS = 10_000
_SPLITS = ("train", "valid", "test")
# Upper bounds of plausible times, in the unit's own ticks: the year 5138 in seconds.
_TICKS = (("s", 10**11, 1), ("ms", 10**14, 10**3), ("us", 10**17, 10**6), ("ns", 2**63, 10**9))


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
        if given is None:
            return None
        if re.fullmatch(r"-?[0-9]{1,11}", given):
            return int(given)
        try:
            at = datetime.fromisoformat(given)
        except ValueError as error:
            raise ConfigError(f"{name} is {given!r}; give a date such as 2024-05-31, or seconds since 1970") from error
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def build_histories(
    table: pl.DataFrame,
    item_ids: pl.Series,
    name: str,
    *,
    filters: EventFilters,
    unknown_items: Literal["error", "drop"],
) -> Histories:
    """Turn the interactions ``table`` into histories; a caller that keeps no reference to it needs half the memory.

    Left out and recorded: events without user, item or time; events whose weight is no number above 0; events with an
    item that the catalogue lacks (``unknown_items="drop"``; an error otherwise); exact repetitions (same user, item
    and time; same user and item where there is no time), of which the first stays with its weight. Left out and
    counted: what ``filters`` do not let pass.
    Order: by user, then time, and events of one moment stay in the order of the file.

    Args:
        item_ids: the catalogue; the row number is ``item_idx``.
        name: of the table, for messages.

    Raises:
        DataError: on unknown items (unless dropped), a missing or unusable column, or if no event is left.
    """
    order = next((column for column in ("timestamp", "position") if column in table.columns), "none")
    facts: dict[str, Any] = {"order": order, "tie_break": "order in the file", "given": table.height}
    log = _Log(table, name)
    del table
    missing = pl.col("user_id").is_null() | pl.col("item_id").is_null()
    log.leave_out(missing, "MissingId", "an event without user_id or item_id")
    per_second = 1
    if order != "none":
        facts["time_unit"], per_second = log.read_times(order)
        log.leave_out(pl.col("at").is_null(), "MissingTime", f"an event without a {order}")
    log.read_weights()
    log.read_splits()
    log.filter_ratings(filters.min_rating)
    log.filter_times(filters, order, per_second)
    log.match_items(item_ids, unknown_items)
    log.compact()

    users, user_ids = numbered(log.table["user_id"])
    columns = {name: log.table[name].to_numpy() for name in _COLUMNS if name in log.table.columns}
    rows, first = first_of_their_kind(users, columns.get("at"), columns["items"])
    what = f"user, item and {order}" if order != "none" else "user and item"
    log.leave_out(pl.lit(pl.Series(~first)), "RepeatedEvent", f"same {what} as an earlier event")
    keep = core(users, columns["items"], first, filters.min_user_events, filters.min_item_events)
    log.count_out("outside_k_core", int(first.sum() - keep.sum()))
    facts["left_out"], errors = log.left_out, pl.concat(log.errors)
    del log
    rows = rows[keep[rows]]
    if not len(rows):
        raise DataError(f"{name}: no event is left of {facts['given']:,} ({_reasons(facts['left_out'])})")
    facts["kept"] = len(rows)
    user_ids, lengths, columns = pack_histories(users, user_ids, columns, rows)
    if "at" in columns:
        times = "positions" if order == "position" else "timestamps"
        columns[times] = _whole_seconds(columns.pop("at"), per_second)
    facts["weights"] = weight_facts(columns.get("weights"))
    return Histories(user_ids=user_ids, lengths=lengths, columns=columns, facts=facts, errors=errors)


# What histories are made of, as the columns are called while events are judged.
_COLUMNS = ("items", "at", "split", "weights")


class _Log:
    """A table of events while it is judged. N events.

    Attributes:
        table: the events; ``compact`` takes those away that were left out.
        left_out: how many, by reason.
        errors: rows for errors.parquet.
    """

    def __init__(self, table: pl.DataFrame, name: str) -> None:
        self.table = table.rechunk()
        self.left_out: dict[str, int] = {}
        self.errors = [error_rows([], "", modality="interactions", error="")]
        self._name = name
        self._keep = np.ones(table.height, dtype=bool)  # (N,)
        self._item_ids = pl.Series("item_id", [], dtype=pl.String)

    def leave_out(self, which: pl.Expr, error: str, message: str) -> None:
        """Leave out the events ``which``, and name the first of them in errors.parquet."""
        found = self._drop(which, error)
        if not len(found):
            return
        rows = self.table[found[:MOST_ERROR_ROWS]]
        items = rows["item_id"] if "item_id" in rows.columns else self._item_ids.gather(rows["items"])
        users = rows["user_id"].cast(pl.String).to_list()
        names, messages = items.cast(pl.String).fill_null(""), [f"{message} (user {user!r})" for user in users]
        if len(found) > len(rows):
            names.append(pl.Series([""]))
            messages.append(f"{len(found) - len(rows):,} more of this kind: {message}")
        self.errors.append(error_rows(names, messages, modality="interactions", error=error))

    def count_out(self, reason: str, number: int) -> None:
        if number:
            self.left_out[reason] = number

    def compact(self) -> None:
        """Only the events that are left, and only what is needed of them."""
        wanted = [name for name in ("user_id", *_COLUMNS) if name in self.table.columns]
        self.table = self.table.select(wanted)
        if not self._keep.all():
            self.table = self.table.filter(pl.Series(self._keep)).rechunk()
        self._keep = np.ones(self.table.height, dtype=bool)

    def read_times(self, order: str) -> tuple[str, int]:
        """Add ``at``, the time as given or null; tell its unit, and how many of it are a second."""
        kind, column = self.table.schema[order], pl.col(order)
        if order == "timestamp" and (kind == pl.Date or isinstance(kind, pl.Datetime)):
            self._replace(order, "at", column.cast(pl.Datetime("us")).dt.epoch("us"))
            return "date", 10**6
        if not kind.is_numeric():
            wanted = "seconds since 1970 or a date" if order == "timestamp" else "a number"
            raise DataError(f"{self._name}: column {order!r} is of type {kind}; it must be {wanted}")
        if not kind.is_integer():
            column = column.cast(pl.Float64)
            column = pl.when(column.is_finite()).then(column)
        ends = self._measure(column.min().alias("low"), column.max().alias("high"))
        if any(end is not None and not -(2**63) < end < 2**63 for end in ends):
            worst = max(ends, key=abs)
            raise DataError(f"{self._name}: column {order!r} holds {worst:g}, which is none; give seconds since 1970")
        self._replace(order, "at", column.cast(pl.Int64) if kind.is_integer() else column)
        return self._unit(order) if order == "timestamp" else ("position", 1)

    def _unit(self, order: str) -> tuple[str, int]:
        """The unit in which the largest time is plausible, which all others must share: a mixture would be silent."""
        size = pl.col("at").abs()
        least, largest = self._measure(size.filter(size >= 1).min().alias("least"), size.max().alias("largest"))
        units = [next(tick for tick in _TICKS if (value or 0) < tick[1]) for value in (least, largest)]
        if units[0] != units[1] and least is not None:
            raise DataError(
                f"{self._name}: column {order!r} mixes units: {largest:.0f} would be {units[1][0]}, {least:.0f} "
                f"{units[0][0]}; give all times in one unit"
            )
        return units[1][0], units[1][2]

    def read_weights(self) -> None:
        if "weight" not in self.table.columns:
            return
        if not self.table.schema["weight"].is_numeric():
            kind = self.table.schema["weight"]
            raise DataError(f"{self._name}: column 'weight' is of type {kind}; it must be a number above 0")
        self._replace("weight", "weights", pl.col("weight").cast(pl.Float32, strict=False))
        usable = pl.col("weights").is_finite() & (pl.col("weights") > 0)
        self.leave_out(~usable.fill_null(False), "UnusableWeight", "an event whose weight is no number above 0")

    def read_splits(self) -> None:
        if "split" not in self.table.columns:
            return
        names = pl.col("split").cast(pl.String)
        for name in self.table.select(names.unique()).to_series().to_list():
            if name not in _SPLITS:
                raise DataError(f"{self._name}: column 'split': {unknown_name('split', str(name), _SPLITS)}")
        codes = names.replace_strict({name: code for code, name in enumerate(_SPLITS)}, return_dtype=pl.Int8)
        self.table = self.table.with_columns(codes.alias("split"))

    def filter_ratings(self, min_rating: float | None) -> None:
        if min_rating is None:
            return
        if "rating" not in self.table.columns:
            raise DataError(f"{self._name} has no column 'rating'; add it, or leave --min-rating out")
        if not self.table.schema["rating"].is_numeric():
            kind = self.table.schema["rating"]
            raise DataError(f"{self._name}: column 'rating' is of type {kind}; it must be a number")
        rating = pl.col("rating").cast(pl.Float64)
        self.leave_out(rating.is_null() | rating.is_nan(), "MissingRating", "an event without a rating")
        self._drop(rating < min_rating, "under_min_rating")

    def filter_times(self, filters: EventFilters, order: str, per_second: int) -> None:
        since, until = filters.moment("since"), filters.moment("until")
        if since is None and until is None:
            return
        if order != "timestamp":
            raise DataError(f"{self._name} has no column 'timestamp'; add it, or leave --since and --until out")
        if since is not None:
            self._drop(pl.col("at") < since * per_second, "before_since")
        if until is not None:
            self._drop(pl.col("at") >= until * per_second, "from_until")

    def match_items(self, item_ids: pl.Series, unknown_items: str) -> None:
        """Add ``items``, the row of each event's item in the catalogue."""
        known = item_ids.cast(pl.Categorical).to_physical().to_numpy()
        codes = self.table["item_id"].to_physical().fill_null(0)
        index_of = np.full(max(known.max(initial=0), int(codes.to_numpy().max(initial=0))) + 1, -1, dtype=np.int32)
        index_of[known] = np.arange(len(known), dtype=np.int32)
        self.table = self.table.with_columns(pl.Series("items", index_of).gather(codes))
        unknown = pl.col("items") < 0
        if unknown_items == "error":
            found = self.table["item_id"].filter(self.table.select(unknown).to_series() & pl.Series(self._keep))
            if len(found):
                raise DataError(
                    f"{self._name}: {len(found):,} events name {found.n_unique():,} items not in the item table, for "
                    f"example {found[0]!r}; add them to the items, or leave the events out with --unknown-items drop"
                )
        self.leave_out(unknown, "UnknownItem", "an event with an item that is not in the item table")
        self._item_ids = item_ids

    def _measure(self, *numbers: pl.Expr) -> tuple[Any, ...]:
        """A row of aggregates, computed block by block."""
        return self.table.lazy().select(*numbers).collect(engine="streaming").row(0)

    def _replace(self, name: str, by: str, column: pl.Expr) -> None:
        self.table = self.table.with_columns(column.alias(by)).drop(name)

    def _drop(self, which: pl.Expr, reason: str) -> np.ndarray:
        """Rows that are left out by this, and have not been before."""
        found = self.table.select(which.fill_null(False).alias("_")).to_series().to_numpy() & self._keep
        self._keep &= ~found
        rows = np.flatnonzero(found)
        self.count_out(reason, len(rows))
        return rows


def _whole_seconds(at: np.ndarray, per_second: int) -> np.ndarray:
    whole = np.floor(at).astype(np.int64) if at.dtype.kind == "f" else at
    return whole // per_second if per_second > 1 else whole


def _reasons(left_out: dict[str, int]) -> str:
    return ", ".join(f"{reason}: {number:,}" for reason, number in left_out.items())
