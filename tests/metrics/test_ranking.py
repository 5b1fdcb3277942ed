"""Ranking metrics as visible arithmetic."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from mmrec.metrics.ranking import CUTOFFS, ranking_metrics


def of_one_query(*ranks: float) -> dict[str, float]:
    metrics = ranking_metrics(np.array(ranks, dtype=float), np.array([0, len(ranks)]))
    return {name: float(values[0]) for name, values in metrics.items()}


def test_one_target_at_the_top_earns_everything() -> None:
    assert set(of_one_query(0).values()) == {1.0}


def test_one_target_at_the_third_place() -> None:
    metrics = of_one_query(2)
    assert metrics["hr@1"] == metrics["ndcg@1"] == 0
    assert metrics["hr@5"] == metrics["recall@5"] == 1
    assert metrics["ndcg@5"] == pytest.approx(1 / log2(4))
    assert metrics["mrr"] == pytest.approx(1 / 3)


def test_the_last_place_within_k_hits_and_the_next_misses() -> None:
    assert of_one_query(9)["hr@10"] == 1
    assert of_one_query(10)["hr@10"] == 0


def test_a_tie_is_a_rank_between_places() -> None:
    metrics = of_one_query(0.5)
    assert metrics["hr@1"] == 1
    assert metrics["ndcg@1"] == pytest.approx(1 / log2(2.5))
    assert of_one_query(9.5)["hr@10"] == 1


def test_several_targets_share_the_ideal() -> None:
    metrics = of_one_query(1, 30, 3)
    assert metrics["hr@5"] == 1
    assert metrics["recall@5"] == pytest.approx(2 / 3)
    ideal = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert metrics["ndcg@5"] == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal)
    assert metrics["mrr"] == pytest.approx(1 / 2)


def test_more_targets_than_places_can_still_be_perfect_in_ndcg_but_not_in_recall() -> None:
    metrics = of_one_query(*range(8))
    assert metrics["ndcg@5"] == pytest.approx(1)
    assert metrics["recall@5"] == pytest.approx(5 / 8)


def test_queries_are_independent_and_each_metric_lies_between_0_and_1() -> None:
    generator = np.random.default_rng(0)
    num_targets = generator.integers(1, 9, 50)
    offsets = np.concatenate([[0], np.cumsum(num_targets)])
    ranks = np.concatenate([generator.choice(60, n, replace=False) for n in num_targets]).astype(float)
    metrics = ranking_metrics(ranks, offsets)
    assert set(metrics) == {"mrr"} | {f"{name}@{k}" for name in ("hr", "recall", "ndcg") for k in CUTOFFS}
    for query in range(50):
        alone = of_one_query(*ranks[offsets[query] : offsets[query + 1]])
        for name, values in metrics.items():
            assert values[query] == pytest.approx(alone[name])
            assert 0 <= values[query] <= 1 + 1e-12


def test_no_queries_have_no_metrics() -> None:
    assert ranking_metrics(np.zeros(0), np.zeros(1, dtype=int))["ndcg@10"].shape == (0,)
