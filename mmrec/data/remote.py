"""A dataset folder in an object store, or wherever else fsspec reaches: ``s3://``, ``gs://``, ``https://``, ``memory://``.

Small files are copied whole and checked by sha256, feature sets when they are first asked for; of shards only the
blocks that are read are fetched. Everything is kept in one folder on this machine, ``~/.cache/mmrec`` or $MMREC_CACHE::

    datasets/<fingerprint>/...    copies of everything but media; caches of frozen encoders lie here too
    exports/<fingerprint>/...     copies of exports (mmrec/export_folder)
    blocks/<sha256>/<number>      4 MiB each of the shards; $MMREC_CACHE_GB (50) gigabytes at most
    builds/<hash of URL>.build    datasets on their way to a URL, until everything has arrived there (build.py)
    check-<random>                what `mmrec check` reads of a URL, of the shards one at a time
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mmrec.atomic_files import sha256_of
from mmrec.data.block_cache import BlockCache, remove_abandoned
from mmrec.data.manifest import MANIFEST, fingerprint, parse_manifest
from mmrec.data.shard_reader import is_intact
from mmrec.data.shards import Location, shard_name
from mmrec.data.store import Store
from mmrec.errors import ConfigError, DataError, MediaError

__all__ = ["RemoteFolder", "RemoteShards", "cache_folder"]

BLOCK_BYTES = 4 << 20
DEFAULT_CACHE_GB = 50.0
# Requests for the sizes of files at once.
_THREADS = 16


class RemoteFolder:
    """A dataset folder, or an export, at a URL. Safe under threads and processes; pickles without connections.

    Args:
        url: where the folder lies.
        manifest: its manifest; of another kind, ``{"files": {name: {bytes, sha256}}}``.
        parse: makes that of the bytes of the manifest and of where it lies.
        kept_in: folder of the copies in the cache.
    """

    def __init__(
        self,
        url: str,
        manifest: dict[str, Any],
        *,
        parse: Callable[[bytes, Path | str], dict[str, Any]] = parse_manifest,
        kept_in: str = "datasets",
    ) -> None:
        self.url = url
        self.manifest = manifest
        self._parse = parse
        self.files: dict[str, dict[str, Any]] = manifest["files"]
        self._store = Store(url)
        for name, facts in self.files.items():
            # Both become paths on this machine, and come from another.
            if PurePosixPath(name).is_absolute() or ".." in name or not re.fullmatch("[0-9a-f]{64}", facts["sha256"]):
                raise DataError(f"{url}/{MANIFEST} is damaged: its entry {name!r} is none that mmrec writes")
        cache = cache_folder()
        self._copies = cache / kept_in / fingerprint(manifest)
        self._blocks = BlockCache(cache / "blocks", _cache_bytes())
        self._whole: set[str] = set()

    @classmethod
    def open(cls, url: str) -> RemoteFolder:
        """Read and judge the manifest at ``url``.

        Raises:
            DataError: if there is none, it is no dataset's, of another schema version, or cannot be read.
            ConfigError: if the driver for such URLs is not installed.
        """
        try:
            data = Store(url).read(MANIFEST)
        except FileNotFoundError as error:
            raise DataError(
                f"{url} has no {MANIFEST}, so it is no finished dataset; make one with `mmrec ingest`"
            ) from error
        return cls(url, parse_manifest(data, url))

    def __reduce__(self) -> tuple:
        make = functools.partial(RemoteFolder, parse=self._parse, kept_in=self._copies.parent.name)
        return make, (self.url, self.manifest)

    @property
    def copies(self) -> Path:
        """Where the copies are kept."""
        return self._copies

    @functools.cached_property
    def shards(self) -> RemoteShards:
        return RemoteShards(self)

    def problems(self, *, verify: bool) -> list[str]:
        """One line for each file that is missing, of another size, or (``verify``: reads it all) of another sha256."""
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda name: self.problem(name, verify=verify), self.files)
            return [problem for problem in found if problem]

    def problem(self, name: str, *, verify: bool = False) -> str | None:
        """What is wrong with one file, as in :meth:`problems`."""
        stated = self.files[name]
        try:
            size = self._store.size(name)
        except FileNotFoundError:
            return f"{self.url}/{name} is missing"
        if size is not None and size != stated["bytes"]:
            return f"{self.url}/{name} is damaged: {size:,} bytes, the manifest says {stated['bytes']:,}"
        if verify:
            digest = hashlib.sha256()
            for chunk in self._chunks(name):
                digest.update(chunk)
            if digest.hexdigest() != stated["sha256"]:
                return f"{self.url}/{name} is damaged: its sha256 is not that of the manifest"
        return None

    def strays(self) -> list[str]:
        """Names of the files there that the manifest does not list; none where the store cannot tell."""
        return sorted(set(self._store.names()) - set(self.files) - {MANIFEST})

    def fetch(self, name: str, path: Path) -> None:
        """Bring a file to ``path``, whatever is in it.

        Raises:
            DataError: if it cannot be read or written.
        """
        self._download(name, path)

    def copy_small_files(self) -> Path:
        """Copy everything but media and vectors to this machine, and return the folder."""
        for name in self.files:
            vectors = name.startswith("features/") and not name.endswith(".present.npy")
            if not name.startswith("media/") and not vectors:
                self.copy(name)
        return self._copies

    def copy(self, name: str) -> Path:
        """The file ``name`` on this machine, copied there if it is not yet.

        Raises:
            DataError: if it cannot be read, is not what the manifest says, or cannot be kept.
        """
        path, stated = self._copies / name, self.files[name]["sha256"]
        if name not in self._whole and not (path.is_file() and sha256_of(path) == stated):
            scratch = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
            try:
                if self._download(name, scratch) != stated:
                    self.refuse_if_replaced()
                    raise DataError(f"{self.url}/{name} is damaged: its sha256 is not that of the manifest")
                scratch.rename(path)
            finally:
                scratch.unlink(missing_ok=True)
        self._whole.add(name)  # a copy is read once a process to see whether it is whole
        return path

    def _download(self, name: str, path: Path) -> str:
        """Write a file to ``path``; its sha256."""
        digest = hashlib.sha256()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(path.parent)
            with path.open("wb") as file:
                for chunk in self._chunks(name):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"cannot keep {self.url}/{name} in {path.parent}: {error.strerror}; make room, or set MMREC_CACHE"
            ) from error
        return digest.hexdigest()

    def refuse_if_replaced(self) -> None:
        """Raises: DataError if another dataset lies at the URL than when this one was opened, or none."""
        try:
            now = self._store.read(MANIFEST, insist=False)
        except FileNotFoundError:
            now = b""
        except DataError:  # a store that does not answer says nothing of what it holds
            return
        with contextlib.suppress(DataError):
            if fingerprint(self._parse(now, self.url)) == fingerprint(self.manifest):
                return
        raise DataError(
            f"{self.url} was replaced or removed while it was read; give the command again to read what is there now"
        )

    def _chunks(self, name: str) -> Iterator[bytes]:
        size = self.files[name]["bytes"]
        for start in range(0, size, BLOCK_BYTES):
            yield self._store.read_range(name, start, min(start + BLOCK_BYTES, size))

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` of a file, through the cache of blocks; less at its end."""
        end = min(end, self.files[name]["bytes"])
        parts = []
        for number in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
            first, last = self._block(name, number)
            begin, stop = max(start, first) - first, min(end, last) - first
            fetch = functools.partial(self._fetch_block, name, first, last)
            parts.append(self._blocks.read(self._block_name(name, number), last - first, begin, stop, fetch))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fetch_block(self, name: str, first: int, last: int) -> bytes:
        try:
            return self._store.read_range(name, first, last)
        except DataError:
            self.refuse_if_replaced()
            raise

    def forget(self, name: str, start: int, end: int) -> None:
        """Drop the blocks of bytes ``start`` to ``end`` of a file."""
        for number in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
            self._blocks.drop(self._block_name(name, number))

    def _block(self, name: str, number: int) -> tuple[int, int]:
        first = number * BLOCK_BYTES
        return first, min(first + BLOCK_BYTES, self.files[name]["bytes"])

    def _block_name(self, name: str, number: int) -> str:
        return f"{self.files[name]['sha256']}/{number:06d}"


