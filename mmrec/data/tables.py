"""The user's own tables: read, cast and judged before anything is built from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmrec.data.error_rows import ERROR_COLUMNS, error_rows
from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.errors import DataError, unknown_name
from mmrec.media.info import MAX_TEXT_BYTES

__all__ = ["MAX_ID_BYTES", "Table", "read_interactions", "read_items", "scan_table"]

# Ids are kept in memory, in every table and in every export; longer ones are no names but contents.
MAX_ID_BYTES = 1_024
_EVENT_COLUMNS = ("timestamp", "position", "rating", "weight", "split")
# Types of a CSV's columns are guessed from so many rows, and from all where a later one does not fit.
_INFERENCE_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table that nobody has read yet.

    Attributes:
        name: what messages call it, the path of its file.
        scans: the table; of a CSV once more, with types that are guessed from all rows, should a late one not fit.
    """

    name: str
    scans: tuple[pl.LazyFrame, ...]

    def read(self, take: Callable[[pl.LazyFrame], pl.DataFrame]) -> pl.DataFrame:
        """What ``take`` makes of the table.

        Raises: DataError if it cannot be read.
        """
        try:
            for scan in self.scans[:-1]:
                try:
                    return take(scan)
                except pl.exceptions.ComputeError:
                    continue
            return take(self.scans[-1])
        except pl.exceptions.NoDataError as error:
            raise DataError(f"{self.name} is empty; a table needs a header and rows") from error
        except (pl.exceptions.PolarsError, OSError, ValueError) as error:
            raise DataError(f"{self.name} cannot be read: {' '.join(str(error).split())[:200]}") from error

    def require(self, columns: list[str], *names: str) -> None:
        """Raises: DataError if one of ``names`` is not among ``columns``; the message names the nearest."""
        for name in names:
            if name not in columns:
                raise DataError(f"{self.name}: {unknown_name('column', name, columns)}")


