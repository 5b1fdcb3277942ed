"""The same numbers as packages of others say: trec_eval, and RecTools where it is installed, for no lock file holds it.

pip install --no-deps --target DIR rectools pandas python-dateutil six
PYTHONPATH=DIR python -m pytest tests/metrics/test_independent_packages.py
"""

from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval

from mmrec.metrics.beyond_accuracy import beyond_accuracy, popularity_bias
from mmrec.metrics.ranking import ranking_metrics
from tests.test_retrieval import make_queries

QUERIES, ITEMS = 40, 70


@pytest.fixture(scope="module")
def case():
    """Scores without ties, and 1 to 6 targets a query: at most as many as places, where MAP's two divisors agree."""
    generator = np.random.default_rng(0)
    scores = generator.permuted(np.tile(np.arange(ITEMS, dtype=np.float64), (QUERIES, 1)), axis=1)
    targets = [generator.choice(ITEMS, generator.integers(1, 7), replace=False) for _ in range(QUERIES)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in targets])])
    ranks = np.concatenate([ITEMS - 1 - row[wanted] for row, wanted in zip(scores, targets, strict=True)])
    lists = np.argsort(-scores, axis=1)[:, :10]
    return scores, targets, ranking_metrics(ranks, offsets, (10, 20)), lists


def test_trec_eval_has_the_same_values_for_every_query(case) -> None:
    scores, targets, ours, _ = case
    wanted = {str(q): {str(v): 1 for v in targets[q]} for q in range(QUERIES)}
    measures = {"success": "hr", "recall": "recall", "P": "precision", "ndcg_cut": "ndcg", "map_cut": "map"}
    evaluator = pytrec_eval.RelevanceEvaluator(wanted, {f"{name}.10,20" for name in measures} | {"recip_rank"})
    found = evaluator.evaluate(run_of(scores, ITEMS))
    assert len(found) == QUERIES
    for query, values in found.items():
        for name, kind in measures.items():
            for k in (10, 20):
                # trec_eval keeps scores and gains in single precision
                assert values[f"{name}_{k}"] == pytest.approx(ours[f"{kind}@{k}"][int(query)], abs=1e-6), (query, name)
        assert values["recip_rank"] == pytest.approx(ours["mrr"][int(query)], abs=1e-6), query
    # trec_eval has no cutoff of the reciprocal rank: the list has one.
    for k in (10, 20):
        for query, values in pytrec_eval.RelevanceEvaluator(wanted, {"recip_rank"}).evaluate(run_of(scores, k)).items():
            assert values["recip_rank"] == pytest.approx(ours[f"mrr@{k}"][int(query)], abs=1e-6), query


def run_of(scores: np.ndarray, k: int) -> dict[str, dict[str, float]]:
    """The k best items of each query, as trec_eval reads them."""
    best = np.argsort(-scores, axis=1)[:, :k]
    return {str(q): {str(v): float(scores[q, v]) for v in best[q]} for q in range(len(scores))}


def test_rectools_has_the_same_means(case) -> None:
    metrics = pytest.importorskip("rectools.metrics")
    import pandas as pd

    _, targets, ours, lists = case
    reco = shown(lists)
    taken = pd.DataFrame([{"user_id": q, "item_id": v} for q in range(QUERIES) for v in targets[q]])
    theirs = metrics.calc_metrics(
        {
            "hr@10": metrics.HitRate(10), "recall@10": metrics.Recall(10), "precision@10": metrics.Precision(10),
            "mrr@10": metrics.MRR(10), "map@10": metrics.MAP(10),
            "ndcg@10": metrics.NDCG(10, divide_by_achievable=True),
        }, reco=reco, interactions=taken,
    )  # fmt: skip
    assert len(theirs) == 6
    for name, value in theirs.items():
        assert value == pytest.approx(ours[name].mean()), name


def test_rectools_sees_the_same_coverage_and_popularity(case) -> None:
    metrics = pytest.importorskip("rectools.metrics")
    import pandas as pd

    lists = case[3]
    generator = np.random.default_rng(1)
    counts = generator.integers(1, 20, ITEMS)
    before = pd.DataFrame({"user_id": np.arange(counts.sum()), "item_id": np.repeat(np.arange(ITEMS), counts)})
    reco = shown(lists)
    history = make_queries([[0]] * QUERIES, [[0]] * QUERIES).history
    coverage = metrics.CatalogCoverage(10, normalize=True).calc(reco, catalog=range(ITEMS))
    assert coverage == pytest.approx(beyond_accuracy(lists, counts)["coverage@10"])
    popularity = metrics.AvgRecPopularity(10).calc(reco, before)
    assert popularity == pytest.approx(popularity_bias(lists, history, counts)["popularity@10"])


def shown(lists: np.ndarray):
    import pandas as pd

    users, places = np.indices(lists.shape)
    return pd.DataFrame({"user_id": users.ravel(), "item_id": lists.ravel(), "rank": places.ravel() + 1})
