"""Exact full ranking of the validation targets while a model is trained; every process takes a share of the queries."""

from __future__ import annotations

import logging

import numpy as np
import torch

from mmrec.data.splits import Split
from mmrec.distributed import all_gather_rows, rank, world_size
from mmrec.inference import encode_catalog, encode_histories
from mmrec.item_inputs import CatalogInputs
from mmrec.keyed_random import Purpose, random_generator
from mmrec.metrics.embedding_quality import effective_rank
from mmrec.metrics.ranking import ranking_metrics
from mmrec.model import Recommender
from mmrec.retrieval import rank_targets

__all__ = ["SELECTION_METRIC", "Validation"]

logger = logging.getLogger(__name__)

SELECTION_METRIC = "ndcg@10"
METRICS = ("hr@10", SELECTION_METRIC, "mrr")
# Effective rank of the item vectors below which they tell hardly anything apart.
COLLAPSED = 2.0


class Validation:
    """Ranks the validation queries of a split, or a seeded draw of them; the test part is never looked at.

    Args:
        split: its validation part may be empty (a refit).
        max_queries: queries at most.
        seed: of the draw.
    """

    def __init__(self, split: Split, max_queries: int, seed: int) -> None:
        self.train_items = split.train_items
        self.queries = split.valid
        if len(split.valid) > max_queries:
            drawn = random_generator(seed, Purpose.VALIDATION).permutation(len(split.valid))
            self.queries = split.valid.take(np.sort(drawn[:max_queries]))

    def __call__(self, model: Recommender, catalog: CatalogInputs) -> tuple[dict[str, float], float]:
        """Means of the metrics over all queries, and the effective rank of the vectors of training items.

        Every rank must ask; all get the same.
        """
        vectors = encode_catalog(model, catalog, np.arange(len(self.train_items)))
        directions = effective_rank(vectors[torch.from_numpy(self.train_items).to(vectors.device)])
        if directions < COLLAPSED and rank() == 0:
            logger.warning(
                "the item vectors use %.1f of %d directions (effective rank): they have collapsed; look for equal "
                "media, or give a lower --learning-rate", directions, vectors.shape[1],
            )  # fmt: skip
        shares = [len(range(place, len(self.queries), world_size())) for place in range(world_size())]
        queries = self.queries.take(np.arange(rank(), len(self.queries), world_size()))
        users = encode_histories(model.user_encoder, vectors, queries.history, query_times=queries.times)
        metrics = ranking_metrics(rank_targets(users, vectors, queries), queries.target_offsets)
        mine = torch.tensor(np.stack([metrics[name] for name in METRICS], axis=1))  # (q, 3)
        everyone = all_gather_rows(mine.to(vectors.device), shares)
        return dict(zip(METRICS, everyone.mean(0).tolist(), strict=True)), directions
