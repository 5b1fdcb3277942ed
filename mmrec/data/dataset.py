"""The one way to read a dataset folder: the catalogue, its media, and the histories of users."""

from __future__ import annotations

import contextlib
import difflib
import functools
import math
import mmap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import xxhash

from mmrec.data.manifest import MEDIA_FIELDS, MEDIA_MODALITIES, file_problems, fingerprint, read_manifest
from mmrec.data.npy import map_npy
from mmrec.data.sequences import Sequences, id_array
from mmrec.data.shard_reader import ShardReader
from mmrec.data.shards import Location
from mmrec.data.store import url_of
from mmrec.errors import DataError, MediaError, unknown_name

if TYPE_CHECKING:
    from mmrec.data.remote import RemoteFolder

__all__ = ["DAMAGED_VECTOR", "Dataset", "as_text", "verify_dataset"]

DAMAGED_VECTOR = "the vector is damaged: its length is no finite number"


class Dataset:
    """A dataset folder, opened. Safe to read from many threads; pickles as its path.

    Items are named by ``item_idx``, 0 to V - 1, everywhere but at the border to the user, who has ``item_id``.
    ``path`` is the folder; of one in an object store, where its small files are kept on this machine.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], remote: RemoteFolder | None = None):
        self.path = path
        self.manifest = manifest
        self.remote = remote
        self._items = _read_items(path / "items.parquet", manifest)
        self._reader = ShardReader(path) if remote is None else remote.shards
        self._locations: dict[str, dict[str, np.ndarray]] = {}
        self._places: dict[str, tuple[Callable[..., int], ...]] = {}

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = False) -> Dataset:
        """Open the dataset folder ``path`` after checking its manifest and that its files are there in full.

        Args:
            path: a folder, or a URL that fsspec knows (``s3://bucket/name``, ``https://...``), see remote.py.
            verify: read every file and compare its sha256 with the manifest's.

        Raises:
            DataError: if the folder is no dataset, is of another schema version, or a file is missing or damaged.
        """
        url = url_of(path)
        if url is not None:
            remote = _remote_folder(url)
            _refuse(remote.problems(verify=verify))
            return cls(remote.copy_small_files(), remote.manifest, remote)
        path = Path(path)
        manifest = read_manifest(path)
        _refuse(file_problems(path, manifest, verify=verify))
        return cls(path, manifest)

    def __reduce__(self) -> tuple:
        return Dataset, (self.path, self.manifest, self.remote)

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def place(self) -> str:
        """The folder or URL, for messages."""
        return str(self.path) if self.remote is None else self.remote.url

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of the content; equal for equal content in folders of any name."""
        return fingerprint(self.manifest)

    @property
    def num_items(self) -> int:
        return self._items.height

    @property
    def num_users(self) -> int:
        return len(self.sequences)

    @property
    def attributes(self) -> pl.DataFrame:
        """The item table: one row an item, in order of ``item_idx``."""
        return self._items

    @functools.cached_property
    def item_ids(self) -> np.ndarray:
        """The user's own ids as strings, by ``item_idx``. (V,)"""
        return id_array(self._items["item_id"].to_list())

    @functools.cached_property
    def _index_of(self) -> dict[str, int]:
        return {item_id: idx for idx, item_id in enumerate(self._items["item_id"].to_list())}

    def item_index(self, item_id: str) -> int:
        """``item_idx`` of an item id.

        Raises:
            DataError: if the catalogue has no such item; the message names the nearest id.
        """
        idx = self._index_of.get(str(item_id))
        if idx is None:
            # Ids that begin alike: comparing a typing error with a million ids would take minutes.
            alike = [known for known in self._index_of if known[:2] == str(item_id)[:2]]
            nearest = difflib.get_close_matches(str(item_id), alike[:20_000], n=1)
            hint = f"; perhaps you meant {nearest[0]!r}" if nearest else ""
            listing = f"{self.place}/items.parquet"
            raise DataError(f"unknown item_id {item_id!r}{hint}; {listing} lists all {self.num_items:,}")
        return idx

    @functools.cached_property
    def titles(self) -> list[str]:
        """Something to show for each item: its first text field, else its id."""
        columns = [pl.col(name) for name in self.manifest["text_columns"][:1]]
        return self._items.select(pl.coalesce(*columns, pl.col("item_id")).alias("title"))["title"].to_list()

    @functools.cached_property
    def sequences(self) -> Sequences:
        """Histories of all users, mapped from the disk, oldest event first."""
        file = self.path / "sequences" / "sequences.arrow"
        try:
            table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
            items, timestamps, split, weights = (
                _list_column(table, name) if name in table.column_names else None
                for name in ("items", "timestamps", "split", "weights")
            )
            table["user_id"].validate(full=True)  # damaged offsets would have Arrow read anywhere
            user_ids = table["user_id"].to_pylist()
        except (pa.ArrowException, OSError, KeyError, IndexError, AttributeError) as error:
            raise _unreadable(file, "Arrow", error) from error
        if items is None:
            raise _unreadable(file, "Arrow", KeyError("no column 'items'"))
        for name, column in (("timestamps", timestamps), ("split", split), ("weights", weights)):
            if column is not None and not np.array_equal(column[0], items[0]):
                reason = f"lists of column {name!r} are not as long as those of 'items'"
                raise _unreadable(file, "Arrow", ValueError(reason))
        if len(items[1]) and not 0 <= items[1].min() <= items[1].max() < self.num_items:
            raise DataError(
                f"{file}: events name items outside of 0 to {self.num_items - 1:,}; run `mmrec check`, and ingest the "
                "data again"
            )
        return Sequences(
            user_ids=id_array(user_ids),
            offsets=items[0],
            item_idx=items[1],
            timestamps=None if timestamps is None else timestamps[1],
            split=None if split is None else split[1],
            order=self.manifest["interactions"]["order"],
            weights=None if weights is None else weights[1],
        )

    @functools.cached_property
    def modalities(self) -> tuple[str, ...]:
        """What at least one item has: of image, text, audio, video, and the names of feature sets."""
        media = [name for name in MEDIA_MODALITIES if self.present(name).any()]
        return (*media, *(name for name in self.manifest["features"] if self.present(name).any()))

    def present(self, modality: str) -> np.ndarray:
        """True for the items that have a usable ``modality``. bool (V,)

        Raises:
            DataError: if the dataset knows no such modality.
        """
        if modality in MEDIA_MODALITIES:
            return self._where(modality)["shard"] >= 0
        self._check_feature_set(modality)
        flags = map_npy(self.path / "features" / f"{modality}.present.npy")
        if flags.shape != (self.num_items,) or flags.dtype != np.bool_:
            raise self._misfit(modality, "present.npy", flags)
        return np.array(flags)

    def read(self, modality: str, item_idx: int) -> bytes | str | np.ndarray:
        """What the item has of ``modality``: bytes of a medium, a text, or a float32 vector.

        Raises:
            DataError: if the item lacks it.
            MediaError: if the stored bytes are damaged, a text is no UTF-8, or a vector is not finite.
        """
        if modality in MEDIA_MODALITIES:
            location = self.location(modality, item_idx)
            if location is None:
                raise self._absent(modality, item_idx)
            data = self._reader.read(location)
            return as_text(data) if modality == "text" else data
        if not self._features_present(modality)[item_idx]:
            raise self._absent(modality, item_idx)
        vector = np.asarray(self.features(modality)[item_idx], dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            is_finite = math.isfinite(np.dot(vector, vector))  # what finite_rows asks of many
        if not is_finite:
            raise MediaError(DAMAGED_VECTOR)
        return vector

    def texts(self, items: Iterable[int]) -> Iterator[tuple[int, str]]:
        """Item and text, of the items whose text is there and not damaged: for what learns from many texts at once.

        Who reads them one by one for training, and counts the damaged ones, is ``CatalogInputs``.
        """
        there = self.present("text")
        for item in items:
            if there[item]:
                with contextlib.suppress(MediaError):
                    yield int(item), str(self.read("text", item))

    def location(self, modality: str, item_idx: int) -> Location | None:
        """Where the item's medium or text lies; None if it has none."""
        if modality not in self._places:
            where = self._where(modality)
            # `array.item` gives a Python integer in a third of the time of indexing and converting.
            self._places[modality] = tuple(where[field].item for field in ("shard", "offset", "size", "xxh3"))
        shard, offset, size, xxh3 = self._places[modality]
        number = shard(item_idx)
        return None if number < 0 else Location(number, offset(item_idx), size(item_idx), xxh3(item_idx))

    def media_places(self, modality: str) -> tuple[np.ndarray, np.ndarray]:
        """Shard, -1 for items without the modality, and offset of each item's medium or text. int (V,), (V,)"""
        where = self._where(modality)
        return where["shard"], where["offset"]

    def open_shard(self, shard: int) -> BinaryIO:
        """A whole shard as a file to read in order, wherever it lies."""
        return self._reader.open(shard)

    def feature_dim(self, name: str) -> int:
        return self.features(name).shape[1]

    def features(self, name: str) -> np.ndarray:
        """The vectors of a feature set, float32 or float16; rows of absent items are zero. (V, dim)"""
        if name not in self._feature_maps:
            self._check_feature_set(name)
            vectors = map_npy(self._file(f"features/{name}.npy"))
            if vectors.ndim != 2 or len(vectors) != self.num_items or vectors.dtype not in (np.float32, np.float16):
                raise self._misfit(name, "npy", vectors)
            self._feature_maps[name] = vectors
        return self._feature_maps[name]

    def let_go(self) -> None:
        """Give back the memory of feature sets that were read: mapped files stay in it as long as there is room.

        For who reads a dataset larger than memory once, from the beginning to the end.
        """
        for vectors in self._feature_maps.values():
            mapped = getattr(vectors, "_mmap", None)
            if mapped is not None:
                mapped.madvise(mmap.MADV_DONTNEED)

    def source_hash(self, item_idx: int) -> str:
        """Hash of all that the item consists of; it changes when, and only when, one of its modalities does."""
        return self.source_hashes(np.array([item_idx]))[0]

    def source_hashes(self, item_idx: np.ndarray) -> list[str]:
        """:meth:`source_hash` of many items, at a microsecond or so each."""
        contents = [b""] * len(item_idx)
        for modality in MEDIA_MODALITIES:
            where = self._where(modality)
            there = np.flatnonzero(where["shard"][item_idx] >= 0)
            for row, value in zip(there.tolist(), where["xxh3"][item_idx[there]].tolist(), strict=True):
                contents[row] += f"{modality}:{value:016x};".encode()
        for name in self.manifest["features"]:
            there = np.flatnonzero(self._features_present(name)[item_idx])
            rows = self.features(name)[item_idx[there]]
            data, size, prefix = rows.tobytes(), rows[:1].nbytes, f"{name}:".encode()
            for number, row in enumerate(there.tolist()):
                contents[row] += prefix + data[number * size : (number + 1) * size]
        return list(map(xxhash.xxh3_128_hexdigest, contents))

    def media_hashes(self, modality: str) -> np.ndarray:
        """XXH3 of each item's medium or text; 0 where there is none. uint64 (V,)"""
        return self._where(modality)["xxh3"].astype(np.uint64)

    def media_facts(self, modality: str, name: str) -> np.ndarray:
        """A measured property of each item's medium, such as "width" or "duration_s"; NaN where unknown. (V,)"""
        column = self._items[f"{modality}.{name}"].cast(pl.Float64)
        return column.fill_null(float("nan")).to_numpy()

    def _file(self, name: str) -> Path:
        return self.path / name if self.remote is None else self.remote.copy(name)

    def _where(self, modality: str) -> dict[str, np.ndarray]:
        if modality not in self._locations:
            columns = {field: self._items[f"{modality}.{field}"] for field in ("shard", "offset", "size", "xxh3")}
            self._locations[modality] = {
                field: column.fill_null(-1 if field == "shard" else 0).to_numpy() for field, column in columns.items()
            }
        return self._locations[modality]

    @functools.cached_property
    def _feature_maps(self) -> dict[str, Any]:
        return {}

    @functools.cached_property
    def _presence(self) -> dict[str, np.ndarray]:
        return {}

    def _features_present(self, name: str) -> np.ndarray:
        if name not in self._presence:
            self._presence[name] = self.present(name)
        return self._presence[name]

    def _check_feature_set(self, name: str) -> None:
        if name not in self.manifest["features"]:
            raise DataError(unknown_name("modality", name, [*MEDIA_MODALITIES, *self.manifest["features"]]))

    def _misfit(self, name: str, ending: str, found: np.ndarray) -> DataError:
        return DataError(
            f"{self.place}/features/{name}.{ending} holds {found.dtype} of shape {found.shape}, which does not go with "
            f"{self.num_items:,} items; run `mmrec check`, and ingest the data again"
        )

    def _absent(self, modality: str, item_idx: int) -> DataError:
        item_id = str(self.item_ids[item_idx])
        return DataError(f"item {item_id!r} has no {modality}; ask present({modality!r}) first")


def as_text(data: bytes) -> str:
    """Raises: MediaError if the stored text is none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MediaError(f"the stored text is no UTF-8: {error.reason} at byte {error.start:,}") from error


def verify_dataset(path: Path | str) -> list[str]:
    """Everything wrong with the files of a dataset folder, one line each; empty if all is well.

    Reads every byte. A folder that is no dataset, or of another version, is one problem too.
    """
    try:
        if (url := url_of(path)) is not None:
            return _remote_folder(url).problems(verify=True)
        manifest = read_manifest(Path(path))
    except DataError as error:
        return [str(error)]
    return file_problems(Path(path), manifest, verify=True)


def _remote_folder(url: str) -> RemoteFolder:
    from mmrec.data.remote import RemoteFolder  # fsspec is for those who have such a folder

    return RemoteFolder.open(url)


def _refuse(problems: list[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more files)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{more}; ingest the data again")


def _read_items(file: Path, manifest: dict[str, Any]) -> pl.DataFrame:
    try:
        items = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(file, "Parquet", error) from error
    needed = ["item_idx", "item_id", "media_key", *manifest["text_columns"]]
    for modality in MEDIA_MODALITIES:
        needed += [f"{modality}.{name}" for name in ("shard", "offset", "size", "xxh3", "ext", *MEDIA_FIELDS[modality])]
    lacking = [name for name in needed if name not in items.columns]
    if lacking:
        raise DataError(f"{file} lacks the column {lacking[0]!r}; ingest the data again")
    return items


def _unreadable(file: Path, kind: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:100]
    return DataError(f"{file} cannot be read as {kind} ({reason}); run `mmrec check`, and ingest the data again")


def _list_column(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and values of a list column, without a copy: the file holds one batch."""
    chunk = table[name].chunk(0)
    offsets, values = chunk.offsets.to_numpy(), chunk.values.to_numpy()
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise pa.ArrowInvalid(f"lists of column {name!r} do not hang together")
    return offsets, values
