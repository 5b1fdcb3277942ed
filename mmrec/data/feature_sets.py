"""Vectors made elsewhere: judged row by row and stored in the order of the catalogue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from mmrec.data.error_rows import error_rows
from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.data.npy import finite_rows, map_npy
from mmrec.data.writer import Writer
from mmrec.errors import ConfigError, DataError

__all__ = ["FeatureRows", "load_feature_sets", "parse_feature_options", "write_feature_set"]

# Names of modalities that are not feature sets.
_TAKEN = (*MEDIA_MODALITIES, "item_id", "interactions")
_ROWS = 65_536


def parse_feature_options(options: tuple[str, ...]) -> dict[str, Path]:
    """``("clip_image=vectors.npy", ...)`` as name -> path.

    Raises:
        ConfigError: on an option without a name or a path, a name of other than small letters, digits and
            underscores, a name that is taken, or one given twice.
    """
    paths: dict[str, Path] = {}
    for option in options:
        name, _, path = option.partition("=")
        if not name or not path:
            raise ConfigError(f"--features was given {option!r}; it must be NAME=vectors.npy")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in _TAKEN:
            raise ConfigError(
                f"--features was given the name {name!r}; names are small letters, digits and underscores, "
                f"and none of {', '.join(_TAKEN)}"
            )
        if name in paths:
            raise ConfigError(f"--features was given the name {name!r} twice; each feature set needs its own")
        paths[name] = Path(path)
    return paths


@dataclass(frozen=True, kw_only=True)
class FeatureRows:
    """Vectors of a former version of a dataset, if there is one, and of new items after them.

    Attributes:
        new: row i belongs to row i of the item table; None where the new items have no such vectors. (V, dim)
        former, present: of the former version, and which of them are real. (F, dim), bool (F,)
    """

    new: np.ndarray | None
    former: np.ndarray | None = None
    present: np.ndarray | None = None

    @property
    def _any(self) -> np.ndarray:
        known = self.new if self.new is not None else self.former
        assert known is not None
        return known

    @property
    def dim(self) -> int:
        return self._any.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self._any.dtype

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The given rows, those of the former version first; NaN where there is none."""
        if self.former is None:
            return np.asarray(self._any[numbers])
        found = np.full((len(numbers), self.dim), np.nan, dtype=self.dtype)
        assert self.present is not None
        old = numbers < len(self.former)
        real = np.flatnonzero(old)[self.present[numbers[old]]]
        found[real] = self.former[numbers[real]]
        if self.new is not None:
            found[~old] = self.new[numbers[~old] - len(self.former)]
        return found


def load_feature_sets(paths: dict[str, Path], num_items: int) -> dict[str, FeatureRows]:
    """Map vectors made elsewhere; row i belongs to row i of the item table.

    Raises: DataError if a file is no float array of two dimensions with one row an item.
    """
    return {name: FeatureRows(new=_load(path, name, num_items)) for name, path in paths.items()}


def write_feature_set(
    writer: Writer, name: str, vectors: FeatureRows, row_of: np.ndarray, item_ids: list[str]
) -> tuple[np.ndarray, pl.DataFrame]:
    """Store vectors in the order of the catalogue.

    A row of NaN alone or of zeros alone means "this item has no vector" (zeros are recorded, for they may be meant);
    a row with some numbers that are not finite is damaged and recorded. Absent rows are stored as zeros.

    Args:
        row_of: row of the vectors of each item of the catalogue. (V,)
        item_ids: in the order of the catalogue.

    Returns:
        present: bool (V,), and rows for errors.parquet.
    """
    dtype = np.float16 if vectors.dtype == np.float16 else np.float32
    stored = np.lib.format.open_memmap(
        writer.path(f"features/{name}.npy"), mode="w+", dtype=dtype, shape=(len(row_of), vectors.dim)
    )
    present = np.zeros(len(row_of), dtype=bool)
    errors = [error_rows([], "", modality=name, error="")]
    for start in range(0, len(row_of), _ROWS):
        rows = slice(start, start + _ROWS)
        with np.errstate(over="ignore"):
            block = vectors.rows(row_of[rows]).astype(dtype)  # an overflow becomes infinite, and is recorded
        finite, nothing = finite_rows(block), np.isnan(block).all(axis=1)
        zero = ~block.any(axis=1)
        present[rows] = finite & ~zero
        stored[rows] = np.where(present[rows, None], block, dtype(0))
        for which, error, message in (
            (zero, "ZeroVector", "all values are zero"),
            (
                ~finite & ~nothing,
                "NotFinite",
                "some values are NaN, infinite, or too large for the length of the vector to be a number",
            ),
        ):
            ids = [item_ids[start + n] for n in np.flatnonzero(which).tolist()]
            errors.append(error_rows(ids, f"{message}; treated as missing", modality=name, error=error))
    stored.flush()
    del stored
    np.save(writer.path(f"features/{name}.present.npy"), present)
    writer.done(f"features/{name}.npy", len(row_of))
    writer.done(f"features/{name}.present.npy", len(row_of))
    return present, pl.concat(errors)


def _load(path: Path, name: str, num_items: int) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"--features {name}: no file {path}")
    try:
        vectors = map_npy(path)
    except DataError as error:
        raise DataError(f"--features {name}: {error}") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        shape = f"{vectors.dtype} of shape {vectors.shape}"
        raise DataError(f"--features {name}: {path} holds {shape}; it must be floats of shape (items, dim)")
    if len(vectors) != num_items:
        raise DataError(
            f"--features {name}: {path} has {len(vectors):,} rows, the item table {num_items:,}; "
            "row i belongs to item i"
        )
    return vectors
