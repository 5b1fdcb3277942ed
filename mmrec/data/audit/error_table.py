"""``errors.parquet``: nothing that could not be used, or only in part, may be missing from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from mmrec.data.audit.wording import first_of, named
from mmrec.data.error_rows import ERROR_COLUMNS
from mmrec.data.manifest import MEDIA_MODALITIES

__all__ = ["error_problems", "left_out_problems"]

_AGAIN = "ingest the data again"


def error_problems(errors: pl.DataFrame, items: pl.DataFrame | None) -> Iterator[str]:
    """Missing columns, and media that ``items`` marks as unusable, or usable in part, without a row that says why."""
    lacking = [name for name in ERROR_COLUMNS if name not in errors.columns]
    if lacking:
        yield f"errors.parquet lacks the columns {first_of(lacking)}; {_AGAIN}"
        return
    if items is None:
        return
    for modality in MEDIA_MODALITIES:
        told = errors.filter(pl.col("modality") == modality)["item_id"].unique()
        marked = items.filter(pl.col(f"{modality}.status").is_in(("error", "partial")))["item_id"].cast(pl.String)
        silent = marked.filter(~marked.is_in(told.implode())).to_list()
        if silent:
            yield (
                f"errors.parquet does not say why the {modality} of {named('item', silent)} cannot be used, or only in "
                f"part; {_AGAIN}"
            )


def left_out_problems(interactions: dict[str, Any]) -> Iterator[str]:
    """Events given that were neither kept nor left out for a reason."""
    given, kept, left_out = (interactions.get(name) for name in ("given", "kept", "left_out"))
    numbers = [given, kept, *(left_out.values() if isinstance(left_out, dict) else [None])]
    if any(not isinstance(number, int) for number in numbers):
        yield f"manifest.json does not count the events given, kept and left out (by reason); {_AGAIN}"
    elif given != sum(numbers[1:]):
        yield (
            f"manifest.json says {given:,} events were given, but {kept:,} are kept and {sum(numbers[2:]):,} left out "
            f"for a reason; {_AGAIN}"
        )
