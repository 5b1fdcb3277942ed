"""What a number format costs: of the ten nearest items by float32, the share that are the nearest by what is stored.

Legend: n items of the sample, q of them are queries, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["recall_at_10", "sample_rows"]

MAX_ITEMS = 16_384
MAX_QUERIES = 1_000
K = 10


def sample_rows(num_items: int) -> np.ndarray:
    """Rows whose float32 vectors are kept until the recall is measured: all, or evenly spread ones. (n,)"""
    return np.unique(np.linspace(0, num_items - 1, min(num_items, MAX_ITEMS)).astype(np.int64))


def recall_at_10(exact: np.ndarray, decoded: np.ndarray) -> dict[str, Any] | None:
    """Recall of the ten nearest others by inner product; None of fewer than two items.

    Queries are items, looked for with their float32 vectors, as users and new items are. Of items at the same distance
    the earlier ones come first, for both.

    Args:
        exact, decoded: vectors of the same items. float32 (n, D)

    Returns: value, queries, and among: the number of items in which they were looked for.
    """
    num_items = len(exact)
    k = min(K, num_items - 1)
    if k < 1:
        return None
    asked = np.unique(np.linspace(0, num_items - 1, min(num_items, MAX_QUERIES)).astype(np.int64))
    kept = 0
    for part in np.array_split(asked, -(-len(asked) // 100)):
        nearest = [_nearest(exact[part], items, part, k) for items in (exact, decoded)]
        kept += sum(len(np.intersect1d(a, b)) for a, b in zip(*nearest, strict=True))
    return {"value": round(kept / (k * len(asked)), 6), "queries": len(asked), "among": num_items}


def _nearest(queries: np.ndarray, items: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    scores = queries.astype(np.float64) @ items.T.astype(np.float64)  # (q, n)
    scores[np.arange(len(own)), own] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
