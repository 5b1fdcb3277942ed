"""Writes tar shards of bounded size, whose bytes depend on their members alone."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from dataclasses import dataclass
from pathlib import Path

import xxhash

from mmrec.atomic_files import entry_of, flush
from mmrec.data.shards import Location

__all__ = ["Shard", "ShardWriter"]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A finished tar.

    Attributes:
        name: of the file, in the folder of the writer.
        bytes, sha256: of the file.
        num_items: items with something in it.
    """

    name: str
    bytes: int
    sha256: str
    num_items: int


class ShardWriter:
    """A context manager. The tars appear under their names when it ends well, and not at all otherwise.

    Args:
        folder, name: tars are called ``<name>-0.tar`` and so on.
        max_bytes: of a tar; the members of an item stay together, so that one large item may make a larger tar.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        self.shards: list[Shard] = []
        self._folder, self._name, self._max_bytes = folder, name, max_bytes
        self._tar: tarfile.TarFile | None = None
        self._num_items = 0

    def add(self, members: list[tuple[str, bytes]]) -> list[Location]:
        """Write the members, name and bytes, of one item; where each lies, the shards counted from 0 on."""
        size = sum(tarfile.BLOCKSIZE + _padded(len(data), tarfile.BLOCKSIZE) for _, data in members)
        if self._tar is not None:
            whole = _padded(self._tar.offset + size + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)
            if whole > self._max_bytes:
                self._finish(self._tar)
        if self._tar is None:
            self._tar = tarfile.TarFile(self._scratch(len(self.shards)), "w", format=tarfile.USTAR_FORMAT)
        self._num_items += 1
        return [self._add(self._tar, name, data) for name, data in members]

    def _add(self, tar: tarfile.TarFile, name: str, data: bytes) -> Location:
        info = tarfile.TarInfo(name)  # owner 0 and mtime 0 by default
        info.size = len(data)
        offset = tar.offset + tarfile.BLOCKSIZE
        tar.addfile(info, io.BytesIO(data))
        return Location(len(self.shards), offset, len(data), xxhash.xxh3_64_intdigest(data))

    def _finish(self, tar: tarfile.TarFile) -> None:
        tar.close()
        self._tar = None
        number = len(self.shards)
        flush(self._scratch(number))
        self.shards.append(
            Shard(name=f"{self._name}-{number}.tar", **entry_of(self._scratch(number)), num_items=self._num_items)
        )
        self._num_items = 0

    def _scratch(self, number: int) -> Path:
        # Two machines may be at the same unit, one of them given up for lost.
        return self._folder / f".{self._name}-{number}.tar.{socket.gethostname()}.{os.getpid()}"

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None and self._tar is not None:
            self._finish(self._tar)
        if self._tar is not None:
            self._tar.close()
            self._scratch(len(self.shards)).unlink()
        for number, shard in enumerate(self.shards):
            if kind is None:
                self._scratch(number).replace(self._folder / shard.name)
            else:
                self._scratch(number).unlink()


def _padded(size: int, block: int) -> int:
    return -(-size // block) * block
