"""A finished folder on its way to a URL: file by file, the manifest last, so that no part is taken for the whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmrec.data.manifest import MANIFEST
from mmrec.data.progress import progress
from mmrec.data.store import Store
from mmrec.errors import DataError

__all__ = ["RemoteOut"]

# Written and removed to see whether one may.
_TRIAL = "mmrec-trial"


class RemoteOut:
    """The place at a URL where a dataset, or an export, is to stand.

    Args:
        url: of the folder.
        journal: a file of this machine that remembers what has arrived, so that a process that is killed goes on.
        what: for messages.
        files_of: ``bytes`` and ``sha256`` of the files that a manifest lists, by name.
    """

    def __init__(
        self,
        url: str,
        journal: Path,
        *,
        what: str = "a dataset",
        files_of: Callable[[dict[str, Any]], dict[str, Any]] = lambda manifest: manifest.get("files", {}),
    ) -> None:
        self.url = url
        self._what = what
        self._files_of = files_of
        self._store = Store(url)
        self._journal = journal

    def manifest(self) -> bytes | None:
        """That of what stands there; None if there is none.

        Raises:
            DataError: if there is none, but something else, which is not from an upload that was cut short.
        """
        try:
            return self._store.read(MANIFEST)
        except FileNotFoundError:
            if not self._journal.exists() and not self._store.is_empty():
                raise DataError(
                    f"{self.url} holds something else than {self._what}; give another --out, or remove it"
                ) from None
            return None

    def try_writing(self) -> None:
        """Raises: DataError if nothing can be written there, which is better known before hours of work."""
        self._journal.touch()
        self._store.put(_TRIAL, self._journal)
        self._store.remove(_TRIAL)

    def publish(self, folder: Path, beside: Mapping[str, Any] | None = None) -> None:
        """Write the files of the finished ``folder`` there, replacing what stands there.

        While that lasts there is no manifest, so that nobody opens a mixture of two.

        Args:
            beside: size and sha256 of further files, by name.

        Raises:
            DataError: if the store does not answer, or refuses.
        """
        files = {**self._files_of(json.loads((folder / MANIFEST).read_bytes())), **(beside or {})}
        standing = self.manifest()
        if standing is not None:  # its names first, or files of it would stay for ever after a kill
            for name in self._files_of(json.loads(standing)):
                self._note(name, None)
            self._store.remove(MANIFEST)
        arrived = dict(self._noted())
        with progress(f"writing {self.url}", sum(facts["bytes"] for facts in files.values()), "bytes") as advance:
            for name, facts in files.items():
                if arrived.get(name) != facts["sha256"]:
                    self._store.put(name, folder / name)
                    self._note(name, facts["sha256"])
                advance(facts["bytes"])
        for name in arrived.keys() - files.keys():
            self._store.remove(name)
        self._store.put(MANIFEST, folder / MANIFEST)

    def _note(self, name: str, sha256: str | None) -> None:
        """Remember what lies under ``name`` now; None for something of unknown content."""
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps([name, sha256]) + "\n")
            journal.flush()
            os.fsync(journal.fileno())

    def _noted(self) -> Iterator[tuple[str, str | None]]:
        if not self._journal.exists():
            return
        for line in self._journal.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                name, sha256 = json.loads(line)
            except ValueError:  # not written out when the machine went down: that file is written again
                continue
            yield name, sha256
