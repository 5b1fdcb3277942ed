"""Search in an export folder: the items nearest to an item or a vector, from the files alone.

Nothing here needs torch or the dataset, so that a search answers at once. The format of the folder stands in
``mmrec/exporter.py``. With ``index.faiss`` FAISS finds the candidates, without it a product over all vectors does; both
ways score the candidates again in float64 and order them in the same way, so they answer alike.

Legend: V items of the export, D vector width, C candidates.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.errors import ConfigError, DataError, unknown_name

__all__ = [
    "MANIFEST",
    "PARTIAL_MANIFEST",
    "SCHEMA",
    "SCHEMA_VERSION",
    "ExportIndex",
    "Hit",
    "check_file",
    "hits_to_json",
    "read_manifest",
    "recommend",
    "search_by_item",
    "search_by_vector",
]

SCHEMA = "mmrec.export"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
PARTIAL_MANIFEST = "manifest.partial.json"

# Candidates beyond k, so that rounding in float32 cannot push out an item that float64 puts among the first k.
_SPARE_CANDIDATES = 16


@dataclass(frozen=True)
class Hit:
    """One row of an answer. ``rank`` starts at 1; ``score`` is the inner product, for unit vectors the cosine."""

    rank: int
    item_id: str
    title: str
    score: float


def hits_to_json(hits: Sequence[Hit]) -> str:
    """The answer as a JSON list of objects with rank, item_id, title and score."""
    return json.dumps([asdict(hit) for hit in hits], indent=1, ensure_ascii=False)


def search_by_item(export: ExportIndex, item_id: str, k: int) -> list[Hit]:
    """The ``k`` items nearest to ``item_id``, without itself.

    Raises:
        DataError: if the export has no such item; the message names the nearest id.
    """
    return search_by_vector(export, export.vector(item_id), k, exclude=(item_id,))


def recommend(
    export: ExportIndex,
    user_vector: np.ndarray,
    k: int,
    exclude: Iterable[str] = (),
    bonus: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Hit]:
    """The ``k`` items with the greatest inner product with a user's vector, without the items of ``exclude``.

    Args:
        bonus: rows of some items, and what is added to their scores; at least 0. (n,), (n,)

    Raises:
        DataError: if the vector is zero, which is what a user without events has, or an item is unknown.
    """
    if not np.any(user_vector):
        raise DataError("the user has no events to go on; give a user with events, or a list of items")
    return search_by_vector(export, user_vector, k, exclude, bonus)


def search_by_vector(
    export: ExportIndex,
    vector: np.ndarray,
    k: int,
    exclude: Iterable[str] = (),
    bonus: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Hit]:
    """The ``k`` items with the greatest inner product with ``vector``, best first; fewer if fewer are left.

    Equal scores stand in the order of the export.

    Args:
        vector: finite, any length. (D,)
        exclude: item ids that may not be in the answer.
        bonus: rows of some items, and what is added to their inner products; at least 0. (n,), (n,)

    Raises:
        ConfigError: if ``k`` is less than 1.
        DataError: if the vector does not fit, or an excluded item is unknown.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; it must be at least 1")
    vector = np.ascontiguousarray(vector, dtype=np.float32)
    if vector.shape != (export.dim,):
        raise DataError(f"the query has shape {vector.shape}; the vectors of {export.path} have ({export.dim},)")
    if not np.isfinite(vector).all():
        raise DataError("the query vector has NaN or infinite values; give a finite one")
    excluded = {export.item_index(item_id) for item_id in exclude}
    wanted = min(k + len(excluded) + _SPARE_CANDIDATES, export.num_items)
    candidates = export.candidates(vector, wanted)  # (C,)
    if bonus is not None:  # the best of those without bonus, and all that have one
        candidates = np.union1d(candidates, bonus[0])
    if excluded:
        candidates = candidates[~np.isin(candidates, list(excluded))]
    scores = np.einsum("cd,d->c", export.rows(candidates).astype(np.float64), vector.astype(np.float64))
    if bonus is not None:
        added = np.zeros(export.num_items)
        added[bonus[0]] = bonus[1]
        scores = scores + added[candidates]
    best = np.lexsort((candidates, -scores))[:k]
    found = zip(candidates[best], scores[best], strict=True)
    return [
        Hit(rank, export.id_column[idx].as_py(), export.title_column[idx].as_py(), float(score))
        for rank, (idx, score) in enumerate(found, start=1)
    ]


