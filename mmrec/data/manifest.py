"""The contract of the dataset folder: names, columns, ``manifest.json``, and the check of a folder against it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from mmrec.errors import DataError

__all__ = [
    "MANIFEST",
    "MEDIA_FIELDS",
    "MEDIA_MODALITIES",
    "SCHEMA",
    "SCHEMA_VERSION",
    "Writer",
    "file_problems",
    "fingerprint",
    "parse_manifest",
    "read_manifest",
]

MANIFEST = "manifest.json"
SCHEMA = "mmrec.dataset"
SCHEMA_VERSION = 1

# Modalities whose content lies in the shards, in the order in which they are stored and shown.
MEDIA_MODALITIES = ("image", "text", "audio", "video")

# Facts of a medium in items.parquet, a column `<modality>.<fact>` each, beside shard, offset, size, xxh3, ext, status.
MEDIA_FIELDS = {
    "image": ("width", "height"),
    "text": (),
    "audio": ("sample_rate", "duration_s"),
    "video": ("width", "height", "fps", "num_frames", "duration_s"),
}

_CHUNK = 1 << 20


class Writer:
    """Writes the files of a folder that does not exist yet, remembers their hashes, and puts the manifest last.

    Everything goes to a neighbouring temporary folder ``root``, which the caller makes and clears away, is flushed to
    the disk, and appears under its name at once.
    """

    def __init__(self, out: Path):
        self.out = out
        self.root = out.with_name(f"{out.name}.tmp-{secrets.token_hex(4)}")
        self.files: dict[str, dict[str, Any]] = {}

    def path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def done(self, name: str, num: int) -> None:
        """Flush the finished file ``name``, which holds ``num`` things, and take its size and hash."""
        path = self.root / name
        with path.open("rb") as file:
            os.fsync(file.fileno())
        self.files[name] = {"bytes": path.stat().st_size, "n": num, "sha256": _sha256(path)}

    def adopt(self, name: str, file: Path, facts: dict[str, Any]) -> None:
        """Take over a finished, flushed ``file`` of the same disk, of known facts (bytes, n, sha256)."""
        os.rename(file, self.path(name))
        self.files[name] = facts

    def share(self, name: str, file: Path, facts: dict[str, Any]) -> None:
        """Have a finished ``file`` of another dataset, of known facts; linked where the disk allows, else copied."""
        try:
            os.link(file, self.path(name))
        except OSError:  # another disk, or one without links
            shutil.copyfile(file, self.path(name))
        self.files[name] = facts

    def commit(self, manifest: dict[str, Any]) -> None:
        """Write ``manifest`` with the files, and rename the folder to its final name, replacing what stands there."""
        manifest = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **manifest, "files": self.files}
        with (self.root / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2, sort_keys=True, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        for folder in [self.root, *(path for path in self.root.iterdir() if path.is_dir())]:
            _fsync_folder(folder)
        former = self.root.with_name(f"{self.root.name}.former")
        if self.out.exists():
            os.rename(self.out, former)
        os.rename(self.root, self.out)
        _fsync_folder(self.out.parent)
        if former.exists():
            shutil.rmtree(former)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and judge the manifest of the dataset folder ``path``.

    Raises:
        DataError: if there is none, it is no JSON, not a dataset's, or of another schema version.
    """
    file = path / MANIFEST
    if not path.is_dir():
        raise DataError(f"no dataset folder {path}; make one with `mmrec ingest --out {path}`")
    if not file.is_file():
        raise DataError(f"{path} has no {MANIFEST}, so it is no finished dataset; make one with `mmrec ingest`")
    return parse_manifest(file.read_bytes(), path)


def parse_manifest(data: bytes, path: Path | str) -> dict[str, Any]:
    """Judge the manifest ``data`` of the dataset folder ``path``, which may be a URL.

    Raises:
        DataError: as :func:`read_manifest`.
    """
    file = f"{path}/{MANIFEST}"
    try:
        manifest = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is damaged ({error}); ingest the data again") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise DataError(
            f"{file} does not describe a dataset (its schema is not {SCHEMA!r}); give one of `mmrec ingest`"
        )
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {version}, this mmrec reads version {SCHEMA_VERSION}; "
            "ingest the data again, or use the mmrec that wrote it"
        )
    return manifest


def file_problems(path: Path, manifest: dict[str, Any], *, verify: bool) -> list[str]:
    """One line for each file of the manifest that is missing, of another size, or (``verify``) of another sha256."""
    problems = []
    for name, facts in manifest["files"].items():
        file = path / name
        if not file.is_file():
            problems.append(f"{file} is missing")
        elif file.stat().st_size != facts["bytes"]:
            problems.append(f"{file} is damaged: {file.stat().st_size:,} bytes, the manifest says {facts['bytes']:,}")
        elif verify and _sha256(file) != facts["sha256"]:
            problems.append(f"{file} is damaged: its sha256 is not that of the manifest")
    return problems


def fingerprint(manifest: dict[str, Any]) -> str:
    """Identity of the content: sha256 over the names and hashes of all files; the folder's name plays no part."""
    lines = [f"{name}\0{facts['sha256']}\n" for name, facts in sorted(manifest["files"].items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _fsync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
