"""Items that are in no answer any more: tombstones beside the index, until an export leaves them out.

Vectors of removed items stay where they are: who took such an item took it, and what was evaluated stays reproducible.
``removed`` in the manifest counts them and names the file with their ids. Its name changes with its content, so that a
change is one rename of the manifest: no search ever sees an item come back.

Legend: V items of the export.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmrec.atomic_files import write_json, write_table
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import MANIFEST, ExportFolder, check_file

__all__ = [
    "carry_removed",
    "change_removed",
    "enter_removed",
    "live_items",
    "read_ids",
    "remaining_rows",
    "removed_ids",
]


def removed_ids(export: ExportFolder) -> list[str]:
    """Ids of the removed items, in the order of the export."""
    removed = export.manifest.get("removed")
    return export.read_table(removed["file"])["item_id"].to_pylist() if removed else []


def live_items(export: ExportFolder) -> np.ndarray | None:
    """Which items an answer may have; None: all. bool (V,)"""
    if not (gone := removed_ids(export)):
        return None
    live = np.ones(export.num_items, dtype=bool)
    live[export.item_rows(gone)] = False
    return live


def remaining_rows(export: ExportFolder) -> np.ndarray:
    """Rows of the items that an answer may have. int64 (n,)"""
    live = live_items(export)
    return np.arange(export.num_items) if live is None else np.flatnonzero(live)


def change_removed(path: Path, item_ids: Sequence[str], *, remove: bool) -> int:
    """Add ids to the removed ones of an export folder, or take them back; return how many are removed now.

    Raises:
        DataError: if an item is unknown, or none would be left; nothing is changed then.
    """
    export = ExportFolder.open(path)
    changed = export.item_rows(item_ids)
    live = live_items(export)
    gone = np.zeros(export.num_items, dtype=bool) if live is None else ~live
    gone[changed] = remove
    if gone.all():
        raise DataError(f"{path} would be left without an item to find; remove fewer")
    before = export.manifest.get("removed")
    enter_removed(export, export.item_ids[gone].tolist())
    write_json(path / MANIFEST, export.manifest)
    if before is not None and before["file"] not in export.manifest["files"]:
        (path / before["file"]).unlink(missing_ok=True)
    return int(gone.sum())


def enter_removed(export: ExportFolder, item_ids: Sequence[str]) -> None:
    """Write the file of removed ids, and enter it into the manifest in memory."""
    before = export.manifest.pop("removed", None)
    if before is not None:
        export.manifest["files"].pop(before["file"], None)
    if not item_ids:
        return
    name = f"removed_ids-{hashlib.sha256(chr(10).join(item_ids).encode()).hexdigest()[:12]}.parquet"
    table = pa.table({"item_id": pa.array(item_ids, pa.string())})
    export.manifest["files"][name] = write_table(export.path / name, table)
    export.manifest["removed"] = {"items": len(item_ids), "file": name}


def carry_removed(export: ExportFolder, before: dict[str, Any]) -> None:
    """What an earlier manifest of the same folder says of removed items, entered into the new one in memory.

    Raises:
        DataError: if the file is missing or damaged.
    """
    if (removed := before.get("removed")) is not None:
        entry = before["files"][removed["file"]]
        check_file(export.path, removed["file"], entry, content=True)
        export.manifest["files"][removed["file"]] = entry
        export.manifest["removed"] = removed


def read_ids(path: Path) -> list[str]:
    """Item ids of a text file, one a line.

    Raises:
        ConfigError: if the file is missing, is no text, or names no item.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is no file; give a text file with one item id a line")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text ({error}); give a text file with one item id a line") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise ConfigError(f"{path} names no item; give a text file with one item id a line")
    return ids
