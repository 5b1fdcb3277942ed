"""The space of an export as the page draws it: a map of all items, and a few items spread over it.

Legend: V items of the export, S items drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmrec.explore.catalog import Catalog
from mmrec.index.search import vectors_at
from mmrec.principal_plane import principal_plane

__all__ = ["MAX_POINTS", "make_map", "spread_items"]

MAX_POINTS = 100_000
"""Points that a browser draws at once without making its user wait; of larger catalogues a draw is shown."""

_GRID = 4095  # places are whole numbers: finer than any screen, and short in JSON
_NAMED = 9  # values of an attribute that get a colour of their own
_SPREAD_FROM = 2000


def make_map(catalog: Catalog, *, max_points: int = MAX_POINTS, seed: int = 0) -> dict[str, Any]:
    """Items in the plane of the first two principal components, with what they can be coloured by.

    Args:
        max_points: of more items so many are drawn, by ``seed``.

    Returns:
        item_ids; x, y: 0 to 4095; explained: share of the variance in each direction; shown, of: S and V;
        colours: by attribute, {"kind": "category", "names", "codes"}, a code -1 for none of the names, or
        {"kind": "number", "values"}, None where unknown.
    """
    export = catalog.export
    rows = _draw(catalog.rows, max_points, seed)
    places, explained = principal_plane(vectors_at(export, rows))
    grid = np.rint((places + 1) / 2 * _GRID).astype(int)
    drawn = export.attributes.take(rows)
    colours = {name: _colour(drawn[name].to_pylist()) for name in drawn.column_names if name not in catalog.prose}
    media = [" + ".join(name for name in export.modalities_of(row) if name != "item_id") or "nothing" for row in rows]
    colours = {name: colour for name, colour in (colours | {"modalities": _colour(media)}).items() if colour}
    return {
        "item_ids": export.item_ids[rows].tolist(),
        "x": grid[:, 0].tolist(),
        "y": grid[:, 1].tolist(),
        "explained": explained.tolist(),
        "shown": len(rows),
        "of": len(catalog.rows),
        "colours": colours,
    }


def spread_items(catalog: Catalog, num: int, seed: int) -> list[str]:
    """Ids of ``num`` items that differ: each is the farthest from those before it, of some that ``seed`` draws."""
    rows = _draw(catalog.rows, _SPREAD_FROM, seed)
    vectors = vectors_at(catalog.export, rows)
    chosen = [int(np.random.default_rng(seed).integers(len(rows)))]
    nearest = vectors @ vectors[chosen[0]]  # similarity with the most similar of the chosen. (S,)
    while len(chosen) < min(num, len(rows)):
        nearest[chosen[-1]] = np.inf
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return catalog.export.item_ids[rows[chosen]].tolist()


def _draw(rows: np.ndarray, num: int, seed: int) -> np.ndarray:
    if len(rows) <= num:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, num, replace=False))


def _colour(values: list[Any]) -> dict[str, Any] | None:
    """How an attribute colours the points; None where it tells nothing apart, as ids do, or constants."""
    there = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in there):
        numbers = np.array([np.nan if value is None else float(value) for value in values])
        known = numbers[np.isfinite(numbers)]
        if len(known) == 0 or known.min() == known.max():
            return None
        return {"kind": "number", "values": [value if np.isfinite(value) else None for value in numbers.tolist()]}
    names, codes, counts = np.unique([str(value) for value in there], return_inverse=True, return_counts=True)
    if len(names) < 2 or counts.max() < 2:
        return None
    largest = np.argsort(-counts, kind="stable")[:_NAMED]
    place = np.full(len(names), -1)
    place[largest] = np.arange(len(largest))
    found = iter(place[codes].tolist())
    return {
        "kind": "category",
        "names": names[largest].tolist(),
        "codes": [-1 if value is None else next(found) for value in values],
    }
