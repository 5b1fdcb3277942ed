"""An export folder, opened for reading: its vectors, ids and titles, each file compared with the manifest's hash.

Nothing here needs torch or the dataset. The format of the folder stands in ``mmrec/exporter``.

Legend: V items of the export, D vector width.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.errors import DataError, unknown_name

__all__ = [
    "MANIFEST",
    "PARTIAL_MANIFEST",
    "SCHEMA",
    "SCHEMA_VERSION",
    "ExportFolder",
    "check_file",
    "read_file",
    "read_manifest",
]

SCHEMA = "mmrec.export"
SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
PARTIAL_MANIFEST = "manifest.partial.json"

# Ids that are looked for one by one in a column; for more a dictionary of all pays.
_FEW_IDS = 8


class ExportFolder:
    """An export folder, opened for reading.

    A file is read, and compared with the manifest's sha256, when it is first needed.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path = path
        self.manifest = manifest
        self.searcher: Any = None  # kept by mmrec.index once a search has opened it

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = False) -> ExportFolder:
        """Open the export folder ``path``.

        Args:
            verify: compare all files with their sha256 now.

        Raises:
            DataError: if the folder is no finished export, is of another version, or a file is missing or damaged.
        """
        path = Path(path)
        export = cls(path, read_manifest(path))
        counted = sum(part["rows"] for part in export.manifest["parts"])
        if counted != export.num_items:
            raise DataError(
                f"{path / MANIFEST} lists {counted:,} rows in its parts but {export.num_items:,} items; export again"
            )
        for name, entry in export.files.items():
            check_file(path, name, entry, content=verify)
        return export

    @property
    def num_items(self) -> int:
        return self.manifest["num_items"]

    @property
    def dim(self) -> int:
        return self.manifest["dim"]

    @functools.cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Size and sha256 of every file but the manifest, by its path in the folder."""
        return {part["file"]: part for part in self.manifest["parts"]} | self.manifest["files"]

    @functools.cached_property
    def item_ids(self) -> np.ndarray:
        """The user's own ids as strings, in the order of the vectors. (V,)"""
        return np.array(self.id_column.to_pylist(), dtype=str)

    @functools.cached_property
    def id_column(self) -> pa.Array:
        """``item_ids`` in Arrow: one search needs a few of them, and making Python strings of all takes its time."""
        return self._text_column("items.parquet", "item_id")

    @functools.cached_property
    def title_column(self) -> pa.Array:
        """Something to show for each item, in Arrow. (V,)"""
        return self._text_column("items.parquet", "title")

    @functools.cached_property
    def bitmasks(self) -> np.ndarray:
        """Bit m is set where modality m went into the item's vector. int32 (V,)"""
        return self.read_table("items.parquet", ["modalities"])["modalities"].to_numpy()

    def modalities_of(self, row: int) -> tuple[str, ...]:
        """Names of the modalities that went into the vector at ``row``."""
        bits = int(self.bitmasks[row])
        return tuple(name for bit, name in enumerate(self.manifest["modalities"]) if bits >> bit & 1)

    @functools.cached_property
    def attributes(self) -> pa.Table:
        """What items can be filtered by: columns of the dataset, in the order of the vectors. V rows"""
        return self.read_table("items.parquet").drop_columns(["item_id", "title", "modalities"])

    @functools.cached_property
    def table(self) -> pa.Table:
        """Item id, vector, modalities and source hash of all items, from the parts in order."""
        return pa.concat_tables(self._parts())

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """All vectors, as exported. float32 (V, D)"""
        return _matrix(self.table, self.dim)

    def vector_blocks(self) -> Iterator[np.ndarray]:
        """All vectors in order, one part after the other, for exports larger than memory. float32 (n, D)"""
        for table in self._parts(["vector"]):
            yield _matrix(table, self.dim)

    def item_index(self, item_id: str) -> int:
        """Row of an item id.

        Raises:
            DataError: if the export has no such item; the message names the nearest id.
        """
        row = self.id_column.index(str(item_id)).as_py()
        if row < 0:
            message, _, _ = unknown_name("item_id", str(item_id), self._row_of).partition("; known: ")
            raise DataError(f"{message}; {self.path / 'items.parquet'} lists all {self.num_items:,}")
        return row

    def item_rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """Rows of item ids, in their order. int64 (n,)

        Raises:
            DataError: if the export has no such item; the message names the nearest id.
        """
        known = self._row_of if len(item_ids) > _FEW_IDS or "_row_of" in self.__dict__ else {}
        rows = [known[one] if one in known else self.item_index(one) for one in item_ids]
        return np.array(rows, dtype=np.int64)

    def vector(self, item_id: str) -> np.ndarray:
        """The vector of one item. float32 (D,)"""
        return self.vectors[self.item_index(item_id)]

    def vectors_of(self, item_ids: Iterable[str]) -> np.ndarray:
        """Vectors of the given items in the given order, for example that of a dataset. float32 (n, D)

        Raises:
            DataError: if the export lacks one of them; the message tells how many and an example.
        """
        item_ids = [str(item_id) for item_id in item_ids]
        missing = [item_id for item_id in item_ids if item_id not in self._row_of]
        if missing:
            raise DataError(
                f"{self.path} has no vectors for {len(missing):,} of {len(item_ids):,} items, for example "
                f"{missing[0]!r}; export from the same dataset"
            )
        return self.vectors[[self._row_of[item_id] for item_id in item_ids]]

    @functools.cached_property
    def _row_of(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.id_column.to_pylist())}

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file of the folder, compared with the manifest.

        Raises:
            DataError: if it is missing or damaged.
        """
        data = read_file(self.path, name, self.files[name])
        return pq.read_table(pa.BufferReader(data), columns=columns)

    def _parts(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        for part in self.manifest["parts"]:
            table = self.read_table(part["file"], columns)
            if table.num_rows != part["rows"]:
                raise DataError(
                    f"{self.path / part['file']} has {table.num_rows:,} rows but the manifest says "
                    f"{part['rows']:,}; export again"
                )
            yield table

    def _text_column(self, name: str, column: str) -> pa.Array:
        texts = self.read_table(name, [column])[column].combine_chunks()
        if len(texts) != self.num_items:
            raise DataError(
                f"{self.path / name} has {len(texts):,} rows but the export has {self.num_items:,} items; export again"
            )
        return texts


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a finished export.

    Raises:
        DataError: if the folder is no export, is unfinished, or is of another version.
    """
    if not (path / MANIFEST).is_file():
        if (path / PARTIAL_MANIFEST).is_file():
            raise DataError(f"{path} is an unfinished export; run the same `mmrec export` again and it goes on")
        raise DataError(f"{path} is no export folder, it has no {MANIFEST}; give a folder made by `mmrec export`")
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path / MANIFEST} is damaged ({error}); export again with --overwrite") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        given = manifest.get("schema") if isinstance(manifest, dict) else None
        raise DataError(f"{path / MANIFEST} has schema {given!r}, not {SCHEMA!r}; give a folder made by `mmrec export`")
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"{path} has version {manifest['schema_version']} of the export format; "
            f"this mmrec reads version {SCHEMA_VERSION}: export again"
        )
    return manifest


