"""The items nearest to an item or a vector, from the files of an export alone.

Nothing here needs torch or the dataset, so that a search answers at once. Removed items (`mmrec index --remove`) are in
no answer.

Legend: V items of the export, D vector width, Q queries.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.index.filters import Filters, NormalForm, Where, normal_form
from mmrec.index.opened import OpenIndex, Restriction, open_index
from mmrec.index.removed import live_items

__all__ = [
    "Hit",
    "live_rows",
    "search_by_vector",
    "search_by_vectors",
    "vectors_at",
]

_OPENING = threading.Lock()


@dataclass(frozen=True)
class Hit:
    """One row of an answer.

    Attributes:
        rank: from 1.
        score: the inner product, for unit vectors the cosine; with what ``bonus`` added.
        modalities: what the item's vector was made of.
    """

    rank: int
    item_id: str
    title: str
    score: float
    modalities: tuple[str, ...]


def live_rows(export: ExportFolder, item_ids: Sequence[str]) -> np.ndarray:
    """Rows of items that a query asks for. int64 (n,)

    Raises:
        DataError: if the export has no such item, or it was removed.
    """
    rows = export.item_rows(item_ids)
    live = _searcher(export).live
    if live is not None and not live[rows].all():
        gone = item_ids[int(np.argmin(live[rows]))]
        raise DataError(
            f"item {gone!r} was removed from {export.path}; `mmrec index {export.path} --restore` brings it back"
        )
    return rows


def search_by_vector(
    export: ExportFolder,
    vector: np.ndarray,
    k: int,
    exclude: Iterable[str] = (),
    bonus: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    where: Where | None = None,
) -> list[Hit]:
    """The ``k`` items with the greatest inner product with ``vector``, best first; fewer if fewer are left.

    Equal scores stand in the order of the export.

    Args:
        vector: finite, any length. (D,)
        exclude: item ids that may not be in the answer.
        bonus: rows of some items, and what is added to their inner products; at least 0. (n,), (n,)
        where: by attribute column, the values that an answer may have.

    Raises:
        ConfigError: if ``k`` is less than 1, or an attribute or value is unknown.
        DataError: if the vector does not fit, or an excluded item is unknown.
    """
    vector = np.asarray(vector, dtype=np.float32)
    if vector.shape != (export.dim,):
        raise DataError(f"the query has shape {vector.shape}; the vectors of {export.path} have ({export.dim},)")
    excluded = np.unique(export.item_rows([str(item_id) for item_id in exclude]))
    rows, scores = _nearest(export, vector[None], k, [excluded], where)
    if bonus is not None:  # the best of those without bonus, and all that have one
        rows, scores = _with_bonus(export, vector, k, rows[0], bonus, excluded, where)
    return _hits(export, np.atleast_2d(rows), np.atleast_2d(scores))[0]


def search_by_vectors(
    export: ExportFolder,
    vectors: np.ndarray,
    k: int,
    exclude: Sequence[Iterable[str]] = (),
    *,
    where: Where | None = None,
) -> list[list[Hit]]:
    """:func:`search_by_vector` for many queries in one pass.

    Args:
        vectors: finite, any length. (Q, D)
        exclude: item ids that may not be in the answer, for each query; empty: none.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != export.dim:
        raise DataError(f"the queries have shape {vectors.shape}; the vectors of {export.path} have ({export.dim},)")
    excluded = [np.unique(export.item_rows([str(item_id) for item_id in items])) for items in exclude]
    rows, scores = _nearest(export, vectors, k, excluded, where)
    return _hits(export, rows, scores)


def vectors_at(export: ExportFolder, rows: np.ndarray) -> np.ndarray:
    """Vectors at rows of the export, removed items too, from the index where there is one. float32 (n, D)"""
    return _searcher(export).index.vectors(rows)


class _Searcher:
    """What searches in one export share: its index and its filters, each read when it is first needed."""

    def __init__(self, export: ExportFolder) -> None:
        self.index: OpenIndex = open_index(export)
        self.live = live_items(export)
        self._filters = Filters(export)
        self._unfiltered = None if self.live is None else self.index.restrict(self.live, exhaustive=False)
        self._filtered = functools.lru_cache(maxsize=32)(self._restrict)  # the same filters come again and again

    def restriction(self, where: Where | None) -> Restriction | None:
        return self._filtered(normal_form(where)) if where else self._unfiltered

    def _restrict(self, where: NormalForm) -> Restriction:
        mask = self._filters.mask(where)
        return self.index.restrict(mask if self.live is None else mask & self.live, exhaustive=True)


def _searcher(export: ExportFolder) -> _Searcher:
    if export.searcher is None:
        with _OPENING:
            if export.searcher is None:
                export.searcher = _Searcher(export)
    return export.searcher


def _nearest(
    export: ExportFolder, vectors: np.ndarray, k: int, excluded: Sequence[np.ndarray], where: Where | None
) -> tuple[np.ndarray, np.ndarray]:
    if k < 1:
        raise ConfigError(f"k is {k}; it must be at least 1")
    if not np.isfinite(vectors).all():
        raise DataError("the query vector has NaN or infinite values; give a finite one")
    searcher = _searcher(export)
    restriction = searcher.restriction(where)
    return searcher.index.nearest(vectors, min(k, export.num_items), excluded, restriction)


def _with_bonus(
    export: ExportFolder,
    vector: np.ndarray,
    k: int,
    found: np.ndarray,
    bonus: tuple[np.ndarray, np.ndarray],
    excluded: np.ndarray,
    where: Where | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and scores of the best of ``found`` and of all that have a bonus."""
    searcher = _searcher(export)
    order = np.argsort(bonus[0])
    favoured, added = np.asarray(bonus[0])[order], np.asarray(bonus[1])[order]
    rows = np.setdiff1d(np.union1d(found[found >= 0], favoured), excluded)
    if (restriction := searcher.restriction(where)) is not None:
        rows = rows[restriction.mask[rows]]
    scores = searcher.index.scores(vector[None], rows[None])[0]
    place = np.minimum(np.searchsorted(favoured, rows), max(len(favoured) - 1, 0))
    if len(favoured):
        scores = scores + np.where(favoured[place] == rows, added[place], 0.0)
    best = np.lexsort((rows, -scores))[:k]
    return rows[best], scores[best]


def _hits(export: ExportFolder, rows: np.ndarray, scores: np.ndarray) -> list[list[Hit]]:
    """The answers, of rows and scores (Q, k); rows are -1 at the end where there are no more."""
    there = rows >= 0
    flat = rows[there]
    ids, titles = (column.take(flat).to_pylist() for column in (export.id_column, export.title_column))
    ranks = (np.nonzero(there)[1] + 1).tolist()
    modalities = map(export.modalities_of, flat.tolist())
    hits = [*map(Hit, ranks, ids, titles, scores[there].tolist(), modalities)]
    ends = np.cumsum(there.sum(axis=1)).tolist()
    return [hits[start:end] for start, end in zip([0, *ends], ends, strict=False)]
