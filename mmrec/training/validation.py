"""Exact full ranking of the validation targets while a model is trained; every process takes a share of the queries."""

from __future__ import annotations

import logging

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mmrec.data.splits import Split
from mmrec.distributed import all_gather_rows, rank, world_size
from mmrec.inference import encode_catalog, encode_histories
from mmrec.item_encoder import ItemTokens
from mmrec.item_inputs import CatalogInputs
from mmrec.keyed_random import Purpose, random_generator
from mmrec.metrics.embedding_quality import Scatter
from mmrec.metrics.ranking import ranking_metrics
from mmrec.model import Recommender
from mmrec.retrieval import rank_targets

__all__ = ["SELECTION_METRIC", "Validation", "collapse"]

logger = logging.getLogger(__name__)

SELECTION_METRIC = "ndcg@10"
METRICS = ("hr@10", SELECTION_METRIC, "mrr")
# Vectors have collapsed where they differ in so small a share of the directions that they could, or hardly in two ...
MIN_SHARE, MIN_DIRECTIONS = 0.01, 1.5
# ... or where all are nearly equal: 1 - the mean cosine of all pairs.
MIN_SPREAD = 0.01
# Of fewer vectors nothing can be said.
MIN_VECTORS = 16


class Validation:
    """Ranks the validation queries of a split, or a seeded draw of them; the test part is never looked at.

    Args:
        split: its validation part may be empty (a refit).
        max_queries: queries at most.
        seed: of the draw.
    """

    def __init__(self, split: Split, max_queries: int, seed: int) -> None:
        self.train_items = split.train_items
        self._collapsed: set[str] = set()
        self.queries = split.valid
        if len(split.valid) > max_queries:
            drawn = random_generator(seed, Purpose.VALIDATION).permutation(len(split.valid))
            self.queries = split.valid.take(np.sort(drawn[:max_queries]))

    def __call__(self, model: Recommender, catalog: CatalogInputs) -> tuple[dict[str, float], dict[str, float]]:
        """Means of the metrics over all queries; and effective ranks of the training items' vectors: of the fused ones
        ("fused"), and by modality of those that its encoder makes, for the others hide it where a single one collapses.

        Every rank must ask; all get the same.
        """
        encoder = model.item_encoder
        scatters = {name: Scatter(encoder.dim, model.log_scale.device) for name in ("fused", *encoder.columns)}

        def watch(item_idx: np.ndarray, tokens: ItemTokens, vectors: Tensor) -> None:
            known = torch.from_numpy(self.train_items[item_idx]).to(vectors.device)
            by_modality, present = encoder.modality_vectors(tokens, list(encoder.columns))
            scatters["fused"].add(vectors[known])
            for name, unit, has in zip(encoder.columns, by_modality, present, strict=True):
                scatters[name].add(unit[has & known])

        vectors = encode_catalog(model, catalog, np.arange(len(self.train_items)), watch=watch)
        directions = self._directions(scatters)
        shares = [len(range(place, len(self.queries), world_size())) for place in range(world_size())]
        queries = self.queries.take(np.arange(rank(), len(self.queries), world_size()))
        users = encode_histories(model.user_encoder, vectors, queries.history, query_times=queries.times)
        metrics = ranking_metrics(rank_targets(users, vectors, queries), queries.target_offsets)
        mine = torch.tensor(np.stack([metrics[name] for name in METRICS], axis=1))  # (q, 3)
        everyone = all_gather_rows(mine.to(vectors.device), shares)
        return dict(zip(METRICS, everyone.mean(0).tolist(), strict=True)), directions

    def _directions(self, scatters: dict[str, Scatter]) -> dict[str, float]:
        """Effective ranks, from what each rank has seen; says which vectors have collapsed since the last time."""
        found = {}
        for name, scatter in scatters.items():
            if world_size() > 1:
                dist.all_reduce(scatter.sums)
            if scatter.count < MIN_VECTORS:
                continue
            found[name] = scatter.effective_rank
            why = collapse(scatter)
            if why and name not in self._collapsed and rank() == 0:
                logger.warning(
                    "the %s vectors have collapsed: %s; look for equal media, or give a lower --learning-rate%s",
                    name, why, "" if name == "fused" else f", or a lower --modality-rates {name}",
                )  # fmt: skip
            self._collapsed = self._collapsed | {name} if why else self._collapsed - {name}
        return found


def collapse(scatter: Scatter) -> str | None:
    """How unit vectors tell hardly anything apart; None if they do."""
    if scatter.spread < MIN_SPREAD:
        return f"the mean cosine of two of them is {1 - scatter.spread:.3f}"
    most = min(len(scatter.covariance), scatter.count - 1)
    directions = scatter.effective_rank
    if directions < max(MIN_DIRECTIONS, MIN_SHARE * most):
        return f"they differ in {directions:.1f} of {most} directions (effective rank)"
    return None
