"""Files below a URL, wherever fsspec reaches: every request is made again, a few times, if it fails.

Credentials and endpoints are found as fsspec and its drivers do: AWS_... variables, FSSPEC_... variables,
``~/.config/fsspec``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mmrec.errors import ConfigError, DataError

__all__ = ["Store", "url_of"]

logger = logging.getLogger(__name__)

# An answer is asked for so many times, with a pause that doubles between them: seven seconds altogether.
ATTEMPTS = 6
BACKOFF_S = 0.25
# Asking again changes nothing.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)

Answer = TypeVar("Answer")


def url_of(path: Path | str) -> str | None:
    """The URL that was given, also as a Path, which makes one slash of two; None for a folder."""
    found = re.match(r"([a-z][a-z0-9+.-]+):(//?)(?=.)", str(path))
    rest = "" if found is None else str(path)[found.end() :].rstrip("/")
    if found is None or not rest:
        return None
    if found[1] in ("file", "local") and found[2] == "/":
        rest = f"/{rest}"  # of these the third slash is the root of the disk
    return f"{found[1]}://{rest}"


class Store:
    """The files below a URL. Safe under threads and forks.

    Args:
        url: of the folder.

    Every method raises DataError if the store does not answer, or refuses, and ConfigError if the driver for such URLs
    is not installed.
    """

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

    def names(self) -> list[str]:
        """Of all files below the URL; empty where they cannot be listed, as on a web server."""
        files, root = self._connection()
        if "http" in files.protocol:
            return []
        return [path.removeprefix(root).lstrip("/") for path in self._insist("", lambda: files.find(root))]

    def is_empty(self) -> bool:
        """Whether no file lies below the URL."""
        files, root = self._connection()
        return not self._insist("", lambda: any(names for _, _, names in files.walk(root)))

    def read(self, name: str, *, insist: bool = True) -> bytes:
        """A whole file.

        Args:
            insist: ask again if the request fails.

        Raises:
            FileNotFoundError: if there is no such file.
        """
        files, root = self._connection()
        return self._insist(name, lambda: files.cat_file(f"{root}/{name}"), attempts=ATTEMPTS if insist else 1)

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

    def put(self, name: str, file: Path) -> None:
        """Write a file of this machine there, in place of what has the name."""
        files, root = self._connection()

        def write() -> None:
            files.put_file(str(file), f"{root}/{name}")
            there, here = files.info(f"{root}/{name}")["size"], file.stat().st_size
            if there not in (None, here):
                raise OSError(f"{there:,} of {here:,} bytes arrived")

        try:
            self._insist(name, write, "written")
        except FileNotFoundError as error:  # such as a bucket
            raise DataError(f"{self._url}/{name} cannot be written: {_one_line(error)}") from error

    def remove(self, name: str) -> None:
        """Remove a file if there is one."""
        files, root = self._connection()
        with contextlib.suppress(FileNotFoundError):
            self._insist(name, lambda: files.rm_file(f"{root}/{name}"), "removed")

    def _insist(self, name: str, ask: Callable[[], Answer], done: str = "read", attempts: int | None = None) -> Answer:
        attempts = attempts or ATTEMPTS
        for attempt in range(attempts):
            try:
                return ask()
            except FileNotFoundError:
                raise
            except _LASTING as error:
                raise DataError(f"{self._url}/{name} cannot be {done}: {_one_line(error)}") from error
            except Exception as error:  # each driver has classes of its own for what passes
                if attempt + 1 == attempts:
                    raise DataError(
                        f"{self._url}/{name} cannot be {done}, tried {attempts} times: {type(error).__name__}: "
                        f"{_one_line(error)}"
                    ) from error
                logger.debug("%s/%s: %s; trying again", self._url, name, error)
                time.sleep(BACKOFF_S * 2**attempt * random.uniform(0.75, 1.25))  # not all ranks at once
        raise AssertionError("the last attempt returns or raises")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
