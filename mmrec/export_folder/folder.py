"""An export folder, opened for reading: its vectors, ids and titles, each file compared with the manifest's hash.

Legend: V items of the export, D vector width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmrec.data.store import url_of
from mmrec.errors import DataError, unknown_name
from mmrec.export_folder.encodings import Encoding, encoding_of
from mmrec.export_folder.formats import Format, format_of, numbers_of, vector_array
from mmrec.export_folder.manifest import MANIFEST, check_file, files_of, listed_files, parse_manifest, read_manifest

if TYPE_CHECKING:
    from mmrec.data.remote import RemoteFolder

__all__ = ["ExportFolder", "UserVectors", "remote_export"]

# Columns of items.parquet that are not attributes.
_OWN_COLUMNS = frozenset({"item_id", "title", "modalities", "shares"})
# Ids that are looked for one by one in a column; for more a dictionary of all pays.
_FEW_IDS = 8


@dataclass(frozen=True, kw_only=True)
class UserVectors:
    """Users of an export, in the order of the dataset.

    Attributes:
        user_ids: strings. (U,)
        vectors: after the last event of each, decoded; of a user without events zero, but for binary. float32 (U, D)
        events: how many each has. int32 (U,)
        last_times: of the last event, seconds since 1970; null where events have no times. int64 (U,)
    """

    user_ids: pa.Array
    vectors: np.ndarray
    events: np.ndarray
    last_times: pa.Array


class ExportFolder:
    """An export folder, opened for reading.

    A file is read, and compared with the manifest's sha256, when it is first needed.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], remote: RemoteFolder | None = None):
        self.path = path
        self.manifest = manifest
        self._names_of: dict[int, tuple[str, ...]] = {}
        self._coded: dict[str, tuple[np.ndarray, pa.Array]] = {}
        self.remote = remote
        self.searcher: Any = None  # kept by mmrec.index once a search has opened it

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = False) -> ExportFolder:
        """Open the export folder ``path``.

        Args:
            path: a folder, or a URL that fsspec knows, of which copies are kept on this machine (mmrec/data/remote.py):
                of the parts when they are needed, of everything else now.
            verify: compare all files with their sha256 now.

        Raises:
            DataError: if the folder is no finished export, is of another version, or a file is missing or damaged.
        """
        url = url_of(path)
        if url is not None:
            return _open_url(url, verify=verify)
        path = Path(path)
        export = cls(path, read_manifest(path))
        export._check_count()
        for name, entry in export.files.items():
            check_file(path, name, entry, content=verify)
        return export

    def _check_count(self) -> None:
        counted = sum(part["rows"] for part in self.manifest["parts"])
        if counted != self.num_items:
            raise DataError(
                f"{self.path / MANIFEST} lists {counted:,} rows in its parts but {self.num_items:,} items; export again"
            )

    @property
    def num_items(self) -> int:
        return self.manifest["num_items"]

    @property
    def dim(self) -> int:
        return self.manifest["dim"]

    @property
    def encoding(self) -> Encoding:
        """The number format of the stored vectors; ``vectors`` are decoded from it."""
        return encoding_of(self.manifest["dtype"])

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Size and sha256 of every file but the manifest, by its path in the folder."""
        return files_of(self.manifest)

    @functools.cached_property
    def item_ids(self) -> np.ndarray:
        """The user's own ids as strings, in the order of the vectors. (V,)"""
        return np.array(self.id_column.to_pylist(), dtype=str)

    @functools.cached_property
    def id_column(self) -> pa.Array:
        """``item_ids`` in Arrow: one search needs a few of them, and making Python strings of all takes its time."""
        return self._shown["item_id"].combine_chunks()

    @functools.cached_property
    def title_column(self) -> pa.Array:
        """Something to show for each item, in Arrow. (V,)"""
        return self._shown["title"].combine_chunks()

    @functools.cached_property
    def bitmasks(self) -> np.ndarray:
        """Bit m is set where modality m went into the item's vector. int32 (V,)"""
        return self._shown["modalities"].to_numpy()

    def modalities_of(self, row: int) -> tuple[str, ...]:
        """Names of the modalities that went into the vector at ``row``."""
        bits = int(self.bitmasks[row])
        if bits not in self._names_of:
            names = self.manifest["modalities"]
            self._names_of[bits] = tuple(name for bit, name in enumerate(names) if bits >> bit & 1)
        return self._names_of[bits]

    @functools.cached_property
    def shares(self) -> np.ndarray | None:
        """Of each item's fusion weights those of its modalities; a row sums to 1, or to 0 for items that have nothing.
        float16 (V, M); None where the export does not have them."""
        table = self.read_table("items.parquet", ["shares"])
        if "shares" not in table.column_names:
            return None
        return table["shares"].combine_chunks().flatten().to_numpy().reshape(self.num_items, -1)

    @functools.cached_property
    def attributes(self) -> pa.Table:
        """What items can be filtered by: columns of the dataset, in the order of the vectors. V rows"""
        table = self.read_table("items.parquet")
        return table.select([name for name in table.column_names if name not in _OWN_COLUMNS])

    def attributes_of(self, row: int) -> dict[str, Any]:
        """The attributes of the item at ``row``, by column; None where it has no value."""
        return {name: self.attributes[name][row].as_py() for name in self.attributes.column_names}

    def coded(self, name: str) -> tuple[np.ndarray, pa.Array]:
        """Of an attribute column the number of each item's value, len(values) for an empty one, int64 (V,), and the
        values; made once."""
        if name not in self._coded:
            column = self.attributes[name].combine_chunks().dictionary_encode()
            codes = column.indices.fill_null(len(column.dictionary)).to_numpy(zero_copy_only=False)
            self._coded[name] = codes.astype(np.int64), column.dictionary
        return self._coded[name]

    @functools.cached_property
    def table(self) -> pa.Table:
        """item_id, vector as it is stored, scale (int8 only), modalities and source_hash of all items, in order."""
        return pa.concat_tables(table for _, table in self.parts())

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """All vectors, decoded from what ``encoding`` stores; of a float32 export exactly as given. float32 (V, D)"""
        vectors = np.empty((self.num_items, self.dim), dtype=np.float32)
        for start, table in self.parts():
            vectors[start : start + table.num_rows] = self.decode(table)
        return vectors

    def parts(self) -> Iterator[tuple[int, pa.Table]]:
        """First row and table of each part, as in :attr:`table`, one after the other."""
        start = 0
        for part in self.manifest["parts"]:
            yield start, self.part(part)
            start += part["rows"]

    def vector_blocks(self) -> Iterator[np.ndarray]:
        """All vectors in order, one part after the other, for exports larger than memory. float32 (n, D)"""
        for _, table in self.parts():
            yield self.decode(table)

    def part(self, part: dict[str, Any]) -> pa.Table:
        """The table of one part of the manifest.

        Raises: DataError if a file of it is missing or damaged.
        """
        form, path = self._format, self._checked(part["file"])
        try:
            table = form.read_table(path, None)
            if form.read_vectors is not None:
                table = table.add_column(1, *vector_array(form.read_vectors(self._checked(part["vectors"]["file"]))))
            if numbers_of(table["vector"], self.encoding).shape[1] != self.encoding.width(self.dim):
                raise ValueError(f"vectors of {table.schema.field('vector').type}")
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:100]
            raise DataError(f"{path} cannot be read as {form.name} ({reason}); export again") from error
        if table.num_rows != part["rows"]:
            raise DataError(f"{path} has {table.num_rows:,} rows but the manifest says {part['rows']:,}; export again")
        return table

    def part_column(self, name: str) -> pa.ChunkedArray:
        """A column but that of the vectors, of all parts; their files are not compared with their hashes."""
        files = [self.path / part["file"] for part in self.manifest["parts"]]
        return pa.concat_tables([self._format.read_table(file, [name]) for file in files])[name]

    def decode(self, table: pa.Table) -> np.ndarray:
        """Vectors of a table of :meth:`part`. float32 (n, D)"""
        scale = table["scale"].to_numpy() if self.encoding.has_scale else None
        return self.encoding.decode(numbers_of(table["vector"], self.encoding), scale, self.dim)

    @property
    def _format(self) -> Format:
        return format_of(self.manifest["format"])

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
    def users(self) -> UserVectors:
        """Vectors of users, decoded.

        Raises: DataError if the export has none.
        """
        entry = self.manifest["users"]
        if entry is None:
            raise DataError(f"{self.path} has no vectors of users; export with --users")
        table = pa.concat_tables([self.read_table(part["file"]) for part in entry["parts"]])
        return UserVectors(
            user_ids=table["user_id"].combine_chunks(),
            vectors=self.decode(table),
            events=table["events"].to_numpy(),
            last_times=table["last_time"].combine_chunks(),
        )

    @functools.cached_property
    def _row_of(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.id_column.to_pylist())}

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file of the folder, compared with the manifest.

        Raises:
            DataError: if it is missing or damaged.
        """
        return pq.ParquetFile(self._checked(name)).read(columns=columns)

    def _checked(self, name: str) -> Path:
        """Where a file lies, after a look at its sha256."""
        if self.remote is not None:
            self.remote.copy(name)
        check_file(self.path, name, self.files[name], content=True)
        return self.path / name

    @functools.cached_property
    def _shown(self) -> pa.Table:
        """What an answer shows of an item."""
        table = self.read_table("items.parquet", ["item_id", "title", "modalities"])
        if table.num_rows != self.num_items:
            raise DataError(
                f"{self.path / 'items.parquet'} has {table.num_rows:,} rows but the export has {self.num_items:,} "
                "items; export again"
            )
        return table


def remote_export(url: str, manifest: bytes) -> RemoteFolder:
    """The files of the export at a URL whose manifest this is, and their copies on this machine."""
    from mmrec.data.remote import RemoteFolder

    return RemoteFolder(url, listed_files(manifest, url), parse=listed_files, kept_in="exports")


def _open_url(url: str, *, verify: bool) -> ExportFolder:
    from mmrec.data.store import Store  # fsspec is for those who have such a folder

    try:
        data = Store(url).read(MANIFEST)
    except FileNotFoundError as error:
        raise DataError(
            f"{url} is no finished export, it has no {MANIFEST}; give one made by `mmrec export`"
        ) from error
    manifest = parse_manifest(data, url)
    remote = remote_export(url, data)
    if problems := remote.problems(verify=verify):
        raise DataError(f"{problems[0]}; export again")
    for name in remote.files:
        if not name.startswith(("embeddings/", "users/")):
            remote.copy(name)
    export = ExportFolder(remote.copies, manifest, remote)
    export._check_count()
    return export