class ExportIndex:
    """An export folder, opened for reading.

    A file is read, and compared with the manifest's sha256, when it is first needed.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]):
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = False) -> ExportIndex:
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
        return self._text_column("index_ids.parquet" if self.has_index else "items.parquet", "item_id")

    @functools.cached_property
    def title_column(self) -> pa.Array:
        """Something to show for each item, in Arrow. (V,)"""
        return self._text_column("items.parquet", "title")

    @functools.cached_property
    def table(self) -> pa.Table:
        """Item id, vector, modalities and source hash of all items, from the parts in order."""
        tables = []
        for part in self.manifest["parts"]:
            tables.append(self._table(part["file"]))
            if tables[-1].num_rows != part["rows"]:
                raise DataError(
                    f"{self.path / part['file']} has {tables[-1].num_rows:,} rows but the manifest says "
                    f"{part['rows']:,}; export again"
                )
        return pa.concat_tables(tables)

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """All vectors, as exported. float32 (V, D)"""
        chunks = [chunk.flatten().to_numpy() for chunk in self.table["vector"].chunks]
        return np.concatenate(chunks).reshape(self.num_items, self.dim)

    @property
    def has_index(self) -> bool:
        return "index.faiss" in self.manifest["files"]

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

    def vector(self, item_id: str) -> np.ndarray:
        """The vector of one item. float32 (D,)"""
        return self.rows(np.array([self.item_index(item_id)]))[0]

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

    def rows(self, idx: np.ndarray) -> np.ndarray:
        """Vectors at the given rows. float32 (n, D)"""
        if self.has_index and "vectors" not in self.__dict__:
            return self._faiss.reconstruct_batch(np.ascontiguousarray(idx, dtype=np.int64))
        return self.vectors[idx]

    def candidates(self, vector: np.ndarray, num: int) -> np.ndarray:
        """Rows of the ``num`` greatest inner products with ``vector``, in no particular order. (num,)"""
        if self.has_index:
            _, found = self._faiss.search(vector[None], num)
            return found[0]
        if num == self.num_items:
            return np.arange(num)
        return np.argpartition(self.vectors @ vector, -num)[-num:]

    @functools.cached_property
    def _row_of(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.id_column.to_pylist())}

    @functools.cached_property
    def _faiss(self) -> Any:
        import faiss

        check_file(self.path, "index.faiss", self.files["index.faiss"], content=True)
        index = faiss.read_index(str(self.path / "index.faiss"))
        if (index.ntotal, index.d) != (self.num_items, self.dim):
            raise DataError(
                f"{self.path / 'index.faiss'} holds {index.ntotal:,} vectors of {index.d} dimensions but the manifest "
                f"says {self.num_items:,} of {self.dim}; export again with --index"
            )
        return index

    def _table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        data = check_file(self.path, name, self.files[name], content=True)
        return pq.read_table(pa.BufferReader(data), columns=columns)

    def _text_column(self, name: str, column: str) -> pa.Array:
        texts = self._table(name, [column])[column].combine_chunks()
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


def check_file(root: Path, name: str, entry: dict[str, Any], *, content: bool) -> bytes:
    """Compare a file with the size, and with ``content`` the sha256, that the manifest gives; return what was read.

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
    if not content:
        return b""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise DataError(
            f"{path} is damaged: its sha256 is not the manifest's; run the same `mmrec export` again to restore it"
        )
    return data