def scan_table(path: Path, as_written: tuple[str, ...]) -> Table:
    """The table in a file; in a CSV the columns ``as_written`` stay strings: the id 007 is not 7.

    Raises: DataError if there is no such file, or it is none that mmrec reads, or names a column twice.
    """
    if not path.is_file():
        raise DataError(f"no file {path}; give a .parquet or .csv table")
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix == ".parquet":
        return Table(name=str(path), scans=(pl.scan_parquet(path),))
    if suffix not in (".csv", ".tsv"):
        raise DataError(f"{path} ends in {suffix!r}; tables are .parquet, .csv(.gz) or .tsv(.gz)")
    separator = "\t" if suffix == ".tsv" else ","
    head = Table(name=str(path), scans=(pl.scan_csv(path, separator=separator, has_header=False, infer_schema=False),))
    names = [str(name or "").removeprefix("\ufeff") for name in head.read(lambda rows: rows.head(1).collect()).row(0)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has the column {twice!r} twice; rename one of them or leave it out")
    scan = functools.partial(
        pl.scan_csv,
        path,
        separator=separator,
        try_parse_dates=True,
        schema_overrides={name: pl.String for name in as_written if name in names},
    )
    guesses = (scan(infer_schema_length=rows) for rows in (_INFERENCE_ROWS, None))
    return Table(name=str(path), scans=tuple(guesses))


def read_items(
    table: Table, text_columns: tuple[str, ...], media_columns: dict[str, str], defaults: tuple[str, ...]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the item table; ids become strings, empty texts and paths become null.

    Args:
        media_columns: modality -> column with paths.
        defaults: names of columns that may be absent; every other named column must be there.

    Returns: the table, and rows for errors.parquet: of texts and attributes that were too long and became null.

    Raises:
        DataError: if the table cannot be read, has no rows, lacks a column, repeats an id or leaves one empty.
    """
    items = table.read(pl.LazyFrame.collect)
    table.require(items.columns, "item_id")
    for name in (*text_columns, *media_columns.values()):
        if name not in defaults:
            table.require(items.columns, name)
    _check_names(items, table.name)
    if not items.height:
        raise DataError(f"{table.name} has no rows; an item table needs at least one item")
    items = items.with_columns(_ids(items.schema, table.name, "item_id"))
    _check_ids(items["item_id"], table.name)
    if empty := items["item_id"].null_count():
        raise DataError(f"{table.name} has {empty:,} rows without an item_id; give each item one")
    doubled = items.filter(pl.col("item_id").is_duplicated())["item_id"]
    if len(doubled):
        raise DataError(
            f"{table.name} lists {doubled.n_unique():,} item ids more than once, for example {doubled[0]!r}; "
            "each item takes exactly one row"
        )
    strings = [name for name in (*text_columns, *media_columns.values()) if name in items.columns]
    items = items.with_columns(_text(items, table.name, name) for name in dict.fromkeys(strings))
    return _without_long_cells(items, [name for name in text_columns if name in items.columns])


def read_interactions(table: Table) -> pl.DataFrame:
    """Read what histories are made of; ids become codes, so that an event takes some 30 bytes whatever its ids.

    Raises:
        DataError: if the table cannot be read, has no rows, or lacks a column.
    """

    def take(scan: pl.LazyFrame) -> pl.DataFrame:
        schema = scan.collect_schema()
        table.require(schema.names(), "user_id", "item_id")
        codes = (_ids(schema, table.name, name).cast(pl.Categorical) for name in ("user_id", "item_id"))
        others = [name for name in _EVENT_COLUMNS if name in schema]
        return scan.select(*codes, *others).collect(engine="streaming")

    events = table.read(take)
    if not events.height:
        raise DataError(f"{table.name} has no rows; interactions need at least one event")
    for name in ("user_id", "item_id"):
        _check_ids(events[name].unique().cast(pl.String), table.name)
    return events


def _check_names(items: pl.DataFrame, table: str) -> None:
    prefixes = tuple(f"{modality}." for modality in MEDIA_MODALITIES)
    for name in items.columns:
        if name in ("item_idx", "media_key") or name.startswith(prefixes):
            raise DataError(f"{table} has a column {name!r}, a name that mmrec needs for itself; rename it")


def _ids(schema: pl.Schema, table: str, name: str) -> pl.Expr:
    """Ids as strings; those without a letter are null."""
    kind = schema[name]
    if not (kind.is_integer() or kind in (pl.String, pl.Categorical) or isinstance(kind, pl.Enum)):
        raise DataError(f"{table}: column {name!r} is of type {kind}; ids are strings or whole numbers")
    text = pl.col(name).cast(pl.String)
    return pl.when(text.str.strip_chars() != "").then(text).otherwise(None).alias(name)


def _check_ids(ids: pl.Series, table: str) -> None:
    """Raises: DataError if an id is too long, or holds a zero byte, at which some readers end a string."""
    for what, wrong in (
        (f"longer than {MAX_ID_BYTES:,} bytes", ids.str.len_bytes() > MAX_ID_BYTES),
        ("with a zero byte", ids.str.contains("\0", literal=True)),
    ):
        found = ids.filter(wrong)
        if len(found):
            raise DataError(
                f"{table}: column {ids.name!r} holds {len(found):,} ids {what}, for example {found[0][:40]!r}; "
                "give shorter names of visible characters"
            )


def _text(items: pl.DataFrame, table: str, name: str) -> pl.Expr:
    if items.schema[name].is_nested() or items.schema[name] == pl.Binary:
        raise DataError(f"{table}: column {name!r} is of type {items.schema[name]}; it must hold strings")
    text = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text).otherwise(None).alias(name)


def _without_long_cells(items: pl.DataFrame, texts: list[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The texts of an item, joined, and each other cell have at most ``MAX_TEXT_BYTES``; what has more becomes null."""
    groups = [("text", texts)] if texts else []
    groups += [("attributes", [name]) for name in items.columns if name not in (*texts, "item_id")]
    faults = [pl.DataFrame(schema=dict.fromkeys(ERROR_COLUMNS, pl.String))]
    for modality, names in groups:
        sizes = items.select(
            (pl.sum_horizontal(_num_bytes(pl.col(name), items.schema[name]) for name in names) + len(names) - 1).alias(
                "bytes"
            )
        )["bytes"]
        long = sizes > MAX_TEXT_BYTES
        if not long.any():
            continue
        columns = ", ".join(map(repr, names))
        messages = [
            f"{size:,} bytes in {columns} are too many, at most {MAX_TEXT_BYTES:,}" for size in sizes.filter(long)
        ]
        faults.append(error_rows(items["item_id"].filter(long), messages, modality=modality, error="TooLong"))
        items = items.with_columns(pl.when(~long).then(pl.col(name)).alias(name) for name in names)
    return items, pl.concat(faults)


def _num_bytes(cell: pl.Expr, kind: Any) -> pl.Expr:
    """Bytes that a cell takes, about; 0 for null."""
    if kind == pl.String:
        size = cell.str.len_bytes()
    elif kind == pl.Binary:
        size = cell.bin.size()
    elif isinstance(kind, pl.List):
        size = cell.list.eval(_num_bytes(pl.element(), kind.inner)).list.sum()
    elif isinstance(kind, pl.Array):
        size = cell.arr.to_list().list.eval(_num_bytes(pl.element(), kind.inner)).list.sum()
    elif isinstance(kind, pl.Struct):
        size = pl.sum_horizontal(_num_bytes(cell.struct.field(part.name), part.dtype) for part in kind.fields)
    else:
        size = pl.lit(8)
    return size.cast(pl.Int64).fill_null(0)
