"""Baselines against their formulas written out, and on real data against what was measured elsewhere."""

from __future__ import annotations

from math import log, sqrt
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from mmrec.baselines.content_knn import ContentKNN, centred_features, tf_idf
from mmrec.baselines.ease import EASE, item_gram
from mmrec.baselines.histories import history_matrix, history_scores
from mmrec.baselines.item_knn import ItemKNN
from mmrec.baselines.mixture import Mixture, typical_best
from mmrec.baselines.popularity import Popularity
from mmrec.baselines.selection import fit_baselines
from mmrec.baselines.sequential_rules import SequentialRules
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.data.sequences import Sequences, pack
from mmrec.data.splits import make_split
from mmrec.evaluator import run_baselines


def make_sequences(*histories: list[int]) -> Sequences:
    return Sequences(
        user_ids=np.arange(len(histories)).astype(str),
        offsets=pack(np.array([len(row) for row in histories])),
        item_idx=np.array([item for row in histories for item in row], dtype=np.int32),
        timestamps=None,
        split=None,
        order="position",
    )


def test_popularity_is_the_number_of_training_events_for_everybody() -> None:
    scores = Popularity.fit(make_sequences([0, 1, 1], [1, 2]), 4).score(make_sequences([3], []))
    assert scores.tolist() == [[1, 3, 1, 0]] * 2


def test_a_history_weighs_its_last_event_most_and_adds_repeats() -> None:
    matrix = history_matrix(make_sequences([2, 0, 2], [], [1]), 3, decay=0.5).toarray()
    np.testing.assert_allclose(matrix, [[0.5, 0, 1.25], [0, 0, 0], [0, 1, 0]])


def test_scores_of_histories_that_go_on_are_those_of_the_whole_histories() -> None:
    generator = np.random.default_rng(0)
    long = generator.integers(6, size=9).tolist()
    history = make_sequences(long[:3], long[:4], long[:4], long[:7], long[1:7], [], long, long[:3])
    matrix = sp.csr_matrix(generator.random((6, 5), dtype=np.float32))
    found = history_scores(history, matrix, decay=0.7)
    expected = history_matrix(history, 6, decay=0.7) @ matrix.toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_fitting_and_scoring_leave_the_order_of_histories_alone() -> None:
    train = make_sequences([3, 1, 2, 0], [2, 0, 3])
    before = train.item_idx.copy()
    for baseline in (
        ItemKNN.fit(train, 4, shrink=1, decay=0.5),
        SequentialRules.fit(train, 4, window=2, shrink=1, decay=0.5),
        Popularity.fit(train, 4),
        ContentKNN(np.eye(4, dtype=np.float32), 0.5),
    ):
        baseline.score(train)
        np.testing.assert_array_equal(train.item_idx, before)


def test_item_knn_is_the_shrunk_cosine_of_users_in_common() -> None:
    train = make_sequences([0, 1], [0, 1, 1, 2], [2])
    knn = ItemKNN.fit(train, 4, shrink=3, decay=0.5)
    both, one = 2 / (sqrt(2 * 2) + 3), 1 / (sqrt(2 * 2) + 3)
    np.testing.assert_allclose(knn.score(make_sequences([0])), [[0, both, one, 0]], rtol=1e-6)
    np.testing.assert_allclose(knn.score(make_sequences([2])), [[one, one, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(
        knn.score(make_sequences([0, 2])), [[one, one + both / 2, one / 2, 0]], rtol=1e-6
    )  # fmt: skip


def test_ease_is_the_closed_form_of_ridge_regression_without_the_diagonal() -> None:
    train = make_sequences([0, 1, 2], [0, 1], [1, 2, 2], [3])
    owned = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0]], dtype=np.float64)
    inverse = np.linalg.inv(owned.T @ owned + 2.0 * np.eye(5))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0.0)
    ease = EASE.fit(item_gram(train, 5), regularisation=2.0, decay=0.5)
    np.testing.assert_allclose(ease.weights, expected, atol=1e-6)
    np.testing.assert_allclose(ease.score(make_sequences([1, 0])), [0.5 * expected[1] + expected[0]], atol=1e-6)


def test_rules_count_ordered_pairs_by_one_over_their_gap_and_not_across_users() -> None:
    train = make_sequences([0, 1, 2], [2, 0], [1])
    rules = SequentialRules.fit(train, 3, window=2, shrink=1, decay=1.0).rules.toarray()
    pair = 1 / (sqrt(2 * 2) + 1)
    np.testing.assert_allclose(rules, [[0, pair, pair / 2], [0, 0, pair], [pair, 0, 0]], rtol=1e-6)


def test_a_repeat_is_no_rule() -> None:
    assert SequentialRules.fit(make_sequences([1, 1, 1]), 2, window=2, shrink=0, decay=1.0).rules.nnz == 0


