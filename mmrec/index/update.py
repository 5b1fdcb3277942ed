"""The index of a newer export from that of an earlier one: what has not changed stays, the rest goes or comes.

Lists of centres and graphs cost minutes to make; items that come or change are added to them, those that go leave a
position that nothing finds. An exact index is made anew, which costs no more than reading the vectors.

Legend: V items of the newer export, P positions of the earlier index.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.index.build import Built, IndexConfig, build_index, replace_index, tune_index
from mmrec.index.opened import read_faiss, stored_vectors
from mmrec.index.removed import enter_removed, removed_ids

__all__ = ["Update", "update_index"]

logger = logging.getLogger(__name__)

# Share of positions that nothing finds, beyond which the index is built anew.
_MOST_DEAD = 0.25


@dataclass(frozen=True)
class Update:
    """What an update did.

    Attributes:
        kept: items that the earlier index had as they are.
        added: new and changed items.
        dropped: positions that nothing finds any more.
        anew: the index was built anew, for it is exact or too much had changed.
    """

    kept: int
    added: int
    dropped: int
    anew: bool


def update_index(new_path: Path, old_path: Path) -> Update:
    """Make the index of the export ``new_path`` from that of ``old_path``; items removed there are removed here too.

    Raises:
        DataError: if the exports are of different models, or the earlier one has no index.
        ConfigError: if the folders are the same, or the index no longer reaches the recall that it was built for.
    """
    new, old = ExportFolder.open(new_path), ExportFolder.open(old_path)
    _check_pair(new, old)
    entry = old.manifest["index"]
    config = IndexConfig(**entry["asked"])
    _carry_removed(new, old)
    index = read_faiss(old, writable=True)
    place = _positions(new, old, index)
    kept, added = int((place >= 0).sum()), int((place < 0).sum())
    dead = entry["positions"] - kept
    anew = entry["kind"] == "exact" or dead > _MOST_DEAD * (entry["positions"] + added)
    replace_index(new, build_index(new, config) if anew else _extend(new, old, index, place, config))
    return Update(kept, added, dead, anew)


def _check_pair(new: ExportFolder, old: ExportFolder) -> None:
    if new.path.resolve() == old.path.resolve():
        raise ConfigError(f"the index of {new.path} would be updated from itself; give an earlier export")
    if new.manifest["model_hash"] != old.manifest["model_hash"]:
        raise DataError(
            f"{old.path} is of model {old.manifest['model_hash'][:12]}, {new.path} of "
            f"{new.manifest['model_hash'][:12]}: their vectors do not compare; build anew: mmrec index {new.path}"
        )
    if old.dim != new.dim:
        raise DataError(
            f"{old.path} has {old.dim} dimensions, {new.path} {new.dim}; build anew: mmrec index {new.path}"
        )
    if "index" not in old.manifest:
        raise DataError(f"{old.path} has no index to start from; build one: mmrec index {new.path}")


def _carry_removed(new: ExportFolder, old: ExportFolder) -> None:
    """Items that were removed from either export are removed from the new one."""
    gone = {*removed_ids(new), *removed_ids(old)}
    enter_removed(new, [item_id for item_id in new.item_ids.tolist() if item_id in gone])


def _positions(new: ExportFolder, old: ExportFolder, index: Any) -> np.ndarray:
    """Position in the old index of each new item whose vector is there bit for bit, else -1. (V,)"""
    ids = old.read_table("index_ids.parquet")
    options = pc.SetLookupOptions(ids["item_id"].combine_chunks(), skip_nulls=True)
    position = pc.call_function("index_in", [new.id_column], options)
    place = pc.fill_null(position, -1).to_numpy().astype(np.int64)
    row_of = ids["row"].to_numpy()
    old_vectors = stored_vectors(old, old.manifest["index"]["kind"], index, row_of)
    start = 0
    for block in new.vector_blocks():
        here = place[start : start + len(block)]
        there = np.flatnonzero(here >= 0)
        if len(there):
            same = (block[there] == old_vectors(row_of[here[there]])).all(axis=1)
            here[there[~same]] = -1
        start += len(block)
    return place


def _extend(new: ExportFolder, old: ExportFolder, index: Any, place: np.ndarray, config: IndexConfig) -> Built:
    """The old index with what has no place added and what is no more forgotten, tuned and measured again."""
    row_of = np.full(index.ntotal, -1, dtype=np.int32)
    row_of[place[place >= 0]] = np.flatnonzero(place >= 0)
    start = 0
    for block in new.vector_blocks():
        fresh = np.flatnonzero(place[start : start + len(block)] < 0)
        if len(fresh):
            index.add(block[fresh])
            row_of = np.append(row_of, (start + fresh).astype(np.int32))
        start += len(block)
    entry = old.manifest["index"]
    return tune_index(new, entry["kind"], index, entry["parameters"], row_of, config)
