"""How much of the exact answer an index finds, and the least effort that finds enough.

Queries are vectors of items, turned by noise of half their length so that they are on none of them, and where the
export has vectors of users, as many of those. One half of the queries chooses the setting, the other half, which
nothing has seen, tells what it finds.

Legend: V items, D vector width, Q queries, K neighbours that are compared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from mmrec.export_folder import ExportFolder
from mmrec.index.opened import OpenIndex, Restriction, import_faiss

__all__ = ["RECALL_AT", "Measured", "Sample", "draw_sample", "measure", "tune"]

RECALL_AT = 10
_QUERIES = 1000
_NOISE = 0.5  # its length as a share of the vector's
_SPARE = 16  # candidates of the exact answer, which are scored again in float64
_MOST_EF = 4096


@dataclass(frozen=True)
class Sample:
    """Queries and what an exact search finds.

    Attributes:
        queries: float32 (Q, D)
        least: score of the last item of the exact answer. float64 (Q,)
        k: length of that answer: K, or fewer where there are fewer items.
    """

    queries: np.ndarray
    least: np.ndarray
    k: int

    def halves(self) -> tuple[Sample, Sample]:
        return tuple(Sample(self.queries[n::2], self.least[n::2], self.k) for n in (0, 1))  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Measured:
    """Recall on a sample: the share of the exact answer, equal scores counting as equal, and its standard error."""

    recall: float
    standard_error: float
    queries: int
    queries_per_second: float


def draw_sample(export: ExportFolder, index: OpenIndex, live: np.ndarray | None, seed: int) -> Sample:
    """Queries near items that are not removed, and of users, and their exact answers by one pass over all parts."""
    rows = np.arange(export.num_items) if live is None else np.flatnonzero(live)
    generator = np.random.default_rng(seed)
    users = _user_vectors(export, _QUERIES // 2, generator)
    num = _QUERIES - len(users)
    vectors = index.vectors(generator.choice(rows, size=num, replace=len(rows) < num))
    noise = generator.standard_normal(vectors.shape, dtype=np.float32)
    noise *= np.linalg.norm(vectors, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    queries = generator.permutation(np.concatenate([vectors + np.float32(_NOISE) * noise, users]))
    k = min(RECALL_AT, len(rows))
    candidates = _exact_candidates(export, queries, live, min(k + _SPARE, len(rows)))
    scores = np.sort(index.scores(queries, candidates), axis=1)
    return Sample(queries, scores[:, -k], k)


def _user_vectors(export: ExportFolder, num: int, generator: np.random.Generator) -> np.ndarray:
    """Vectors of at most ``num`` users who have events, of one part, for there may be many. float32 (n, D)"""
    if not (users := export.manifest["users"]):
        return np.zeros((0, export.dim), dtype=np.float32)
    table = export.read_table(users["parts"][generator.integers(len(users["parts"]))]["file"])
    known = np.flatnonzero(table["events"].to_numpy() > 0)
    return export.decode(table.take(generator.choice(known, min(num, len(known)), replace=False)))


def _exact_candidates(export: ExportFolder, queries: np.ndarray, live: np.ndarray | None, num: int) -> np.ndarray:
    """Rows of the ``num`` greatest inner products in float32. (Q, num)"""
    faiss = import_faiss()
    start = 0
    scores = np.zeros((len(queries), 0), dtype=np.float32)
    rows = np.zeros((len(queries), 0), dtype=np.int64)
    for block in export.vector_blocks():
        here = np.arange(len(block)) if live is None else np.flatnonzero(live[start : start + len(block)])
        if len(here):
            among = block if live is None else block[here]
            score, place = faiss.knn(queries, among, min(num, len(here)), metric=faiss.METRIC_INNER_PRODUCT)
            scores = np.concatenate([scores, score], axis=1)
            rows = np.concatenate([rows, start + here[place]], axis=1)
            best = np.argsort(-scores, axis=1)[:, :num]
            scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
        start += len(block)
    return rows


def measure(index: OpenIndex, sample: Sample, restriction: Restriction | None) -> Measured:
    """What the index finds with the parameters that it has."""
    started = time.perf_counter()
    _, scores = index.nearest(sample.queries, sample.k, restriction=restriction)
    seconds = time.perf_counter() - started
    tolerance = 1e-9 * np.abs(sample.least)  # the same products, summed in another order
    found = (scores >= (sample.least - tolerance)[:, None]).mean(axis=1)
    error = float(found.std() / np.sqrt(len(found)))
    return Measured(float(found.mean()), error, len(found), len(found) / seconds)


def tune(index: OpenIndex, sample: Sample, target: float, restriction: Restriction | None) -> Measured:
    """Set the parameter of the index to about the least value that reaches ``target``, and measure it.

    Returns: what the held-out queries find; less than ``target`` only where the greatest value finds no more.
    """
    choosing, held_out = sample.halves()
    if "nprobe" in index.parameters:
        name, least, most = "nprobe", 1, index.parameters["nlist"]
    elif "ef_search" in index.parameters:
        name, least, most = "ef_search", sample.k, _MOST_EF
    else:
        return measure(index, held_out, restriction)

    def enough(value: int) -> bool:
        index.parameters[name] = value
        found = measure(index, choosing, restriction)
        return found.recall - found.standard_error >= target

    too_little, value = least - 1, least
    while value < most and not enough(value):
        too_little, value = value, min(2 * value, most)
    while value - too_little > max(value // 8, 1):
        middle = (too_little + value) // 2
        too_little, value = (too_little, middle) if enough(middle) else (middle, value)
    index.parameters[name] = value
    while (found := measure(index, held_out, restriction)).recall < target and value < most:
        index.parameters[name] = value = min(value + max(value // 8, 1), most)
    return found
