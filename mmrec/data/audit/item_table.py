"""``items.parquet``: the columns that it must have, ids, and whether an item's entries hang together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from mmrec.data.audit.wording import first_of, named
from mmrec.data.manifest import MEDIA_FIELDS, MEDIA_MODALITIES

__all__ = ["item_problems"]

_AGAIN = "ingest the data again"
_PLACE = ("shard", "offset", "size", "xxh3", "ext", "status")
_STORED, _NOT_STORED = ("ok", "partial"), ("missing", "error")


def item_problems(items: pl.DataFrame, manifest: dict[str, Any]) -> Iterator[str]:
    """Missing columns, ``item_idx`` out of order, ids that are empty or doubled, entries that contradict themselves."""
    needed = ["item_idx", "item_id", "media_key", *manifest["text_columns"]]
    for modality in MEDIA_MODALITIES:
        needed += [f"{modality}.{name}" for name in (*_PLACE, *MEDIA_FIELDS[modality])]
    lacking = [name for name in needed if name not in items.columns]
    if lacking:
        yield f"items.parquet lacks the columns {first_of(lacking)}; {_AGAIN}"
        return
    if not items["item_idx"].cast(pl.Int64).equals(pl.Series("item_idx", range(items.height), dtype=pl.Int64)):
        yield f"items.parquet: item_idx is not 0 to {items.height - 1:,} in order; {_AGAIN}"
    yield from _ids(items["item_id"].cast(pl.String))
    for modality in MEDIA_MODALITIES:
        yield from _entries(items, modality)


def _ids(ids: pl.Series) -> Iterator[str]:
    empty = (ids.fill_null("").str.strip_chars() == "").sum()
    if empty:
        yield f"items.parquet: {empty:,} items have an empty item_id; give each an id and ingest again"
    doubled = ids.filter(ids.is_duplicated() & ids.is_not_null()).unique(maintain_order=True).to_list()
    if doubled:
        yield f"items.parquet: {named('item_id', doubled)} on more than one row; give each item one row, ingest again"


def _entries(items: pl.DataFrame, modality: str) -> Iterator[str]:
    stored = pl.col(f"{modality}.shard").is_not_null()
    status = pl.col(f"{modality}.status")
    rules = {
        "has a place without offset, size, hash or extension, or these without a place": pl.any_horizontal(
            pl.col(f"{modality}.{name}").is_not_null() != stored for name in ("offset", "size", "xxh3", "ext")
        ),
        f"has a status other than {', '.join((*_STORED, *_NOT_STORED))}": ~status.is_in(
            (*_STORED, *_NOT_STORED)
        ).fill_null(False),
        "is marked as stored without a place, or as missing with one": (
            status.is_in(_STORED) & ~stored | status.is_in(_NOT_STORED) & stored
        ).fill_null(False),
    }
    for what, rule in rules.items():
        wrong = items.filter(rule)["item_id"].to_list()
        if wrong:
            yield f"items.parquet: the {modality} of {named('item', wrong)} {what}; {_AGAIN}"
