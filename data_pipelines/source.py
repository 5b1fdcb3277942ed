"""What the pipelines share: settings, tables read lazily and typed on purpose, one way to a dataset, one command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from mmrec.data.build_dataset import Sources, build_dataset
from mmrec.data.build_settings import BuildConfig, BuildSettings
from mmrec.data.tables import Table
from mmrec.errors import DataError, MMRecError

__all__ = ["SourceConfig", "ingest_tables", "only_file", "run", "scan_csv", "scan_jsonl", "scan_parquet", "table"]

C = TypeVar("C", bound="SourceConfig")


@dataclass(frozen=True, kw_only=True)
class SourceConfig(BuildConfig):
    """What every pipeline asks for, beside the settings of every build."""

    source: Path
    """Folder as the publisher ships it."""


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


def scan_csv(
    path: Path, types: Mapping[str, Any], *, separator: str = ",", header: bool = True, ragged: bool = False
) -> pl.LazyFrame:
    """The named columns of a table, of the given types; without a header the names are those of all columns.

    Args:
        ragged: lines may have more or fewer fields than the header: more are dropped, fewer are null.

    Raises: DataError if the file or a column is missing.
    """
    _check(path)
    quote = '"' if separator == "," else None  # tab-separated tables of the field hold bare quotes
    settings: dict[str, Any] = {
        "separator": separator, "quote_char": quote, "schema_overrides": dict(types), "truncate_ragged_lines": ragged
    }  # fmt: skip
    if not header:
        return pl.scan_csv(path, has_header=False, new_columns=list(types), **settings)
    frame = pl.scan_csv(path, **settings)
    _require(path, _columns(path, frame), types)
    return frame.select(list(types))


def scan_jsonl(path: Path, types: Mapping[str, Any]) -> pl.LazyFrame:
    """The named fields of a file with one JSON object a line, gzip or not.

    A field that a line lacks, or has of another type, is null; a line that is no JSON is an error when it is read.

    Raises: DataError if there is no such file.
    """
    _check(path)
    return pl.scan_ndjson(path, schema=dict(types), ignore_errors=True)


def scan_parquet(path: Path, *columns: str) -> pl.LazyFrame:
    """The named columns of a table.

    Raises: DataError if the file or a column is missing.
    """
    _check(path)
    frame = pl.scan_parquet(path)
    _require(path, _columns(path, frame), columns)
    return frame.select(columns)


def table(frame: pl.LazyFrame, *files: Path) -> Table:
    """A table made of ``files``, by which it is called in messages."""
    return Table(name=" and ".join(map(str, files)), scans=(frame,))


def ingest_tables(
    config: SourceConfig,
    items: Table,
    interactions: Table,
    *,
    name: str,
    source: str,
    home: str,
    licence: str,
    text_columns: tuple[str, ...],
    media_root: Path | None = None,
) -> Path:
    """Build the dataset; neither table is held or written down, and events of items without a row are recorded.

    The manifest tells the settings of the pipeline itself, those that are no paths, under ``build.pipeline``.

    Args:
        home: where the data is to be had.
        media_root: folder that media paths start from; ``config.source`` if not given.

    Raises: DataError as ``build_dataset``.
    """
    shared = {known.name for known in fields(SourceConfig)}
    own = {known.name: getattr(config, known.name) for known in fields(config) if known.name not in shared}
    pipeline = {"name": name} | {key: value for key, value in own.items() if not isinstance(value, Path)}
    settings = BuildSettings(**config.content(), text_columns=text_columns, unknown_items="drop", pipeline=pipeline)
    sources = Sources(
        interactions=interactions,
        items=items,
        media_root=media_root if media_root is not None else config.source,
        name=name,
        source=f"{source}; {home}",
        licence=licence,
    )
    return build_dataset(config, settings, sources)


def _check(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"no file {path}; give the folder as it is published")


def _columns(path: Path, frame: pl.LazyFrame) -> list[str]:
    return table(frame, path).read(lambda scan: scan.head(0).collect()).columns


def _require(path: Path, columns: list[str], wanted: Mapping[str, Any] | tuple[str, ...]) -> None:
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise DataError(f"{path} has no column {', '.join(map(repr, missing))} (it has {', '.join(columns)})")
