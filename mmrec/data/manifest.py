"""The contract of the dataset folder: names, columns, ``manifest.json``, and the check of a folder against it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mmrec.errors import DataError

__all__ = [
    "MANIFEST",
    "MEDIA_FIELDS",
    "MEDIA_MODALITIES",
    "SCHEMA",
    "SCHEMA_VERSION",
    "file_problems",
    "fingerprint",
    "parse_manifest",
    "read_manifest",
]

MANIFEST = "manifest.json"
SCHEMA = "mmrec.dataset"
SCHEMA_VERSION = 2

# Modalities whose content lies in the shards, in the order in which they are stored and shown.
MEDIA_MODALITIES = ("image", "text", "audio", "video")

# Of the file that a medium was made from: by these a new version finds the files that it has already.
_SOURCE = ("source_ext", "source_size", "source_xxh3")
# Facts of a medium in items.parquet, a column `<modality>.<fact>` each, beside shard, offset, size, xxh3, ext, status.
MEDIA_FIELDS = {
    "image": ("width", "height", *_SOURCE),
    "text": (),
    "audio": ("sample_rate", "duration_s", *_SOURCE),
    "video": ("width", "height", "fps", "num_frames", "duration_s", *_SOURCE),
}

# What every manifest tells.
_KINDS = {"name": str, "counts": dict, "files": dict, "features": list, "text_columns": list, "interactions": dict}
_CHUNK = 1 << 20


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
    lacking = [name for name, kind in _KINDS.items() if not isinstance(manifest.get(name), kind)]
    if lacking:
        raise DataError(f"{file} lacks {', '.join(lacking)}; ingest the data again")
    for name, facts in manifest["files"].items():
        told = facts if isinstance(facts, dict) else {}
        if not isinstance(told.get("bytes"), int) or not isinstance(told.get("sha256"), str):
            raise DataError(f"{file} tells no size and sha256 of {name}; ingest the data again")
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
