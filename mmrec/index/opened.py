"""An index in memory: which rows come into question for a query, and their exact scores.

With ``index.faiss`` FAISS finds the candidates, without it a product over all vectors does. Scores are then computed
again in float64 from the vectors as exported, and equal ones stand in the order of the export; so all kinds of index
answer alike wherever they find the same items.

Legend: V items of the export, D vector width, Q queries, C candidates a query, P positions in the FAISS index, which
has more of them than items where it was taken over from an earlier export.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmrec.errors import DataError
from mmrec.export_folder import ExportFolder, check_file
from mmrec.index.gpu import MOST_ON_GPU, gpu_copy

__all__ = [
    "INDEX_FILES",
    "OpenIndex",
    "Restriction",
    "import_faiss",
    "index_in_memory",
    "open_index",
    "read_faiss",
    "stored_vectors",
    "vectors_digest",
]

INDEX_FILES = ("index.faiss", "index_ids.parquet", "index_vectors.npy")

# Candidates beyond k, so that rounding in float32 cannot push out an item that float64 puts among the first k.
_SPARE = 16
# So few items are all candidates: scoring them costs less than asking FAISS.
_FEW = 1000
_BLOCK_VALUES = 8_000_000  # numbers that scoring holds at a time


@dataclass(frozen=True, eq=False)
class Restriction:
    """Items that an answer may have.

    Attributes:
        mask: bool (V,)
        rows: the same as numbers, ascending.
        exhaustive: score them all, for what an index knows of its neighbourhoods says nothing of a filter.
        selector: the same for FAISS, in positions.
        bits: what the selector points at.
    """

    mask: np.ndarray
    rows: np.ndarray
    exhaustive: bool
    selector: Any
    bits: np.ndarray


class OpenIndex:
    """Candidates and scores. Safe under threads.

    Args:
        vectors: rows (n,) -> vectors as exported, float32 (n, D).
        num_items: V.
        index: a FAISS index of inner products; None: all vectors are ``vectors(slice(None))``.
        parameters: ``nlist`` and ``nprobe``, or ``ef_search``, as the index needs.
        row_of: row of each position, -1 where the item is no more; None: position = row. (P,)
        spare: candidates beyond those asked for, as a share of them; for codes that are not exact.
    """

    def __init__(
        self,
        vectors: Callable[[Any], np.ndarray],
        num_items: int,
        index: Any = None,
        parameters: Mapping[str, int] | None = None,
        row_of: np.ndarray | None = None,
        spare: float = 0.0,
    ) -> None:
        self.vectors = vectors
        self.num_items = num_items
        self.index = index
        self.parameters = dict(parameters or {})
        self._row_of = row_of
        self._spare = spare
        self._all = None if row_of is None else self.restrict(np.ones(num_items, dtype=bool), exhaustive=False)
        self._gpu = None if index is None else gpu_copy(index, self.parameters)

    def restrict(self, mask: np.ndarray, *, exhaustive: bool) -> Restriction:
        """Of a mask over the items, bool (V,), what :meth:`nearest` takes."""
        bits = mask if self._row_of is None else mask[self._row_of] & (self._row_of >= 0)
        bits = np.packbits(bits, bitorder="little")
        selector = None
        if self.index is not None:
            faiss = import_faiss()
            selector = faiss.IDSelectorBitmap(bits)
        return Restriction(mask, np.flatnonzero(mask), exhaustive, selector, bits)

    def nearest(
        self,
        queries: np.ndarray,
        k: int,
        excluded: Sequence[np.ndarray] = (),
        restriction: Restriction | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the ``k`` greatest inner products, best first, and the products; equal ones in the order of rows.

        Args:
            queries: float32 (Q, D), finite.
            excluded: rows that an answer may not have, a list a query.

        Returns: int64 (Q, k), -1 where there are no more, and float64 (Q, k), -inf there.
        """
        num = self.num_candidates(k, max(map(len, excluded), default=0))
        found = self.candidates(queries, num, restriction)  # (Q, C)
        for row, without in zip(found, excluded, strict=False):
            row[np.isin(row, without)] = -1
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf)
        step = max(_BLOCK_VALUES // max(found.shape[1] * queries.shape[1], 1), 1)
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            score = self.scores(queries[part], found[part])
            best = np.lexsort((found[part], -score), axis=-1)[:, :k]
            lines = np.arange(len(best))[:, None]
            rows[part, : best.shape[1]] = found[part][lines, best]
            scores[part, : best.shape[1]] = score[lines, best]
        rows[np.isneginf(scores)] = -1
        return rows, scores

    def num_candidates(self, k: int, excluded: int = 0) -> int:
        """Candidates to ask for, so that ``k`` are right after scoring."""
        return min(k + excluded + max(_SPARE, round(self._spare * k)), self.num_items)

    def scores(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Inner products with the items at ``rows`` (Q, C), float64; -inf where a row is -1."""
        vectors = self.vectors(np.maximum(rows, 0).ravel()).reshape(*rows.shape, queries.shape[1])  # (Q, C, D)
        products = np.einsum("qcd,qd->qc", vectors.astype(np.float64), queries.astype(np.float64))
        return np.where(rows < 0, -np.inf, products)

    def candidates(self, queries: np.ndarray, num: int, restriction: Restriction | None = None) -> np.ndarray:
        """Rows of about the ``num`` greatest inner products, in no order; -1 where there are no more. (Q, C)"""
        if restriction is not None and len(restriction.rows) <= _FEW:
            return np.tile(restriction.rows, (len(queries), 1))
        if self.index is None:
            return self._by_product(queries, num, restriction)
        restriction = restriction or self._all
        exhaustive = restriction is not None and restriction.exhaustive
        found = self._by_index(queries, num, restriction, exhaustive)
        if not exhaustive:  # too few near by: those are looked for everywhere
            left = self.num_items if restriction is None else len(restriction.rows)
            short = (found >= 0).sum(axis=1) < min(num, left)
            if short.any():
                found[short] = self._by_index(queries[short], num, restriction, exhaustive=True)
        if self._row_of is None:
            return found
        return np.where(found < 0, -1, self._row_of[found])

    def _by_product(self, queries: np.ndarray, num: int, restriction: Restriction | None) -> np.ndarray:
        everything = self.vectors(slice(None))  # (V, D)
        found = np.empty((len(queries), num), dtype=np.int64)
        for place, query in enumerate(queries):
            scores = everything @ query
            if restriction is not None:
                scores[~restriction.mask] = -np.inf
            best = np.argpartition(scores, -num)[-num:] if num < self.num_items else np.arange(num)
            found[place] = np.where(np.isneginf(scores[best]), -1, best)
        return found

    def _by_index(self, queries: np.ndarray, num: int, restriction: Restriction | None, exhaustive: bool) -> np.ndarray:
        faiss = import_faiss()
        if self._gpu is not None and restriction is None and not exhaustive and num <= MOST_ON_GPU:
            return self._gpu.search(queries, num)
        selector, index = None if restriction is None else restriction.selector, self.index
        if "nprobe" in self.parameters:
            probed = self.parameters["nlist" if exhaustive else "nprobe"]
            parameters = faiss.SearchParametersIVF(nprobe=probed, sel=selector)
        elif "ef_search" in self.parameters and not exhaustive:
            parameters = faiss.SearchParametersHNSW(efSearch=max(self.parameters["ef_search"], num), sel=selector)
        else:
            parameters = faiss.SearchParameters(sel=selector)
            if "ef_search" in self.parameters:
                index = faiss.downcast_index(self.index.storage)
        _, found = index.search(queries, num, params=parameters)
        return found


def open_index(export: ExportFolder) -> OpenIndex:
    """The index of an export, checked and read; without one, a product over all vectors.

    Raises:
        DataError: if a file is missing or damaged, or the index was made for other vectors.
    """
    entry = export.manifest.get("index")
    if entry is None:
        return OpenIndex(lambda rows: export.vectors[rows], export.num_items)
    index = read_faiss(export)
    if entry["kind"] == "sq8":
        check_file(export.path, "index_vectors.npy", export.files["index_vectors.npy"], content=True)
    row_of = export.read_table("index_ids.parquet", ["row"])["row"].to_numpy()
    return index_in_memory(export, entry["kind"], index, entry["parameters"], row_of)


def index_in_memory(
    export: ExportFolder, kind: str, index: Any, parameters: Mapping[str, int], row_of: np.ndarray
) -> OpenIndex:
    """A FAISS index together with the vectors of the export."""
    in_order = np.array_equal(row_of, np.arange(export.num_items))
    vectors = stored_vectors(export, kind, index, row_of)
    return OpenIndex(
        vectors, export.num_items, index, parameters, None if in_order else row_of, 1.0 if kind == "sq8" else 0.0
    )


def read_faiss(export: ExportFolder, *, writable: bool = False) -> Any:
    """``index.faiss``, checked; mapped into memory where it is not to be ``writable``."""
    faiss = import_faiss()
    entry = export.manifest["index"]
    if entry["vectors"] != vectors_digest(export):
        raise DataError(
            f"{export.path / 'index.faiss'} was made for other vectors than those of {export.path}; "
            f"make it again: mmrec index {export.path}"
        )
    path = export.path / "index.faiss"
    check_file(export.path, path.name, export.files[path.name], content=True)
    mapped = entry["kind"] in ("exact", "hnsw") and not writable
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    if (index.ntotal, index.d) != (entry["positions"], export.dim):
        raise DataError(
            f"{path} holds {index.ntotal:,} vectors of {index.d} dimensions but the manifest says "
            f"{entry['positions']:,} of {export.dim}; make it again: mmrec index {export.path}"
        )
    return index


def stored_vectors(export: ExportFolder, kind: str, index: Any, row_of: np.ndarray) -> Callable[[Any], np.ndarray]:
    """What gives the exact vectors at rows without the parts: the index itself, or of sq8 ``index_vectors.npy``."""
    faiss = import_faiss()
    if kind == "sq8":
        stored = np.load(export.path / "index_vectors.npy", mmap_mode="r")
        return lambda rows: np.asarray(stored[rows])
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()  # vectors by position
    position_of = np.empty(export.num_items, dtype=np.int64)
    position_of[row_of[row_of >= 0]] = np.flatnonzero(row_of >= 0)
    return lambda rows: index.reconstruct_batch(position_of[rows])


def vectors_digest(export: ExportFolder) -> str:
    """Names the vectors of an export: changes when one of them, or their order, does."""
    return hashlib.sha256(
        "".join(part.get("vectors", part)["sha256"] for part in export.manifest["parts"]).encode()
    ).hexdigest()


def import_faiss() -> Any:
    """FAISS, which takes its time to load; without its type stubs, which lack half of it."""
    import faiss

    return faiss
