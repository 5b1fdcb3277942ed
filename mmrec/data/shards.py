"""Media in tar shards: written for plain WebDataset readers, read at random by offset."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path

import xxhash

from mmrec.data.manifest import Writer
from mmrec.errors import DataError, MediaError

__all__ = ["Location", "ShardReader", "ShardWriter", "item_key", "shard_name"]


@dataclass(frozen=True)
class Location:
    """Where the bytes of one medium lie, and their hash."""

    shard: int
    offset: int
    size: int
    xxh3: int


def item_key(item_idx: int) -> str:
    """WebDataset key of an item: of fixed width, so that keys sort; without a dot, at which readers would split it."""
    return f"{item_idx:09d}"


def shard_name(shard: int) -> str:
    return f"media/shard-{shard:05d}.tar"


class ShardWriter:
    """Appends items to tar shards of at most ``max_bytes`` (one item is never split); same items, same bytes."""

    def __init__(self, writer: Writer, max_bytes: int):
        self._writer = writer
        self._max_bytes = max_bytes
        self._tar: tarfile.TarFile | None = None
        self._num_items = 0
        self.num_shards = 0

    def add(self, item_idx: int, media: dict[str, tuple[str, bytes]]) -> dict[str, Location]:
        """Store ``media`` (modality -> extension, bytes) of one item; items come in ascending order."""
        if not media:
            return {}
        size = sum(1024 + len(data) for _, data in media.values())
        if self._tar is not None and self._tar.offset + size > self._max_bytes:
            self.close()
        if self._tar is None:
            path = self._writer.path(shard_name(self.num_shards))
            self._tar = tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT)
            self.num_shards += 1
            self._num_items = 0
        self._num_items += 1
        locations = {}
        for modality, (ext, data) in media.items():
            # TarInfo's defaults are owner 0 and mtime 0: the bytes depend on the content alone.
            info = tarfile.TarInfo(f"{item_key(item_idx)}.{modality}.{ext}")
            info.size = len(data)
            offset = self._tar.offset + tarfile.BLOCKSIZE
            self._tar.addfile(info, io.BytesIO(data))
            locations[modality] = Location(self.num_shards - 1, offset, len(data), xxhash.xxh3_64_intdigest(data))
        return locations

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None
            self._writer.done(shard_name(self.num_shards - 1), self._num_items)


class ShardReader:
    """Reads media by location from any thread; pickles without its open files."""

    def __init__(self, root: Path):
        self._root = root
        self._handles: dict[int, int] = {}
        self._lock = threading.Lock()

    def read(self, location: Location) -> bytes:
        """The bytes at ``location``.

        Raises:
            DataError: if the shard cannot be opened.
            MediaError: if the bytes are not those that were stored.
        """
        data = os.pread(self._handle(location.shard), location.size, location.offset)
        if len(data) != location.size or xxhash.xxh3_64_intdigest(data) != location.xxh3:
            raise MediaError(f"{self._root / shard_name(location.shard)} is damaged at byte {location.offset:,}")
        return data

    def _handle(self, shard: int) -> int:
        handle = self._handles.get(shard)
        if handle is None:
            with self._lock:
                if shard not in self._handles:
                    path = self._root / shard_name(shard)
                    try:
                        self._handles[shard] = os.open(path, os.O_RDONLY)
                    except OSError as error:
                        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
                handle = self._handles[shard]
        return handle

    def __getstate__(self) -> dict:
        return {"root": self._root}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["root"])

    def __del__(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
