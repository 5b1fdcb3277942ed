"""Ready-made vectors against their presence flags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mmrec.data.audit.wording import named
from mmrec.data.npy import finite_rows, map_npy
from mmrec.data.progress import progress
from mmrec.errors import DataError

__all__ = ["feature_problems"]

_AGAIN = "ingest the data again"
_ROWS = 65_536


def feature_problems(path: Path, manifest: dict[str, Any], item_ids: pl.Series | None) -> Iterator[str]:
    """Files of another kind or shape, absent rows that are not zero, present rows that are zero or not finite."""
    for name in manifest["features"]:
        found = {}
        for ending in ("npy", "present.npy"):
            file = path / "features" / f"{name}.{ending}"
            if f"features/{file.name}" not in manifest["files"]:
                yield f"manifest.json names the feature set {name!r} but not features/{file.name}; {_AGAIN}"
            if not file.is_file():
                continue  # said by the check of files
            try:
                found[ending] = map_npy(file)
            except DataError as error:
                yield f"{error}; {_AGAIN}"
        if len(found) == 2 and item_ids is not None:
            yield from _rows(name, found["npy"], found["present.npy"], item_ids)


def _rows(name: str, vectors: np.ndarray, present: np.ndarray, item_ids: pl.Series) -> Iterator[str]:
    file, number = f"features/{name}", len(item_ids)
    if vectors.ndim != 2 or len(vectors) != number or vectors.dtype not in (np.float32, np.float16):
        yield (
            f"{file}.npy holds {vectors.dtype} {vectors.shape}, it must be float32 or float16 ({number}, dim); {_AGAIN}"
        )
        return
    if present.shape != (number,) or present.dtype != np.bool_:
        yield f"{file}.present.npy holds {present.dtype} {present.shape}, it must be bool ({number},); {_AGAIN}"
        return
    wrong: dict[str, list[int]] = {}
    with progress(f"reading {name}", number, "items") as advance:
        for start in range(0, number, _ROWS):
            block, here = np.asarray(vectors[start : start + _ROWS]), np.asarray(present[start : start + _ROWS])
            finite, zero = finite_rows(block), ~block.any(axis=1)
            for what, rows in (
                ("is marked as absent but is not zero", ~here & ~zero),
                ("is marked as present but is zero", here & zero),
                ("is marked as present but is not finite", here & ~finite),
            ):
                wrong.setdefault(what, []).extend((start + np.flatnonzero(rows)).tolist())
            advance(len(block))
    for what, rows in wrong.items():
        if rows:
            owners = named("item", [str(item_ids[row]) for row in rows])
            yield f"{file}.npy: the vector of {owners} {what}; {_AGAIN}"
