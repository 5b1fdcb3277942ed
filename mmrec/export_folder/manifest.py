"""The manifest of an export folder, and the check of its files against it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmrec.atomic_files import sha256_of
from mmrec.errors import DataError

__all__ = [
    "MANIFEST",
    "SCHEMA",
    "SCHEMA_VERSION",
    "UNFINISHED",
    "check_file",
    "files_of",
    "listed_files",
    "parse_manifest",
    "read_manifest",
]

SCHEMA = "mmrec.export"
SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
# Folder of an export that is being written.
UNFINISHED = "unfinished"


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a finished export.

    Raises:
        DataError: if the folder is no export, is unfinished, or is of another version.
    """
    if not (path / MANIFEST).is_file():
        if (path / UNFINISHED).is_dir():
            raise DataError(f"{path} is an unfinished export; run the same `mmrec export` again and it goes on")
        raise DataError(f"{path} is no export folder, it has no {MANIFEST}; give a folder made by `mmrec export`")
    return parse_manifest((path / MANIFEST).read_bytes(), path)


def parse_manifest(data: bytes, path: Path | str) -> dict[str, Any]:
    """Judge the manifest ``data`` of the export folder ``path``, which may be a URL.

    Raises: DataError as :func:`read_manifest`.
    """
    try:
        manifest = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise DataError(f"{path}/{MANIFEST} is damaged ({error}); export again with --overwrite") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        given = manifest.get("schema") if isinstance(manifest, dict) else None
        raise DataError(f"{path}/{MANIFEST} has schema {given!r}, not {SCHEMA!r}; give a folder made by `mmrec export`")
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"{path} has version {manifest['schema_version']} of the export format; "
            f"this mmrec reads version {SCHEMA_VERSION}: export again"
        )
    return manifest


def files_of(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file but the manifest, by its path in the folder."""
    parts = [*manifest["parts"], *(manifest.get("users") or {"parts": []})["parts"]]
    beside = [part["vectors"] for part in parts if "vectors" in part]
    return {entry["file"]: entry for entry in (*parts, *beside)} | manifest["files"]


def listed_files(data: bytes, path: Path | str) -> dict[str, Any]:
    """``{"files": ...}`` as :func:`files_of` gives them, of a manifest that is judged as by :func:`parse_manifest`."""
    return {"files": files_of(parse_manifest(data, path))}


def check_file(root: Path, name: str, entry: dict[str, Any], *, content: bool) -> None:
    """Compare a file with the size, and with ``content`` the sha256, that the manifest gives.

    Raises:
        DataError: if the file is missing or damaged; the message names it.
    """
    path = root / name
    if not path.is_file():
        raise DataError(f"{path} is missing; run the same `mmrec export` again to restore it")
    if (size := path.stat().st_size) != entry["bytes"]:
        raise DataError(
            f"{path} is damaged: {size:,} bytes, the manifest says {entry['bytes']:,}; "
            "run the same `mmrec export` again to restore it"
        )
    if content and sha256_of(path) != entry["sha256"]:
        raise DataError(
            f"{path} is damaged: its sha256 is not the manifest's; run the same `mmrec export` again to restore it"
        )
