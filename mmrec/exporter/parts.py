"""The parts of an export: vectors of consecutive items, encoded or copied, and written.

Legend: n items of a part, D width, W stored numbers a vector, M modalities.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from mmrec.data.dataset import Dataset
from mmrec.errors import DataError
from mmrec.export_folder import Encoding, Format, check_file
from mmrec.export_folder.formats import vector_array
from mmrec.exporter.previous import Previous
from mmrec.exporter.recall import sample_rows
from mmrec.exporter.workplace import Workplace

__all__ = ["ItemParts", "is_intact", "is_normalised", "part_name", "part_number", "vectors_or_refuse"]

logger = logging.getLogger(__name__)

# Tolerance of "length 1": float32 leaves about 1e-7; half-precision towers are normalised in float32 too.
_UNIT_LENGTH_TOLERANCE = 1e-4


def part_name(number: int) -> str:
    """Of the unit that writes a part."""
    return f"part-{number:05d}"


def part_number(unit: str) -> int:
    return int(unit.removeprefix("part-"))


@dataclass(frozen=True)
class _Coded:
    """Vectors of a part as they are stored.

    Attributes:
        codes, scale: stored numbers. (n, W), (n,) or None
        dim: D.
        exact: the float32 vectors, NaN where only stored numbers were copied. (n, D)
        copied: how many were copied.
    """

    codes: np.ndarray
    scale: np.ndarray | None
    dim: int
    exact: np.ndarray
    copied: int


class ItemParts:
    """Encodes or copies the vectors of one part after the other, and writes them.

    Args:
        encode_items: item indices (n,) -> vectors float32 (n, D).
        dataset: whose items they are.
        presence: which modalities the model sees of each item; ``encode_items`` may clear entries. bool (V, M)
        shares: of each item's fusion weights those of its modalities, which ``encode_items`` fills in; None: not known.
            float16 (V, M)
        encoding: number format.
        form: file format.
        previous: an earlier export to copy from.
    """

    def __init__(
        self,
        encode_items: Callable[[np.ndarray], np.ndarray],
        dataset: Dataset,
        presence: np.ndarray,
        shares: np.ndarray | None,
        encoding: Encoding,
        form: Format,
        previous: Previous | None,
    ) -> None:
        self._encode_items = encode_items
        self._dataset = dataset
        self._presence = presence
        self._shares = shares
        self.encoding = encoding
        self.form = form
        self._previous = previous
        self._sample = sample_rows(dataset.num_items) if encoding.name != "float32" else np.zeros(0, dtype=np.int64)

    @property
    def columns_of_items(self) -> tuple[str, ...]:
        """Columns of the parts that items.parquet has too."""
        return ("modalities",) if self._shares is None else ("modalities", "shares")

    def file(self, number: int) -> str:
        """Under which a part stands in the manifest."""
        return self.form.table_file.format(number)

    def write(self, work: Workplace, number: int, item_idx: np.ndarray, may: Callable[[], bool]) -> dict[str, Any]:
        """Commit the part of these consecutive items; what is to be known of it.

        Returns: part: its entry of the manifest; dim; encoded and copied: numbers of items.

        Raises: Lost if another process has taken the part.
        """
        start, stop = int(item_idx[0]), int(item_idx[-1]) + 1
        # A view, and no Python strings: there may be many millions of items.
        item_ids = self._dataset.attributes["item_id"][start:stop].to_arrow(compat_level=pl.CompatLevel.oldest())
        item_ids = item_ids.cast(pa.string())
        hashes = self._dataset.source_hashes(item_idx)
        coded = self._coded(item_idx, item_ids, hashes)
        self._dataset.let_go()
        part = {"rows": len(item_idx), **self._write(work, number, item_idx, item_ids, hashes, coded, may)}
        decoded = self.encoding.decode(coded.codes, coded.scale, coded.dim)
        part["normalised"] = is_normalised(decoded)
        drawn = self._sample[(self._sample >= start) & (self._sample < stop)] - start
        if len(drawn):
            work.keep_sample(part_name(number), np.stack([coded.exact[drawn], decoded[drawn]]))
        return {"part": part, "dim": coded.dim, "encoded": len(item_idx) - coded.copied, "copied": coded.copied}

    def _write(
        self,
        work: Workplace,
        number: int,
        item_idx: np.ndarray,
        item_ids: pa.Array,
        hashes: list[str],
        coded: _Coded,
        may: Callable[[], bool],
    ) -> dict[str, Any]:
        """The files of a part; their names, sizes and hashes."""
        form, beside = self.form, {}
        columns = [(pa.field("item_id", pa.string(), nullable=False), item_ids)]
        if form.vector_file is None:
            columns.append(vector_array(coded.codes))
        else:
            name, write = form.vector_file.format(number), form.write_vectors
            assert write is not None, "a format with a file of vectors writes it"
            beside = {"vectors": {"file": name, **work.commit(name, lambda path: write(path, coded.codes), may)}}
        if coded.scale is not None:
            columns.append((pa.field("scale", pa.float32(), nullable=False), pa.array(coded.scale)))
        bitmask = pa.array(self._bitmask(item_idx), pa.int32())  # after encoding, which may find media unreadable
        columns.append((pa.field("modalities", pa.int32(), nullable=False), bitmask))
        if self._shares is not None:
            columns.append(vector_array(self._shares[item_idx], "shares"))
        columns.append((pa.field("source_hash", pa.string(), nullable=False), pa.array(hashes, pa.string())))
        fields, arrays = zip(*columns, strict=True)
        table = pa.Table.from_arrays(list(arrays), schema=pa.schema(fields))
        name = self.file(number)
        return {"file": name, **work.commit(name, lambda path: form.write_table(path, table), may), **beside}

    def _coded(self, item_idx: np.ndarray, item_ids: pa.Array, hashes: list[str]) -> _Coded:
        rows = np.full(len(item_idx), -1)
        if self._previous is not None:
            rows = self._previous.rows(item_ids, hashes, self._bitmask(item_idx))
        new, known = np.flatnonzero(rows < 0), np.flatnonzero(rows >= 0)
        if not len(known):
            exact = vectors_or_refuse(self._encode_items(item_idx), item_ids)
            return _Coded(*self.encoding.encode(exact), exact.shape[1], exact, copied=0)
        assert self._previous is not None
        copied, scale = self._previous.codes(rows[known])
        codes = np.empty((len(item_idx), copied.shape[1]), dtype=copied.dtype)
        exact = np.full((len(item_idx), self._previous.dim), np.nan, dtype=np.float32)
        scales = None if scale is None else np.empty(len(item_idx), dtype=np.float32)
        codes[known], exact[known] = copied, self._previous.exact(rows[known])
        if scales is not None:
            scales[known] = scale
        if self._shares is not None:
            self._shares[item_idx[known]] = self._previous.shares(rows[known])
        if len(new):
            exact[new] = vectors_or_refuse(self._encode_items(item_idx[new]), item_ids.take(pa.array(new)))
            codes[new], scale = self.encoding.encode(exact[new])
            if scales is not None:
                scales[new] = scale
        return _Coded(codes, scales, exact.shape[1], exact, copied=len(known))

    def _bitmask(self, item_idx: np.ndarray) -> np.ndarray:
        """Bit m is set where the item has modality m. int32 (n,)"""
        present = self._presence[item_idx].astype(np.int32)  # (n, M)
        return (present << np.arange(present.shape[1], dtype=np.int32)).sum(axis=1, dtype=np.int32)


def vectors_or_refuse(given: np.ndarray, ids: pa.Array, what: str = "item") -> np.ndarray:
    """One finite float32 vector for each of the ids. (n, D)

    Raises: DataError if there are too few, or a value is none.
    """
    vectors = np.asarray(given, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise DataError(
            f"the model gave vectors of shape {vectors.shape} for {len(ids):,} {what}s; "
            f"an export needs one vector {'an' if what == 'item' else 'a'} {what}"
        )
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise DataError(
            f"the model gives NaN or infinite vectors for {len(broken):,} of {len(ids):,} {what}s, for example "
            f"{ids[int(broken[0])].as_py()!r}; its training went wrong: export another checkpoint"
        )
    return vectors


def is_normalised(vectors: np.ndarray) -> bool:
    """Whether every vector has length 1."""
    squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    return bool((np.abs(np.sqrt(squares) - 1) <= _UNIT_LENGTH_TOLERANCE).all())


def is_intact(work: Workplace, part: dict[str, Any]) -> bool:
    """Whether the files of a part are what its entry of the manifest says; warns if not."""
    try:
        for entry in (part, *([part["vectors"]] if "vectors" in part else [])):
            check_file(work.out, entry["file"], entry, content=True)
    except DataError as error:
        logger.warning("%s", str(error).partition(";")[0] + "; writing it again")
        return False
    return True
