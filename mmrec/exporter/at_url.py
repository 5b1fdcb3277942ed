"""An export on its way to a URL: made in a folder of this machine, and written there when it is finished."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator

from mmrec.atomic_files import entry_of
from mmrec.data.remote import cache_folder
from mmrec.data.upload import RemoteOut
from mmrec.errors import DataError
from mmrec.export_folder import MANIFEST, SCHEMA, UNFINISHED, files_of, remote_export

__all__ = ["ExportAtURL"]


class ExportAtURL:
    """The place at a URL where an export is to stand, and the folder ``local`` in the cache in which it is made.

    Args:
        url: of the folder.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        self.local = cache_folder() / "builds" / f"{name}.export"
        self._journal = self.local.with_suffix(".uploaded.jsonl")
        self._remote = RemoteOut(url, self._journal, what="an export", files_of=files_of)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Raises: DataError if another process of this machine is at it, or nothing can be written there."""
        self.local.parent.mkdir(parents=True, exist_ok=True)
        with self.local.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"another process is exporting to {self._url}; wait for it, or let several share a folder as --out"
                ) from error
            standing = self._remote.manifest()
            if standing is not None and SCHEMA.encode() not in standing:
                raise DataError(f"{self._url} holds something else than an export; give another --out")
            self._remote.try_writing()
            yield
        self.local.with_suffix(".lock").unlink(missing_ok=True)

    def bring(self, *, overwrite: bool) -> None:
        """Let ``local`` be what stands at the URL, unless an export is being made, or its writing was cut short."""
        standing = self._remote.manifest()
        if (self.local / UNFINISHED).is_dir() or (standing is None and (self.local / MANIFEST).is_file()):
            return
        shutil.rmtree(self.local, ignore_errors=True)
        if standing is None or overwrite:
            return
        scratch = self.local.with_suffix(".coming")
        shutil.rmtree(scratch, ignore_errors=True)
        remote = remote_export(self._url, standing)
        for name in remote.files:
            remote.fetch(name, scratch / name)
        (scratch / MANIFEST).write_bytes(standing)
        scratch.rename(self.local)

    def publish(self) -> None:
        """Write the finished export to the URL, and remove it here."""
        if (self.local / MANIFEST).read_bytes() != self._remote.manifest():
            self._remote.publish(self.local, self._of_lance())
        shutil.rmtree(self.local)
        self._journal.unlink(missing_ok=True)

    def _of_lance(self) -> dict[str, dict[str, int | str]]:
        """What Lance keeps of its versions, which no manifest lists."""
        listed = files_of(json.loads((self.local / MANIFEST).read_bytes()))
        found = {}
        for path in sorted((self.local / "embeddings").rglob("*")):
            name = path.relative_to(self.local).as_posix()
            if path.is_file() and name not in listed:
                found[name] = entry_of(path)
        return found
