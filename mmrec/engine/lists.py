"""A list chosen from a larger pool of an export's best items.

Legend: V items of the export, C candidates, G groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mmrec.errors import ConfigError, unknown_name
from mmrec.export_folder import ExportFolder
from mmrec.index import Hit, vectors_at
from mmrec.reranking import Candidates, Reranking, pool_size

__all__ = ["reranked"]


def reranked(export: ExportFolder, ask: Callable[[int], list[Hit]], k: int, order: Reranking) -> list[Hit]:
    """``k`` hits in another order; ranks are counted anew, scores stay.

    The pool is the best 20 k items, 200 at least. Where it does not fill the list, as with a cap, it is made ten times
    as large until it does or holds all there is.

    Args:
        ask: the best hits, as many as asked for, fewer if fewer are left.

    Raises: ConfigError if the export has no such attribute.
    """
    size = pool_size(k)
    while True:
        hits = ask(size)
        chosen = order.choose(_candidates(export, hits, order), k) if hits else np.zeros(0, dtype=np.int64)
        if len(chosen) >= k or len(hits) < size:
            return [replace(hits[place], rank=rank) for rank, place in enumerate(chosen, start=1)]
        size *= 10


def _candidates(export: ExportFolder, hits: list[Hit], order: Reranking) -> Candidates:
    rows = export.item_rows([hit.item_id for hit in hits])
    scores = np.array([hit.score for hit in hits])
    if order.attribute is None:
        return Candidates(scores=scores, vectors=vectors_at(export, rows))
    group, shares = _groups(export, order.attribute, missing_is_a_group=order.kind == "fair")
    return Candidates(scores=scores, group=group[rows], shares=shares)


def _groups(export: ExportFolder, column: str, *, missing_is_a_group: bool) -> tuple[np.ndarray, np.ndarray]:
    """The group of each item by an attribute, and each group's share of the catalogue. int64 (V,), float64 (G,)

    Items without a value: a group of their own, or group -1.
    """
    if column not in export.attributes.column_names:
        raise ConfigError(unknown_name("attribute column", column, export.attributes.column_names))
    group, values = export.coded(column)
    if not missing_is_a_group:
        group = np.where(group == len(values), -1, group)
    counts = np.bincount(group[group >= 0])
    return group, counts / counts.sum()
