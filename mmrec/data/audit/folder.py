"""The files of a dataset folder under audit, on this machine, wherever the folder lies."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmrec.data.manifest import MANIFEST, file_problems, read_manifest
from mmrec.data.remote import RemoteFolder, cache_folder
from mmrec.data.store import url_of
from mmrec.errors import DataError

__all__ = ["AuditedFolder"]

_AGAIN = "ingest the data again"


class AuditedFolder:
    """A dataset folder, or a copy of one that lies at a URL: there each file comes once, and shards go again.

    Attributes:
        root: where the files are on this machine.
        manifest: as it stands there.
    """

    def __init__(self, root: Path, manifest: dict[str, Any], remote: RemoteFolder | None = None) -> None:
        self.root = root
        self.manifest = manifest
        self._remote = remote

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path | str) -> Iterator[AuditedFolder]:
        """Raises: DataError, ConfigError as ``Dataset.open`` does of the manifest."""
        url = url_of(path)
        if url is None:
            yield cls(Path(path), read_manifest(Path(path)))
            return
        remote, room = RemoteFolder.open(url), cache_folder()
        room.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="check-", dir=room) as folder:
            yield cls(Path(folder), remote.manifest, remote)

    def told(self, line: str) -> str:
        """``line`` with the folder named as the user knows it."""
        return line if self._remote is None else line.replace(str(self.root), self._remote.url)

    def fetch(self, name: str) -> list[str]:
        """Bring a file of the manifest to ``root``, where it can be brought, and say what is wrong with it."""
        if self._remote is not None:
            found = self._remote.problem(name)
            if found:
                return [f"{found}; {_AGAIN}"]
            try:
                self._remote.fetch(name, self.root / name)
            except DataError as error:
                return [str(error)]
        return [f"{line}; {_AGAIN}" for line in file_problems(self.root, _only(self.manifest, name), verify=True)]

    def release(self, name: str) -> None:
        """The file is not needed any more."""
        if self._remote is not None:
            (self.root / name).unlink(missing_ok=True)

    def strays(self) -> list[str]:
        """Names of files that the manifest does not list, where a reader would take them in, or they lie unseen."""
        if self._remote is not None:
            names = self._remote.strays()
        else:
            found = (file for part in ("media", "features", "sequences") for file in (self.root / part).glob("*"))
            names = [str(file.relative_to(self.root)) for file in found if file.is_file()]
        parts = ("media/", "features/", "sequences/")
        return [
            name
            for name in sorted(names)
            if name not in self.manifest["files"]
            and name != MANIFEST
            and name.startswith(parts)
            and name.count("/") == 1
        ]


def _only(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    return {"files": {name: manifest["files"][name]}}
