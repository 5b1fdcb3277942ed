"""A dataset folder in an object store, or wherever else fsspec reaches: ``s3://``, ``gs://``, ``https://``, ``memory://``.

Small files are copied whole and checked by sha256, feature sets when they are first asked for; of shards only the
blocks that are read are fetched. Everything is kept in one folder on this machine, ``~/.cache/mmrec`` or $MMREC_CACHE::

    datasets/<fingerprint>/...    copies of everything but media; caches of frozen encoders lie here too
    blocks/<sha256>/<number>      4 MiB each of the shards; $MMREC_CACHE_GB (50) gigabytes at most

Credentials and endpoints are found as fsspec and its drivers do: AWS_... variables, FSSPEC_... variables,
``~/.config/fsspec``.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from mmrec.data.block_cache import BlockCache
from mmrec.data.manifest import MANIFEST, fingerprint, parse_manifest
from mmrec.data.shard_reader import is_intact
from mmrec.data.shards import Location, shard_name
from mmrec.errors import ConfigError, DataError, MediaError

__all__ = ["RemoteFolder", "RemoteShards"]

logger = logging.getLogger(__name__)

BLOCK_BYTES = 4 << 20
# An answer is asked for so many times, with a pause that doubles between them: seven seconds altogether.
ATTEMPTS = 6
BACKOFF_S = 0.25
DEFAULT_CACHE_GB = 50.0
# Requests for the sizes of files at once.
_THREADS = 16
# Asking again changes nothing.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)

Answer = TypeVar("Answer")


class RemoteFolder:
    """A dataset folder at a URL. Safe under threads and processes; pickles without connections.

    Args:
        url: where the folder lies.
        manifest: its manifest.
    """

    def __init__(self, url: str, manifest: dict[str, Any]) -> None:
        self.url = url
        self.manifest = manifest
        self.files: dict[str, dict[str, Any]] = manifest["files"]
        self._store = _Store(url)
        for name, facts in self.files.items():
            # Both become paths on this machine, and come from another.
            if PurePosixPath(name).is_absolute() or ".." in name or not re.fullmatch("[0-9a-f]{64}", facts["sha256"]):
                raise DataError(f"{url}/{MANIFEST} is damaged: its entry {name!r} is none that mmrec writes")
        cache = _cache_folder()
        self._copies = cache / "datasets" / fingerprint(manifest)
        self._blocks = BlockCache(cache / "blocks", _cache_bytes())

    @classmethod
    def open(cls, url: str) -> RemoteFolder:
        """Read and judge the manifest at ``url``.

        Raises:
            DataError: if there is none, it is no dataset's, of another schema version, or cannot be read.
            ConfigError: if the driver for such URLs is not installed.
        """
        url = url.rstrip("/")
        return cls(url, parse_manifest(_Store(url).read(MANIFEST), url))

    def __reduce__(self) -> tuple:
        return RemoteFolder, (self.url, self.manifest)

    @functools.cached_property
    def shards(self) -> RemoteShards:
        return RemoteShards(self)

    def problems(self, *, verify: bool) -> list[str]:
        """One line for each file that is missing, of another size, or (``verify``: reads it all) of another sha256."""
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda name: self._problem(name, verify), self.files)
            return [problem for problem in found if problem]

    def _problem(self, name: str, verify: bool) -> str | None:
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
        path = self._copies / name
        stated = self.files[name]
        if path.is_file() and path.stat().st_size == stated["bytes"]:
            return path
        digest = hashlib.sha256()
        scratch = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("wb") as file:
                for chunk in self._chunks(name):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != stated["sha256"]:
                raise DataError(f"{self.url}/{name} is damaged: its sha256 is not that of the manifest")
            scratch.rename(path)
        except OSError as error:
            raise DataError(f"cannot keep {self.url}/{name} in {self._copies}: {error}; set MMREC_CACHE") from error
        finally:
            scratch.unlink(missing_ok=True)
        return path

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
            fetch = functools.partial(self._store.read_range, name, first, last)
            parts.append(self._blocks.read(self._block_name(name, number), last - first, begin, stop, fetch))
        return parts[0] if len(parts) == 1 else b"".join(parts)

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
            DataError: if the shard cannot be read.
            MediaError: if the bytes are not those that were stored, asked for twice.
        """
        name = self._name(location.shard)
        span = location.offset, location.offset + location.size
        data = self._folder.read(name, *span)
        if not is_intact(data, location):
            self._folder.forget(name, *span)  # perhaps the copy is what is damaged
            data = self._folder.read(name, *span)
        if not is_intact(data, location):
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


class _Store:
    """The files below a URL; every request is made again, a few times, if it fails."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connected: tuple[int, Any, str] | None = None

    def _connection(self) -> tuple[Any, str]:
        # Connections do not survive a fork.
        if self._connected is None or self._connected[0] != os.getpid():
            import fsspec.core

            try:
                files, root = fsspec.core.url_to_fs(self._url)
            except (ImportError, ValueError) as error:
                raise ConfigError(
                    f"{self._url} cannot be opened: {error}; s3:// needs `pip install s3fs`, gs:// gcsfs, az:// adlfs"
                ) from error
            self._connected = os.getpid(), files, root.rstrip("/")
        return self._connected[1:]

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where the store does not say.

        Raises:
            FileNotFoundError: if there is no such file.
        """
        files, root = self._connection()
        return self._insist(name, lambda: files.info(f"{root}/{name}")["size"])

    def read(self, name: str) -> bytes:
        files, root = self._connection()
        try:
            return self._insist(name, lambda: files.cat_file(f"{root}/{name}"))
        except FileNotFoundError as error:
            raise DataError(
                f"{self._url} has no {name}, so it is no finished dataset; copy one there that `mmrec ingest` made"
            ) from error

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` of a file."""
        files, root = self._connection()

        def whole() -> bytes:
            data = files.cat_file(f"{root}/{name}", start=start, end=end)
            if len(data) != end - start:
                raise OSError(f"{len(data):,} bytes came in place of {end - start:,}")
            return data

        try:
            return self._insist(name, whole)
        except FileNotFoundError as error:
            raise DataError(f"{self._url}/{name} is missing; copy the dataset there again") from error

    def _insist(self, name: str, ask: Callable[[], Answer]) -> Answer:
        for attempt in range(ATTEMPTS):
            try:
                return ask()
            except FileNotFoundError:
                raise
            except _LASTING as error:
                raise DataError(f"{self._url}/{name} cannot be read: {error or type(error).__name__}") from error
            except Exception as error:  # each driver has classes of its own for what passes
                if attempt + 1 == ATTEMPTS:
                    raise DataError(
                        f"{self._url}/{name} cannot be read, tried {ATTEMPTS} times: {type(error).__name__}: {error}"
                    ) from error
                logger.debug("%s/%s: %s; trying again", self._url, name, error)
                time.sleep(BACKOFF_S * 2**attempt * random.uniform(0.75, 1.25))  # not all ranks at once
        raise AssertionError("the last attempt returns or raises")


def _cache_folder() -> Path:
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
