"""Blocks of files that lie far away, kept on the local disk up to a bound.

One file a block, ``<folder>/<sha256 of the whole file>/<number>``, so that equal shards of several datasets are kept
once. Processes share the folder: a block appears by renaming, its time of modification is that of its last use, and
whoever goes past the bound removes the least recently used. Nothing here is more than a copy: the folder can be
removed at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mmrec.data.shard_reader import OpenFile, OpenFiles
from mmrec.errors import DataError

__all__ = ["BlockCache", "remove_abandoned"]

# Removing goes on down to this share of the bound, so that not every new block starts it again.
_KEPT_SHARE = 0.9
# A temporary file of this age belongs to a process that was killed.
_ABANDONED_S = 3600.0


class BlockCache:
    """Safe under threads and several processes.

    Args:
        folder: where the blocks are kept.
        max_bytes: their size altogether at most.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._files = OpenFiles()
        # Threads that miss one block wait for the first of them; others are seldom in their way.
        self._locks = [threading.Lock() for _ in range(64)]

    def read(self, name: str, size: int, begin: int, end: int, fetch: Callable[[], bytes]) -> bytes:
        """Bytes ``begin`` to ``end`` of the block ``name`` of ``size`` bytes, which ``fetch`` brings if it is not here.

        Raises:
            DataError: if the block cannot be kept.
        """
        block = self._files.get(name, lambda: self._open(name, size, fetch))
        try:
            block.touch()
            return block.read(end - begin, begin)
        except OSError as error:
            raise self._unusable(error) from error

    def drop(self, name: str) -> None:
        """Forget a block, so that it is fetched again."""
        self._files.drop(name)
        (self.folder / name).unlink(missing_ok=True)

    def _open(self, name: str, size: int, fetch: Callable[[], bytes]) -> OpenFile:
        with self._locks[hash(name) % len(self._locks)]:
            try:
                handle = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return self._fetch(name, fetch)
            except OSError as error:
                raise self._unusable(error) from error
            block = OpenFile(handle)
            # A block is written in full before it has its name, but a machine that went down may have lost its end.
            return block if os.fstat(handle).st_size == size else self._fetch(name, fetch)

    def _fetch(self, name: str, fetch: Callable[[], bytes]) -> OpenFile:
        data = fetch()
        path = self.folder / name
        scratch = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(data)
            # Opened before it has its name: another process may remove it at once.
            block = OpenFile(os.open(scratch, os.O_RDONLY | os.O_CLOEXEC))
            scratch.rename(path)
            self._make_room(len(data))
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise self._unusable(error) from error
        return block

    def _unusable(self, error: OSError) -> DataError:
        return DataError(
            f"cannot keep blocks in {self.folder}: {error.strerror}; make room, or set MMREC_CACHE and MMREC_CACHE_GB"
        )

    def _make_room(self, added: int) -> None:
        """Add to the size that all processes share, and remove blocks if that is past the bound."""
        with (self.folder / "size").open("a+", encoding="latin-1") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known = file.read(32)
            # Nobody has counted yet, or a machine that went down has left something else.
            total = int(known) + added if known.isdecimal() and known.isascii() else self.max_bytes + 1
            if total > self.max_bytes:
                total = self._remove_oldest()
            file.truncate(0)
            file.write(str(total))

    def _remove_oldest(self) -> int:
        """Remove the least recently used blocks; the bytes that stay."""
        blocks, total = [], 0
        for folder in self.folder.iterdir():
            if folder.is_dir():
                remove_abandoned(folder)
        for path in self.folder.glob("*/*"):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue  # another process dropped it
            if ".tmp-" not in path.name:
                blocks.append((facts.st_mtime_ns, facts.st_size, path))
                total += facts.st_size
        if total <= self.max_bytes:
            return total
        for _, size, path in sorted(blocks):
            if total <= self.max_bytes * _KEPT_SHARE:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files (``NAME.tmp-...``) that processes which were killed have left in ``folder``."""
    for path in folder.glob("*.tmp-*"):
        with contextlib.suppress(FileNotFoundError):  # another process did it
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
