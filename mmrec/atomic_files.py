"""Files that appear whole or not at all, with the size and sha256 that a manifest lists."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = [
    "as_json",
    "commit",
    "entry_of",
    "flush",
    "sha256_of",
    "write_json",
    "write_parquet",
    "write_table",
    "write_whole",
]


def commit(
    path: Path,
    write: Callable[[Path], object],
    *,
    temporary: Path | None = None,
    before: Callable[[], object] = lambda: None,
    flush_folder: bool = True,
) -> dict[str, Any]:
    """Write a file under a temporary name, flush and rename it; return its ``bytes`` and ``sha256``.

    Args:
        temporary: the temporary name, on the same disk; by default beside the file, for one process at a time.
        before: called before the file gets its name; what it raises prevents that.
        flush_folder: have the name on the disk too; who writes many files can do so once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary or path.with_name(f".{path.name}.tmp")
    write(temporary)
    flush(temporary)
    entry = entry_of(temporary)
    before()
    temporary.replace(path)
    if flush_folder:
        flush(path.parent)
    return entry


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(path: Path) -> dict[str, Any]:
    """What a manifest lists of a file: ``bytes`` and ``sha256``."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def as_json(value: Any) -> str:
    """The text of a manifest: keys in order, so that the same content is the same bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a text that is there in full or not at all, whenever the process is killed."""
    commit(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Commit ``value`` as JSON, keys in order."""
    write_whole(path, as_json(value))


def write_table(path: Path, table: pa.Table) -> dict[str, Any]:
    """Commit a Parquet file; return its ``bytes`` and ``sha256``."""
    return commit(path, lambda temporary: write_parquet(temporary, table))


def write_parquet(path: Path, table: pa.Table) -> None:
    """A Parquet file as all of an export are."""
    # Vectors, most of the bytes, do not compress; a dictionary of them would only cost time.
    pq.write_table(table, path, compression="none", use_dictionary=False)
