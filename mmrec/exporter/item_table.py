"""items.parquet of an export: what search shows of an item, and what it can be filtered by."""

from __future__ import annotations

import logging

import polars as pl
import pyarrow as pa

from mmrec.data.dataset import Dataset
from mmrec.data.manifest import MEDIA_MODALITIES

__all__ = ["item_table"]

logger = logging.getLogger(__name__)

_OWN = ("item_idx", "item_id", "media_key")
# A text column of longer values is content, such as a description; one of shorter values may be filtered by.
MAX_TEXT_CHARS = 100


def item_table(dataset: Dataset) -> pa.Table:
    """item_id, title and the attribute columns, one row an item in order of ``item_idx``.

    Attributes are the user's columns of strings, numbers, truth values and dates (as ISO strings), and those text
    columns beside the title whose values have 100 characters at most.
    """
    items = dataset.attributes
    texts = dataset.manifest["text_columns"]
    shown = texts[:1] or ["title"] * (items.schema.get("title") == pl.String)  # of what is no text, a column so named
    title = pl.coalesce(*(pl.col(name) for name in shown), pl.col("item_id")).alias("title")
    columns = [pl.col("item_id"), title]
    for name, kind in items.schema.items():
        if name in _OWN or name in shown or name.partition(".")[0] in MEDIA_MODALITIES:
            continue
        if name in texts and (items[name].str.len_chars().max() or 0) > MAX_TEXT_CHARS:  # pyright: ignore[reportOperatorIssue]
            continue
        if name == "title":
            source = shown[0] if shown else "id"
            logger.warning("the column 'title' is not exported: the title of an item is its %s", source)
        elif name in ("modalities", "shares"):
            logger.warning("the column %r is not exported: an export has a column of this name of its own", name)
        elif (column := _as_attribute(name, kind)) is not None:
            columns.append(column)
    table = items.select(columns).to_arrow(compat_level=pl.CompatLevel.oldest())
    fields = [field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field for field in table.schema]
    return table.cast(pa.schema(fields)).combine_chunks()


def _as_attribute(name: str, kind: pl.DataType) -> pl.Expr | None:
    """The column as it is exported; None if it is of lists, structures or bytes."""
    column = pl.col(name)
    if kind.is_decimal():
        return column.cast(pl.Float64)
    if kind.is_numeric() or kind in (pl.String, pl.Boolean):
        return column
    if kind == pl.Datetime:
        return column.dt.to_string("iso:strict")
    if kind in (pl.Categorical, pl.Enum, pl.Date, pl.Time):
        return column.cast(pl.String)
    return None
