"""An earlier export of the same model, of which the vectors of unchanged items are copied."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mmrec.export_folder import Encoding, ExportFolder
from mmrec.export_folder.formats import numbers_of

__all__ = ["Previous"]

logger = logging.getLogger(__name__)

_KEY = ["item_id", "source_hash", "modalities"]
# Parts of the earlier export that are kept in memory: items stay where they were, but for some that come and go.
_KEPT_PARTS = 4


class Previous:
    """Vectors of an earlier export that may be copied: same model, same content, same modalities.

    Args:
        export: the earlier export; of the same number format, or of float32, which can become any.
        encoding: number format of the new one.
    """

    def __init__(self, export: ExportFolder, encoding: Encoding) -> None:
        self._export = export
        self._encoding = encoding
        keys = [pl.DataFrame(pl.from_arrow(table.select(_KEY))) for _, table in export.parts()]
        self._rows = pl.concat(keys).with_row_index("row")
        self._starts = np.cumsum([0, *(part["rows"] for part in export.manifest["parts"])])
        self._part = functools.lru_cache(_KEPT_PARTS)(self._read_part)

    @classmethod
    def open(
        cls, since: Path | str, model_hash: str, dim: int | None, encoding: Encoding, *, with_shares: bool
    ) -> Previous | None:
        """None, and a warning, if nothing of the earlier export can be copied.

        Args:
            dim: width to which vectors are cut; None: they are whole.
            with_shares: the new export has the modalities' shares in each vector.
        """
        export = ExportFolder.open(since)
        made_by, stored = export.manifest["model_hash"], export.encoding.name
        reason = None
        if made_by != model_hash:
            reason = f"is of model {made_by[:12]}, this is model {model_hash[:12]}: a new version"
        elif export.manifest["cut"] != dim:
            reason = "has vectors of another width"
        elif with_shares and export.shares is None:
            reason = "does not tell what its vectors are made of"
        elif stored not in (encoding.name, "float32"):
            reason = f"has vectors in {stored}, of which {encoding.name} cannot be made"
        if reason is None:
            return cls(export, encoding)
        logger.warning("%s %s; all items are encoded again", since, reason)
        return None

    @property
    def recall(self) -> dict[str, Any] | None:
        """What the earlier export says of its own recall, if its numbers are copied as they are."""
        return self._export.manifest["recall_at_10"]

    @property
    def dim(self) -> int:
        return self._export.dim

    def gone(self, item_ids: pl.Series) -> int:
        """How many items of the earlier export are not among these."""
        return int((~self._rows["item_id"].is_in(item_ids.implode())).sum())

    def rows(self, item_ids: pa.Array, hashes: list[str], bitmasks: np.ndarray) -> np.ndarray:
        """Rows of the earlier export that have the vectors of these items; -1 where it has none. int64 (n,)"""
        asked = pl.DataFrame({"item_id": pl.Series(item_ids), "source_hash": hashes, "modalities": bitmasks})
        found = asked.join(self._rows, on=_KEY, how="left", maintain_order="left")
        return found["row"].cast(pl.Int64).fill_null(-1).to_numpy()

    def codes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Stored numbers and scales of these rows, as the new export stores them. (n, W), (n,)"""
        found = [self._part(part) for part in self._part_of(rows).tolist()]
        places = (rows - self._starts[self._part_of(rows)]).tolist()
        codes = np.stack([codes[place] for (codes, _, _), place in zip(found, places, strict=True)])
        if not self._encoding.has_scale:
            return codes, None
        return codes, np.array([scale[place] for (_, scale, _), place in zip(found, places, strict=True)], np.float32)

    def shares(self, rows: np.ndarray) -> np.ndarray:
        """Of the items at these rows, the modalities' shares in their vectors. float16 (n, M)"""
        return self._export.shares[rows]  # pyright: ignore[reportOptionalSubscript]

    def exact(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of these rows; NaN if the earlier export does not have them in float32. (n, D)"""
        if self._export.encoding.name != "float32":
            return np.full((len(rows), self.dim), np.nan, dtype=np.float32)
        places = (rows - self._starts[self._part_of(rows)]).tolist()
        found = [self._part(part)[2] for part in self._part_of(rows).tolist()]
        return np.stack([exact[place] for exact, place in zip(found, places, strict=True)])

    def _part_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._starts, rows, side="right") - 1

    def _read_part(self, number: int) -> tuple[np.ndarray, Any, np.ndarray]:
        """Stored numbers as the new export has them, scales, and the decoded vectors of a part."""
        table = self._export.part(self._export.manifest["parts"][number])
        decoded = self._export.decode(table)
        if self._export.encoding.name != self._encoding.name:
            return *self._encoding.encode(decoded), decoded
        scale = table["scale"].to_numpy() if self._encoding.has_scale else None
        return numbers_of(table["vector"], self._encoding), scale, decoded
