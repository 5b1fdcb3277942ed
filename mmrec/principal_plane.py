"""Vectors drawn on paper: the plane in which they differ most.

Legend: V vectors, D their width.
"""

from __future__ import annotations

import numpy as np

__all__ = ["principal_plane"]


def principal_plane(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First two principal components, each coordinate scaled to -1 to 1, and the share of the variance in each.

    Signs are settled (the largest weight of an axis is positive), so that equal vectors are drawn alike.

    Args:
        vectors: float32 (V, D), V and D at least 1.

    Returns: places float64 (V, 2); shares, 0 where all vectors are equal. (2,)
    """
    centred = vectors - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    plane = axes[:, ::-1][:, :2]
    plane = plane * np.sign(plane[np.abs(plane).argmax(axis=0), np.arange(plane.shape[1])])
    places = np.zeros((len(vectors), 2))
    places[:, : plane.shape[1]] = centred @ plane
    shares = np.zeros(2)
    shares[: plane.shape[1]] = np.maximum(values[::-1][:2], 0.0) / max(float(values.sum()), 1e-12)
    return places / np.maximum(np.abs(places).max(axis=0), 1e-12), shares
