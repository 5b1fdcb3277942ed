"""Media of a dataset folder on this machine, read at random by offset."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import BinaryIO

import xxhash

from mmrec.data.shards import Location, shard_name
from mmrec.errors import DataError, MediaError

__all__ = ["OpenFile", "OpenFiles", "ShardReader", "is_intact"]

# Far below the 1,024 files that a process may usually open, of which it has several datasets and much else.
MAX_OPEN_FILES = 128


def is_intact(data: bytes, location: Location) -> bool:
    """Whether ``data`` is what was stored at ``location``."""
    return len(data) == location.size and xxhash.xxh3_64_intdigest(data) == location.xxh3


class OpenFile:
    """A file that is closed when nobody holds it any more: never while a thread reads from it."""

    __slots__ = ("_handle", "_length")

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._length = os.fstat(handle).st_size

    def read(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` on; none, and no memory is set aside for them, where the file has fewer."""
        if offset < 0 or size < 0 or offset + size > self._length:
            return b""
        return os.pread(self._handle, size, offset)

    def touch(self) -> None:
        """Set the file's time of modification to now."""
        os.utime(self._handle)

    def __del__(self) -> None:
        os.close(self._handle)


class OpenFiles:
    """The most recently used of many files, kept open. Safe under threads.

    Args:
        limit: files kept open at most; a thread that reads from one beyond them holds it until it is done.
    """

    def __init__(self, limit: int = MAX_OPEN_FILES) -> None:
        self._limit = limit
        self._files: OrderedDict[Hashable, OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, open_file: Callable[[], OpenFile]) -> OpenFile:
        """The file kept under ``key``; ``open_file`` opens it where it is not open."""
        with self._lock:
            file = self._files.get(key)
            if file is not None:
                self._files.move_to_end(key)
                return file
        file = open_file()  # outside the lock: others go on reading meanwhile
        with self._lock:
            self._files[key] = file
            self._files.move_to_end(key)
            if len(self._files) > self._limit:
                self._files.popitem(last=False)
        return file

    def drop(self, key: Hashable) -> None:
        with self._lock:
            self._files.pop(key, None)


class ShardReader:
    """Reads media by location from any thread; pickles without its open files.

    Args:
        root: the dataset folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = OpenFiles()

    def read(self, location: Location) -> bytes:
        """The bytes at ``location``.

        Raises:
            DataError: if the shard cannot be opened.
            MediaError: if the bytes are not those that were stored.
        """
        shard = location.shard
        file = self._files.get(shard, lambda: OpenFile(self._open(shard)))
        try:
            data = file.read(location.size, location.offset)
        except OSError as error:  # a bad place on the disk
            path = self._root / shard_name(shard)
            raise MediaError(f"{path} cannot be read at byte {location.offset:,}: {error.strerror}") from error
        if not is_intact(data, location):
            raise MediaError(f"{self._root / shard_name(shard)} is damaged at byte {location.offset:,}")
        return data

    def open(self, shard: int) -> BinaryIO:
        """The whole shard as a file, to be closed by the caller.

        Raises:
            DataError: if the shard cannot be opened.
        """
        return os.fdopen(self._open(shard), "rb", buffering=1 << 20)

    def _open(self, shard: int) -> int:
        path = self._root / shard_name(shard)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{path} cannot be opened: {error.strerror}") from error

    def __getstate__(self) -> dict:
        return {"root": self._root}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["root"])
