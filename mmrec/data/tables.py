"""The user's own tables: read, cast and judged before anything is built from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import polars as pl

from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.errors import DataError, unknown_name

__all__ = ["read_interactions", "read_items"]

_EVENT_COLUMNS = ("timestamp", "position", "rating", "split")
# Types of a CSV's columns are guessed from so many rows, and from all where a later one does not fit.
_INFERENCE_ROWS = 10_000


def read_items(
    path: Path, text_columns: tuple[str, ...], media_columns: dict[str, str], defaults: tuple[str, ...]
) -> pl.DataFrame:
    """Read the item table; ids become strings, empty texts and paths become null.

    Args:
        media_columns: modality -> column with paths.
        defaults: names of columns that may be absent; every other named column must be there.

    Raises:
        DataError: if the file cannot be read, has no rows, lacks a column, repeats an id or leaves one empty.
    """
    table = _read(path, ("item_id", *text_columns, *media_columns.values()), pl.LazyFrame.collect)
    _require(table.columns, path, ("item_id",))
    for name in (*text_columns, *media_columns.values()):
        if name not in defaults:
            _require(table.columns, path, (name,))
    _check_names(table, path)
    if not table.height:
        raise DataError(f"{path} has no rows; an item table needs at least one item")
    table = table.with_columns(_ids(table.schema, path, "item_id"))
    if empty := table["item_id"].null_count():
        raise DataError(f"{path} has {empty:,} rows without an item_id; give each item one")
    doubled = table.filter(pl.col("item_id").is_duplicated())["item_id"]
    if len(doubled):
        raise DataError(
            f"{path} lists {doubled.n_unique():,} item ids more than once, for example {doubled[0]!r}; "
            "each item takes exactly one row"
        )
    strings = [name for name in (*text_columns, *media_columns.values()) if name in table.columns]
    return table.with_columns(_text(table, path, name) for name in dict.fromkeys(strings))


def read_interactions(path: Path) -> pl.DataFrame:
    """Read what histories are made of; ids become codes, so that an event takes some 30 bytes whatever its ids.

    Raises:
        DataError: if the file cannot be read, has no rows, or lacks a column.
    """

    def read(table: pl.LazyFrame) -> pl.DataFrame:
        schema = table.collect_schema()
        _require(schema.names(), path, ("user_id", "item_id"))
        codes = (_ids(schema, path, name).cast(pl.Categorical) for name in ("user_id", "item_id"))
        others = [name for name in _EVENT_COLUMNS if name in schema]
        return table.select(*codes, *others).collect(engine="streaming")

    table = _read(path, ("user_id", "item_id"), read)
    if not table.height:
        raise DataError(f"{path} has no rows; interactions need at least one event")
    return table


def _read(path: Path, as_written: tuple[str, ...], read: Callable[[pl.LazyFrame], pl.DataFrame]) -> pl.DataFrame:
    """What ``read`` takes of a table; in a CSV the columns ``as_written`` stay strings: the id 007 is not 7."""
    if not path.is_file():
        raise DataError(f"no file {path}; give a .parquet or .csv table")
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    try:
        if suffix == ".parquet":
            return read(pl.scan_parquet(path))
        if suffix in (".csv", ".tsv"):
            separator = "\t" if suffix == ".tsv" else ","
            names = pl.read_csv(path, separator=separator, n_rows=0).columns
            scan = functools.partial(
                pl.scan_csv,
                path,
                separator=separator,
                try_parse_dates=True,
                schema_overrides={name: pl.String for name in as_written if name in names},
            )
            try:
                return read(scan(infer_schema_length=_INFERENCE_ROWS))
            except pl.exceptions.ComputeError:  # a later row is of another type
                return read(scan(infer_schema_length=None))
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path} is empty; a table needs a header and rows") from error
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as {suffix.lstrip('.')}: {reason}") from error
    raise DataError(f"{path} ends in {suffix!r}; tables are .parquet, .csv(.gz) or .tsv(.gz)")


def _require(columns: list[str], path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in columns:
            raise DataError(f"{path}: {unknown_name('column', name, columns)}")


def _check_names(table: pl.DataFrame, path: Path) -> None:
    prefixes = tuple(f"{modality}." for modality in MEDIA_MODALITIES)
    for name in table.columns:
        if name == "item_idx" or name.startswith(prefixes):
            raise DataError(f"{path} has a column {name!r}, a name that mmrec needs for itself; rename it")


def _ids(schema: pl.Schema, path: Path, name: str) -> pl.Expr:
    kind = schema[name]
    if not (kind.is_integer() or kind in (pl.String, pl.Categorical) or isinstance(kind, pl.Enum)):
        raise DataError(f"{path}: column {name!r} is of type {kind}; ids are strings or whole numbers")
    text = pl.col(name).cast(pl.String)
    return pl.when(text != "").then(text).otherwise(None).alias(name)


def _text(table: pl.DataFrame, path: Path, name: str) -> pl.Expr:
    if table.schema[name].is_nested() or table.schema[name] == pl.Binary:
        raise DataError(f"{path}: column {name!r} is of type {table.schema[name]}; it must hold strings")
    text = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text).otherwise(None).alias(name)
