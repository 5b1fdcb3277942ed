"""Ranking metrics as visible arithmetic, and against a slow reference that reads like the definitions."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest

from mmrec.errors import ConfigError
from mmrec.metrics.ranking import CUTOFFS, METRICS, check_metric, metric_of, ranking_metrics


def of_one_query(*ranks: float) -> dict[str, float]:
    metrics = ranking_metrics(np.array(ranks, dtype=float), np.array([0, len(ranks)]))
    return {name: float(values[0]) for name, values in metrics.items()}


def test_one_target_at_the_top_earns_everything_but_precision() -> None:
    for name, value in of_one_query(0).items():
        assert value == (1 / int(name.split("@")[1]) if name.startswith("precision") else 1), name


def test_one_target_at_the_third_place() -> None:
    metrics = of_one_query(2)
    assert metrics["hr@1"] == metrics["ndcg@1"] == metrics["map@1"] == metrics["mrr@1"] == 0
    assert metrics["hr@5"] == metrics["recall@5"] == 1
    assert metrics["precision@5"] == pytest.approx(1 / 5)
    assert metrics["ndcg@5"] == pytest.approx(1 / log2(4))
    assert metrics["mrr"] == metrics["mrr@5"] == metrics["map@5"] == pytest.approx(1 / 3)


def test_the_last_place_within_k_hits_and_the_next_misses() -> None:
    assert of_one_query(9)["hr@10"] == 1
    assert of_one_query(10)["hr@10"] == of_one_query(10)["mrr@10"] == 0


def test_a_tie_is_a_rank_between_places() -> None:
    metrics = of_one_query(0.5)
    assert metrics["hr@1"] == 1
    assert metrics["ndcg@1"] == pytest.approx(1 / log2(2.5))
    assert of_one_query(9.5)["hr@10"] == 1


def test_several_targets_share_the_ideal() -> None:
    metrics = of_one_query(1, 30, 3)
    assert metrics["hr@5"] == 1
    assert metrics["recall@5"] == pytest.approx(2 / 3)
    assert metrics["precision@5"] == pytest.approx(2 / 5)
    ideal = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert metrics["ndcg@5"] == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal)
    assert metrics["map@5"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert metrics["map@50"] == pytest.approx((1 / 2 + 2 / 4 + 3 / 31) / 3)
    assert metrics["mrr"] == pytest.approx(1 / 2)


def test_more_targets_than_places_can_still_be_perfect_but_not_in_recall() -> None:
    metrics = of_one_query(*range(8))
    assert metrics["ndcg@5"] == metrics["map@5"] == pytest.approx(1)
    assert metrics["recall@5"] == pytest.approx(5 / 8)


def test_targets_that_tie_with_each_other_alone_are_found_in_any_order() -> None:
    assert of_one_query(1, 1, 1)["map@5"] == pytest.approx(1)


def slow_metrics(ranks: list[float], k: int) -> dict[str, float]:
    """The definitions, of one query, in Python's float64."""
    hits = sorted(rank for rank in ranks if rank < k)
    best = min(ranks)
    return {
        "hr": float(best < k),
        "recall": len(hits) / len(ranks),
        "precision": len(hits) / k,
        "ndcg": sum(1 / log2(rank + 2) for rank in hits) / sum(1 / log2(n + 2) for n in range(min(k, len(ranks)))),
        "map": sum((n + 1) / (rank + 1) for n, rank in enumerate(hits)) / min(k, len(ranks)),
        "mrr": 1 / (best + 1) if best < k else 0.0,
    }


def test_queries_are_independent_and_each_metric_is_its_definition() -> None:
    generator = np.random.default_rng(0)
    num_targets = generator.integers(1, 9, 50)
    offsets = np.concatenate([[0], np.cumsum(num_targets)])
    ranks = np.concatenate([generator.choice(120, n, replace=False) / 2 for n in num_targets])
    metrics = ranking_metrics(ranks, offsets)
    assert set(metrics) == {"mrr"} | {f"{name}@{k}" for name in METRICS for k in CUTOFFS}
    for query in range(50):
        mine = ranks[offsets[query] : offsets[query + 1]].tolist()
        for k in CUTOFFS:
            for name, value in slow_metrics(mine, k).items():
                assert metrics[f"{name}@{k}"][query] == pytest.approx(value), (name, k)
        assert metrics["mrr"][query] == pytest.approx(1 / (min(mine) + 1))


def test_no_queries_have_no_metrics() -> None:
    found = ranking_metrics(np.zeros(0), np.zeros(1, dtype=int))
    assert {values.shape for values in found.values()} == {(0,)}
    assert set(found) == set(of_one_query(0))


def test_a_metric_is_found_by_its_name_at_any_cutoff() -> None:
    ranks, offsets = np.array([3.0, 0.0]), np.array([0, 1, 2])
    assert metric_of("hr@3", ranks, offsets).tolist() == [0, 1]
    assert metric_of("mrr", ranks, offsets).tolist() == [1 / 4, 1]
    assert metric_of("recall@100000", ranks, offsets).tolist() == [1, 1], "more places than items: all are shown"


@pytest.mark.parametrize(("name", "says"), [
    ("ndgc@10", "perhaps you meant 'ndcg@10'"), ("hr@0", "any number above 0"), ("hr", "known: "), ("auc", "known: "),
    ("mrr@", "known: "), ("ndcg@ten", "perhaps you meant 'ndcg@10'"),
])  # fmt: skip
def test_an_unknown_metric_is_an_error_that_names_the_known_ones(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_metric(name)