def check_file(root: Path, name: str, entry: dict[str, Any], *, content: bool) -> None:
    """Compare a file with the size, and with ``content`` the sha256, that the manifest gives; blocks of it in memory.

    Raises:
        DataError: if the file is missing or damaged; the message names it.
    """
    path = root / name
    if not path.is_file():
        raise DataError(f"{path} is missing; run the same `mmrec export` again to restore it")
    if (size := path.stat().st_size) != entry["bytes"]:
        raise DataError(
            f"{path} is damaged: {size:,} bytes, the manifest says {entry['bytes']:,}; "
            "run the same `mmrec export` again to restore it"
        )
    if content:
        with path.open("rb") as file:
            _check_sha256(path, hashlib.file_digest(file, "sha256").hexdigest(), entry)


def read_file(root: Path, name: str, entry: dict[str, Any]) -> bytes:
    """The content of a file that is as the manifest says.

    Raises: as :func:`check_file`.
    """
    check_file(root, name, entry, content=False)
    data = (root / name).read_bytes()
    _check_sha256(root / name, hashlib.sha256(data).hexdigest(), entry)
    return data


def _check_sha256(path: Path, found: str, entry: dict[str, Any]) -> None:
    if found != entry["sha256"]:
        raise DataError(
            f"{path} is damaged: its sha256 is not the manifest's; run the same `mmrec export` again to restore it"
        )


def _matrix(table: pa.Table, dim: int) -> np.ndarray:
    return np.concatenate([chunk.flatten().to_numpy() for chunk in table["vector"].chunks]).reshape(-1, dim)