def test_centred_features_are_unit_vectors_and_what_is_absent_stays_zero() -> None:
    generator = np.random.default_rng(0)
    values = generator.random((6, 4)).astype(np.float32) + 5
    values[5] = np.nan
    content = centred_features([values], [np.arange(6) < 5])
    np.testing.assert_allclose(np.linalg.norm(content[:5], axis=1), 1, rtol=1e-5)
    assert content[5].tolist() == [0] * 4
    assert np.abs(content[:5].mean(axis=0)).max() < 0.3, "centred"


def test_tf_idf_weighs_by_hand() -> None:
    matrix = tf_idf(["Red, red shoe", "red HAT", "shoe", None] + ["other"] * 6).toarray()
    red, shoe = (1 + log(2)) * log(10 / 2), log(10 / 2)
    norm = sqrt(red**2 + shoe**2)
    np.testing.assert_allclose(matrix[0], [red / norm, shoe / norm], rtol=1e-6)
    assert matrix[1].tolist() == [1, 0], "hat joins nothing"
    assert matrix[3].tolist() == [0, 0]


def test_content_finds_what_nobody_has_seen() -> None:
    content = tf_idf(["red shoe", "red shoe big", "blue hat", "blue hat big", *["x y"] * 9])
    scores = ContentKNN(content, 0.5).score(make_sequences([0]))[0]
    assert np.argsort(-scores)[:2].tolist() == [0, 1]


def test_a_mixture_puts_both_on_one_scale() -> None:
    popular, knn = Popularity(np.array([100, 50])), Popularity(np.array([1, 2]))
    history = make_sequences([0])
    scales = (typical_best(popular, history), typical_best(knn, history))
    assert scales == (100, 2)
    np.testing.assert_allclose(Mixture(popular, knn, scales, 0.25).score(history), [[0.625, 0.875]])


def test_every_baseline_that_the_data_allows_runs_and_new_items_are_found_by_content_alone(tiny_dataset) -> None:
    split = make_split(tiny_dataset.sequences, tiny_dataset.num_items)
    results = run_baselines(tiny_dataset, split, progress=False)
    assert set(results) == {"random", "popularity", "item_knn", "ease", "sequential_rules", "rules_and_knn",
                            "content_knn", "rules_and_content"}  # fmt: skip
    for name, result in results.items():
        assert 0 <= result["metrics"]["hr@10"] <= 1, name
        assert result["num_queries"] == len(split.test)


def test_sets_have_no_sequential_rules_and_no_recency(tiny_source: Path, tmp_path: Path) -> None:
    pl.read_csv(tiny_source / "interactions.csv").drop("timestamp").write_csv(tmp_path / "interactions.csv")
    pl.read_csv(tiny_source / "items.csv").select("item_id", "title").write_csv(tmp_path / "items.csv")
    dataset = Dataset.open(ingest(IngestConfig(items=tmp_path / "items.csv", text_columns=("title",),
        interactions=tmp_path / "interactions.csv", out=tmp_path / "sets", num_workers=1)))  # fmt: skip
    fitted = fit_baselines(dataset, make_split(dataset.sequences, dataset.num_items))
    assert set(fitted) == {"popularity", "item_knn", "ease", "content_knn", "knn_and_content"}
    assert fitted["item_knn"].settings["decay"] == fitted["content_knn"].settings["decay"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("pack_name", "name", "hr", "ndcg"), [
    ("amazon_beauty", "item_knn", 0.0717, 0.0425),
    ("amazon_beauty", "ease", 0.0778, 0.0454),
    ("amazon_beauty", "rules_and_knn", 0.0824, 0.0520),
    ("amazon_scientific", "popularity", 0.0499, 0.0238),
    ("amazon_scientific", "content_knn", 0.1305, 0.0882),
    ("amazon_scientific", "rules_and_content", 0.1779, 0.1196),
])  # fmt: skip
def test_real_data_gives_what_was_measured(real_baselines, pack_name: str, name: str, hr: float, ndcg: float) -> None:
    metrics = real_baselines[pack_name][name]["metrics"]
    assert metrics["hr@10"] == pytest.approx(hr, abs=0.002)
    assert metrics["ndcg@10"] == pytest.approx(ndcg, abs=0.0015)


@pytest.fixture(scope="module")
def real_baselines(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    results = {}
    for name in ("amazon_beauty", "amazon_scientific"):
        source, work = shared_data / name, tmp_path_factory.mktemp(name)
        items, features = source / "items.parquet", tuple(f"{f.stem}={f}" for f in sorted(source.glob("*.npy")))
        if not items.exists():
            items = work / "items.parquet"
            pl.read_parquet(source / "interactions.parquet").select("item_id").unique().sort("item_id").write_parquet(
                items
            )
        config = IngestConfig(items=items, interactions=source / "interactions.parquet", features=features,
                              out=work / "dataset", num_workers=1)  # fmt: skip
        dataset = Dataset.open(ingest(config))
        results[name] = run_baselines(dataset, make_split(dataset.sequences, dataset.num_items), progress=False)
    return results
