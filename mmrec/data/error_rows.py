"""Rows of errors.parquet: what could not be used, of which item, and why."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

__all__ = ["ERROR_COLUMNS", "error_rows"]

ERROR_COLUMNS = ("item_id", "modality", "stage", "error", "message")


def error_rows(
    item_ids: pl.Series | Sequence[str], messages: pl.Series | Sequence[str] | str, *, modality: str, error: str
) -> pl.DataFrame:
    """One row an item, of the stage "ingest".

    Args:
        messages: one for each item, or one for all.
    """
    items = pl.DataFrame({"item_id": pl.Series(item_ids, dtype=pl.String)})
    message = pl.lit(messages) if isinstance(messages, str) else pl.Series(messages, dtype=pl.String)
    columns = {"modality": pl.lit(modality), "stage": pl.lit("ingest"), "error": pl.lit(error), "message": message}
    return items.with_columns(**columns)
