"""What a record says of the lists themselves: varied or narrow, popular or not, and whom they show."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmrec.baselines.content_knn import content_vectors
from mmrec.data.dataset import Dataset
from mmrec.data.splits import Queries, Split
from mmrec.metrics.beyond_accuracy import beyond_accuracy, calibration, intra_list_diversity, popularity_bias
from mmrec.metrics.exposure import exposure_by_group, modality_completeness, popularity_deciles
from mmrec.metrics.slices import ItemGroups, training_events

__all__ = ["exposure_record", "list_metrics"]

_LARGEST = 30
"""Groups of an attribute that are told apart, those of the most items; the rest together is "others"."""


def list_metrics(
    dataset: Dataset, split: Split, queries: Queries, lists: np.ndarray, category: ItemGroups | None
) -> dict[str, float]:
    """Every metric of :mod:`mmrec.metrics.beyond_accuracy` that the data allow, by name.

    Diversity is by the vectors of content-kNN: feature sets, else words.

    Args:
        lists: catalogue indices, -1 where a list ended. (Q, k)
        category: for calibration.
    """
    counts = training_events(split)
    found = {**beyond_accuracy(lists, counts), **popularity_bias(lists, queries.history, counts)}
    content = content_vectors(dataset)
    if content is not None:
        found |= intra_list_diversity(lists, content)
    if category is not None:
        found |= calibration(lists, queries.history, category.group)
    return found


def exposure_record(
    dataset: Dataset, split: Split, queries: Queries, lists: np.ndarray, provider: ItemGroups | None
) -> dict[str, Any]:
    """:func:`mmrec.metrics.exposure.exposure_by_group` by popularity decile, modality completeness, and provider."""
    present = {name: dataset.present(name) for name in dataset.modalities}
    groups = {"popularity_decile": popularity_deciles(training_events(split))}
    if present and len((patterns := modality_completeness(present))[1]) > 1:
        groups["modalities"] = patterns
    if provider is not None:
        groups["provider"] = _largest(provider)
    of = (lists, queries.targets, queries.target_offsets, queries.user)
    return {name: exposure_by_group(*of, group, names) for name, (group, names) in groups.items()}


def _largest(groups: ItemGroups) -> tuple[np.ndarray, list[str]]:
    size = np.bincount(groups.group[groups.group >= 0], minlength=len(groups.names))
    kept = np.sort(np.argsort(-size, kind="stable")[:_LARGEST])
    place = np.full(len(groups.names) + 1, len(kept))
    place[kept] = np.arange(len(kept))
    place[-1] = -1
    return place[groups.group], [*(groups.names[n] for n in kept), "others"]