class RemoteShards:
    """Reads media by location from the shards of a remote folder, as ``ShardReader`` does from a local one."""

    def __init__(self, folder: RemoteFolder) -> None:
        self._folder = folder

    def read(self, location: Location) -> bytes:
        """The bytes at ``location``.

        Raises:
            DataError: if the shard cannot be read, or the dataset was replaced by another.
            MediaError: if the bytes are not those that were stored, asked for twice.
        """
        name = self._name(location.shard)
        span = location.offset, location.offset + location.size
        data = self._folder.read(name, *span)
        if not is_intact(data, location):
            self._folder.forget(name, *span)  # perhaps the copy is what is damaged
            data = self._folder.read(name, *span)
        if not is_intact(data, location):
            self._folder.refuse_if_replaced()
            raise MediaError(f"{self._folder.url}/{name} is damaged at byte {location.offset:,}")
        return data

    def open(self, shard: int) -> BinaryIO:
        """The whole shard as a file, to be closed by the caller."""
        return io.BufferedReader(_ShardFile(self._folder, self._name(shard)), 1 << 20)

    def _name(self, shard: int) -> str:
        name = shard_name(shard)
        if name not in self._folder.files:
            raise DataError(f"items.parquet of {self._folder.url} names {name}, which the manifest does not list")
        return name


class _ShardFile(io.RawIOBase):
    """A remote shard read in order."""

    def __init__(self, folder: RemoteFolder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._offset = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._folder.read(self._name, self._offset, self._offset + len(buffer))
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)


def cache_folder() -> Path:
    """Where everything of remote datasets is kept on this machine."""
    return Path(os.environ.get("MMREC_CACHE") or Path.home() / ".cache" / "mmrec").expanduser()


def _cache_bytes() -> int:
    given = os.environ.get("MMREC_CACHE_GB") or DEFAULT_CACHE_GB
    try:
        size = float(given)
    except ValueError:
        size = 0.0
    if not size > 0:
        raise ConfigError(f"MMREC_CACHE_GB is {given!r}; it must be a number of gigabytes above 0")
    return int(size * 1e9)
