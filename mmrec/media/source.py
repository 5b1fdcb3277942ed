"""Where the user's media lie: a folder or a bucket, of which a table may name regular files below its root alone."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from mmrec.errors import ConfigError, MediaError
from mmrec.media.info import MAX_FILE_BYTES

__all__ = ["MediaSource"]

# PATH_MAX of Linux, four times the longest key of S3.
_MAX_PATH_BYTES = 4096
# What a file is hashed by; a request to a server costs some ten milliseconds, a read none.
_LOCAL_BLOCK, _REMOTE_BLOCK = 1 << 20, 1 << 23


class MediaSource:
    """Reads files by the relative paths of a table, which are not trusted.

    It may be pickled, forked, and used by several threads.

    Args:
        root: a folder, or an address that fsspec understands (``s3://bucket/folder``, ``memory://folder``).

    Raises:
        ConfigError: if there is no such folder, or the address is of an unknown kind or one whose package is missing.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = os.fspath(root).removeprefix("file://")
        self._is_remote = "://" in self.root
        if self._is_remote:
            _file_system(self.root)
        elif not os.path.isdir(self.root):
            raise ConfigError(f"media root {self.root!r} is not a folder")
        else:
            self.root = os.path.realpath(self.root)

    def read(self, path: str) -> bytes:
        """The bytes of a file.

        Raises:
            MediaError: before anything is read, if the path is absolute, an address, longer than 4,096 bytes, holds a
                zero byte or leaves the root (by ``..`` or a symbolic link), or if it names nothing, no regular file
                (a folder, pipe, device), or one larger than ``MAX_FILE_BYTES``; and if reading fails.
        """
        relative = _relative(path)
        try:
            return _read_remote(self.root, relative) if self._is_remote else _read_local(self.root, relative)
        except OSError as error:
            raise _refusal(error) from error

    def size(self, path: str) -> int:
        """Bytes of a file.

        Raises:
            MediaError: as :meth:`read`.
        """
        return self.stamp(path)[0]

    def stamp(self, path: str) -> tuple[int, str]:
        """Bytes of a file, and what else changes when it does: time of change, or the tag of a bucket.

        Raises:
            MediaError: as :meth:`read`.
        """
        relative = _relative(path)
        try:
            if self._is_remote:
                facts = _remote_facts(self.root, relative)
                return int(facts["size"]), str(facts.get("ETag") or facts.get("mtime") or facts.get("created"))
            status = os.stat(_resolve(self.root, relative))
            return status.st_size, str(status.st_mtime_ns)
        except OSError as error:
            raise _refusal(error) from error

    def ends(self, path: str, num_bytes: int) -> bytes:
        """The first and the last bytes of a file, at most ``num_bytes`` each.

        Raises:
            MediaError: as :meth:`read`.
        """
        relative = _relative(path)
        try:
            size = self.size(path)
            if self._is_remote:
                file_system, folder = _file_system(self.root)
                name = f"{folder.rstrip('/')}/{relative}"
                head = file_system.cat_file(name, start=0, end=min(num_bytes, size))
                return head + file_system.cat_file(name, start=max(num_bytes, size - num_bytes), end=size)
            with open(_resolve(self.root, relative), "rb") as file:
                head = file.read(num_bytes)
                file.seek(max(num_bytes, size - num_bytes))
                return head + file.read(num_bytes)
        except OSError as error:
            raise _refusal(error) from error

    def blocks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, a few at a time.

        Raises:
            MediaError: as :meth:`read`.
        """
        relative = _relative(path)
        try:
            if self._is_remote:
                size = self.size(path)
                file_system, folder = _file_system(self.root)
                for start in range(0, size, _REMOTE_BLOCK):
                    end = min(start + _REMOTE_BLOCK, size)
                    yield file_system.cat_file(f"{folder.rstrip('/')}/{relative}", start=start, end=end)
                return
            with open(_resolve(self.root, relative), "rb") as file:
                while block := file.read(_LOCAL_BLOCK):
                    yield block
        except OSError as error:
            raise _refusal(error) from error


def _relative(path: str) -> str:
    """``path`` without detours.

    Raises:
        MediaError: if it cannot be a path below the root, whatever lies there.
    """
    if not path or "\0" in path:
        raise MediaError("the path is empty" if not path else "a path with a zero byte")
    if len(path.encode(errors="surrogatepass")) > _MAX_PATH_BYTES:
        raise MediaError(f"a path of {len(path):,} characters; at most {_MAX_PATH_BYTES:,} bytes are allowed")
    if "://" in path:
        raise MediaError("an address; give a path relative to the media root")
    if path.startswith("/"):
        raise MediaError("an absolute path; give a path relative to the media root")
    # Servers take %2e%2e for two dots. ".." is judged by the words of the path, before any link is followed.
    if any(posixpath.normpath(form).split("/")[0] == ".." for form in (path, unquote(path))):
        raise MediaError("a path that leaves the media root by '..'")
    relative = posixpath.normpath(path)
    if relative == ".":
        raise MediaError("not a regular file")
    return relative


def _read_local(root: str, relative: str) -> bytes:
    # What lies at the path may be exchanged between the check and the opening: the open file is checked again.
    descriptor = os.open(_resolve(root, relative), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _check(os.fstat(descriptor))
        data = file.read(MAX_FILE_BYTES + 1)
    _check_size(len(data))
    return data


def _resolve(root: str, relative: str) -> str:
    """The file itself, all symbolic links followed, looked at but not opened: to open a pipe would block."""
    resolved = os.path.realpath(os.path.join(root, relative), strict=True)
    if os.path.commonpath((resolved, root)) != root:
        raise MediaError("a symbolic link that leads out of the media root")
    _check(os.stat(resolved))
    return resolved


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("not a regular file")
    _check_size(status.st_size)


def _check_size(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise MediaError(f"{size:,} bytes is too large, at most {MAX_FILE_BYTES:,} bytes")


def _read_remote(root: str, relative: str) -> bytes:
    size = int(_remote_facts(root, relative)["size"])
    file_system, folder = _file_system(root)
    data = file_system.cat_file(f"{folder.rstrip('/')}/{relative}", start=0, end=size)
    if len(data) != size:
        raise MediaError(f"{len(data):,} of {size:,} bytes were delivered")
    return data


def _remote_facts(root: str, relative: str) -> dict[str, Any]:
    file_system, folder = _file_system(root)
    facts = file_system.info(f"{folder.rstrip('/')}/{relative}")
    if facts["type"] != "file":
        raise MediaError("not a regular file")
    if facts["size"] is None:
        raise MediaError("of unknown size")
    _check_size(facts["size"])
    return facts


def _file_system(root: str) -> tuple[Any, str]:
    """fsspec keeps one instance for each process and thread, so that nothing here is shared after a fork."""
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"media root {root!r} cannot be opened: {error}") from error


def _refusal(error: OSError) -> MediaError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MediaError("no such file")
    return MediaError(f"cannot be read: {error.strerror or error}")
