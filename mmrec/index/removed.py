"""Items that are in no answer any more: tombstones beside the index, until the next export leaves them out.

Vectors of removed items stay where they are: who took such an item took it, and results that were evaluated stay
reproducible. ``removed_ids.parquet`` of the export folder lists their ids; ``removed`` in the manifest counts them.

Legend: V items of the export.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from mmrec.atomic_files import write_table
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder

__all__ = ["REMOVED", "change_removed", "live_items", "read_ids", "removed_ids", "write_removed"]

REMOVED = "removed_ids.parquet"


def removed_ids(export: ExportFolder) -> list[str]:
    """Ids of the removed items, in the order of the export."""
    return export.read_table(REMOVED)["item_id"].to_pylist() if REMOVED in export.files else []


def live_items(export: ExportFolder) -> np.ndarray | None:
    """Which items an answer may have; None: all. bool (V,)"""
    if not (gone := removed_ids(export)):
        return None
    live = np.ones(export.num_items, dtype=bool)
    live[export.item_rows(gone)] = False
    return live


def change_removed(export: ExportFolder, item_ids: Sequence[str], *, remove: bool) -> int:
    """Add ids to the removed ones, or take them back; return how many are removed now. The caller writes the manifest.

    Raises:
        DataError: if an item is unknown, or none would be left; nothing is changed then.
    """
    rows = export.item_rows(item_ids)
    gone = np.zeros(export.num_items, dtype=bool)
    gone[export.item_rows(removed_ids(export))] = True
    gone[rows] = remove
    if gone.all():
        raise DataError(f"{export.path} would be left without an item; export what is to be found instead")
    write_removed(export, export.item_ids[gone].tolist())
    return int(gone.sum())


def write_removed(export: ExportFolder, item_ids: Sequence[str]) -> None:
    """Write the file of removed ids, and its entries of the manifest in memory."""
    table = pa.table({"item_id": pa.array(item_ids, pa.string())})
    export.manifest["files"][REMOVED] = write_table(export.path / REMOVED, table)
    export.manifest["removed"] = len(item_ids)


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
