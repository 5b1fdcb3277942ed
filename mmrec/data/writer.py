"""Writes the files of a dataset folder, remembers their hashes, and puts the manifest last."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from mmrec.atomic_files import entry_of, flush, write_whole
from mmrec.data.manifest import MANIFEST, SCHEMA, SCHEMA_VERSION

__all__ = ["Writer"]


class Writer:
    """The files of one folder, flushed to the disk one by one.

    Args:
        root: the folder; what lies there, left by a process that was killed, is thrown away.
    """

    def __init__(self, root: Path) -> None:
        if root.exists():
            shutil.rmtree(root)
        root.mkdir(parents=True)
        self.root = root
        self.files: dict[str, dict[str, Any]] = {}

    def path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def done(self, name: str, num: int) -> None:
        """Flush the finished file ``name``, which holds ``num`` things, and take its size and hash."""
        flush(self.root / name)
        self.files[name] = {"n": num, **entry_of(self.root / name)}

    def share(self, name: str, file: Path, facts: dict[str, Any]) -> None:
        """Have a finished ``file`` of known facts (bytes, n, sha256) too; linked where the disk allows, else copied."""
        try:
            os.link(file, self.path(name))
        except OSError:  # another disk, or one without links
            shutil.copyfile(file, self.path(name))
            flush(self.path(name))
        self.files[name] = facts

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write ``manifest`` with the files."""
        manifest = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **manifest, "files": self.files}
        text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False)
        for folder in (path for path in self.root.iterdir() if path.is_dir()):
            flush(folder)
        write_whole(self.root / MANIFEST, f"{text}\n")
