"""What the pipelines share: tables read lazily and typed on purpose, ingested through temporary files, one command."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import DataError, MMRecError

__all__ = ["SourceConfig", "ingest_tables", "only_file", "run", "scan_csv", "scan_jsonl"]

C = TypeVar("C", bound="SourceConfig")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """What every pipeline asks for."""

    source: Path
    """Folder as the publisher ships it."""
    out: Path
    """The dataset folder to make."""
    seed: int = 0
    """Seed of the permutation that numbers the items."""
    overwrite: bool = False
    """Replace the dataset folder that exists."""


def run(config_type: type[C], convert: Callable[[C], Path], documentation: str | None) -> None:
    """The command line of a pipeline: prints the folder that it made, or one line of what is wrong (exit code 2)."""
    import tyro

    try:
        print(convert(tyro.cli(config_type, description=documentation)))
    except MMRecError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


def only_file(folder: Path, *patterns: str) -> Path:
    """The one file or folder that fits the first pattern that any fits.

    Raises: DataError if none does, or several do.
    """
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{folder} has several {pattern} ({names}); leave the one that is meant")
    raise DataError(f"{folder} has no {' or '.join(patterns)}; give the folder as it is published")


def scan_csv(path: Path, types: Mapping[str, Any], *, separator: str = ",", header: bool = True) -> pl.LazyFrame:
    """The named columns of a table, of the given types; without a header the names are those of all columns.

    Raises: DataError if the file or a column is missing.
    """
    if not path.is_file():
        raise DataError(f"no file {path}; give the folder as it is published")
    quote = '"' if separator == "," else None  # tab-separated tables of the field hold bare quotes
    if not header:
        names = list(types)
        return pl.scan_csv(
            path,
            separator=separator,
            has_header=False,
            new_columns=names,
            schema_overrides=dict(types),
            quote_char=quote,
        )
    table = pl.scan_csv(path, separator=separator, schema_overrides=dict(types), quote_char=quote)
    _require(path, table.collect_schema().names(), types)
    return table.select(list(types))


def scan_jsonl(path: Path, types: Mapping[str, Any]) -> pl.LazyFrame:
    """The named fields of a file with one JSON object a line, gzip or not; a field that a line lacks is null.

    Raises: DataError if there is no such file.
    """
    if not path.is_file():
        raise DataError(f"no file {path}; give the folder as it is published")
    return pl.scan_ndjson(path, schema=dict(types), ignore_errors=True)


def ingest_tables(
    config: SourceConfig,
    items: pl.LazyFrame,
    interactions: pl.LazyFrame,
    *,
    name: str,
    source: str,
    licence: str,
    **more: Any,
) -> Path:
    """Write both tables without holding them, and build the dataset; events of items without a row are recorded.

    Args:
        more: further settings of :class:`IngestConfig`, such as text_columns and media_root.

    Raises: DataError as ``ingest``, and if a table of the source cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="mmrec-") as folder:
        paths = {}
        for which, table in (("items", items), ("interactions", interactions)):
            paths[which] = Path(folder) / f"{which}.parquet"
            try:
                table.sink_parquet(paths[which])
            except pl.exceptions.PolarsError as error:
                reason = " ".join(str(error).split())[:200]
                raise DataError(f"the {which} of {config.source} cannot be read as published: {reason}") from error
        settings = {"media_root": config.source, "unknown_items": "drop", **more}
        return ingest(
            IngestConfig(
                **paths, **settings, out=config.out, seed=config.seed, overwrite=config.overwrite,
                name=name, source=source, licence=licence,
            )
        )  # fmt: skip


def _require(path: Path, columns: list[str], wanted: Mapping[str, Any]) -> None:
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise DataError(f"{path} has no column {', '.join(map(repr, missing))} (it has {', '.join(columns)})")
