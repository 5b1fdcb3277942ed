"""Search in an export folder: the items nearest to an item or a vector, from the files alone.

Nothing here needs torch or the dataset, so that a search answers at once. The format of the folder stands in
``mmrec/exporter.py``. With ``index.faiss`` FAISS finds the candidates, without it a product over all vectors does; both
ways score the candidates again in float64 and order them in the same way, so they answer alike.

Legend: V items of the export, D vector width, C candidates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder

__all__ = [
    "Hit",
    "hits_to_json",
    "recommend",
    "search_by_item",
    "search_by_vector",
]

# Candidates beyond k, so that rounding in float32 cannot push out an item that float64 puts among the first k.
_SPARE_CANDIDATES = 16


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


def hits_to_json(hits: Sequence[Hit]) -> str:
    """The answer as a JSON list of objects with the fields of :class:`Hit`."""
    return json.dumps([asdict(hit) for hit in hits], indent=1, ensure_ascii=False)


def search_by_item(export: ExportFolder, item_id: str, k: int) -> list[Hit]:
    """The ``k`` items nearest to ``item_id``, without itself.

    Raises:
        DataError: if the export has no such item; the message names the nearest id.
    """
    return search_by_vector(export, export.vector(item_id), k, exclude=(item_id,))


def recommend(
    export: ExportFolder,
    user_vector: np.ndarray,
    k: int,
    exclude: Iterable[str] = (),
    bonus: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Hit]:
    """The ``k`` items with the greatest inner product with a user's vector, without the items of ``exclude``.

    Args:
        bonus: rows of some items, and what is added to their scores; at least 0. (n,), (n,)

    Raises:
        DataError: if the vector is zero, which is what a user without events has, or an item is unknown.
    """
    if not np.any(user_vector):
        raise DataError("the user has no events to go on; give a user with events, or a list of items")
    return search_by_vector(export, user_vector, k, exclude, bonus)


def search_by_vector(
    export: ExportFolder,
    vector: np.ndarray,
    k: int,
    exclude: Iterable[str] = (),
    bonus: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[Hit]:
    """The ``k`` items with the greatest inner product with ``vector``, best first; fewer if fewer are left.

    Equal scores stand in the order of the export.

    Args:
        vector: finite, any length. (D,)
        exclude: item ids that may not be in the answer.
        bonus: rows of some items, and what is added to their inner products; at least 0. (n,), (n,)

    Raises:
        ConfigError: if ``k`` is less than 1.
        DataError: if the vector does not fit, or an excluded item is unknown.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; it must be at least 1")
    vector = np.ascontiguousarray(vector, dtype=np.float32)
    if vector.shape != (export.dim,):
        raise DataError(f"the query has shape {vector.shape}; the vectors of {export.path} have ({export.dim},)")
    if not np.isfinite(vector).all():
        raise DataError("the query vector has NaN or infinite values; give a finite one")
    excluded = {export.item_index(item_id) for item_id in exclude}
    wanted = min(k + len(excluded) + _SPARE_CANDIDATES, export.num_items)
    candidates = export.candidates(vector, wanted)  # (C,)
    if bonus is not None:  # the best of those without bonus, and all that have one
        candidates = np.union1d(candidates, bonus[0])
    if excluded:
        candidates = candidates[~np.isin(candidates, list(excluded))]
    scores = np.einsum("cd,d->c", export.rows(candidates).astype(np.float64), vector.astype(np.float64))
    if bonus is not None:
        added = np.zeros(export.num_items)
        added[bonus[0]] = bonus[1]
        scores = scores + added[candidates]
    best = np.lexsort((candidates, -scores))[:k]
    found = zip(candidates[best], scores[best], strict=True)
    return [
        Hit(
            rank,
            export.id_column[idx].as_py(),
            export.title_column[idx].as_py(),
            float(score),
            export.modalities_of(idx),
        )
        for rank, (idx, score) in enumerate(found, start=1)
    ]
