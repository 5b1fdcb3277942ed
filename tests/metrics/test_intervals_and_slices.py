"""Bootstrap intervals, the random rate, slices, and what lists look like."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mmrec.data.sequences import Sequences
from mmrec.data.splits import Queries, Split
from mmrec.metrics.beyond_accuracy import beyond_accuracy
from mmrec.metrics.bootstrap import bootstrap_intervals
from mmrec.metrics.chance import chance_metrics
from mmrec.metrics.ranking import ranking_metrics
from mmrec.metrics.slices import num_candidates, restrict, target_masks


def test_the_interval_of_a_share_is_that_of_the_normal_approximation() -> None:
    hits = (np.arange(2000) < 200).astype(float)
    low, high = bootstrap_intervals({"hr": hits}, np.arange(2000))["hr"]
    error = 1.96 * np.sqrt(0.1 * 0.9 / 2000)
    assert low == pytest.approx(0.1 - error, abs=0.002)
    assert high == pytest.approx(0.1 + error, abs=0.002)


def test_queries_of_one_user_are_drawn_together_so_copies_add_no_certainty() -> None:
    hits = (np.arange(300) < 90).astype(float)
    once = bootstrap_intervals({"hr": hits}, np.arange(300))["hr"]
    copies = bootstrap_intervals({"hr": np.repeat(hits, 20)}, np.repeat(np.arange(300), 20))["hr"]
    assert copies == pytest.approx(once)


def test_intervals_depend_on_the_seed_alone() -> None:
    values, users = {"a": np.random.default_rng(0).random(101)}, np.arange(101)
    assert bootstrap_intervals(values, users, seed=1) == bootstrap_intervals(values, users, seed=1)
    assert bootstrap_intervals(values, users, seed=1) != bootstrap_intervals(values, users, seed=2)
    assert bootstrap_intervals({"a": np.zeros(0)}, np.zeros(0, int)) == {}


@pytest.mark.parametrize(("candidates", "targets"), [(1, 1), (5, 1), (6, 2), (5, 4), (4, 4)])
def test_chance_is_the_mean_over_all_orders(candidates: int, targets: int) -> None:
    cutoffs = (1, 3, 10)
    expected = chance_metrics(np.array([candidates]), np.array([targets]), cutoffs)
    orders = [
        ranking_metrics(np.array(places, dtype=float), np.array([0, targets]), cutoffs)
        for places in itertools.permutations(range(candidates), targets)
    ]
    for name, value in expected.items():
        assert value[0] == pytest.approx(np.mean([order[name][0] for order in orders])), name


def tiny_queries() -> Queries:
    history = Sequences(
        user_ids=np.array(["a", "b"]),
        offsets=np.array([0, 3, 3]),
        item_idx=np.array([0, 0, 1], dtype=np.int32),
        timestamps=None,
        split=None,
        order="position",
    )
    return Queries(
        user=np.array([0, 1]), history=history, target_offsets=np.array([0, 2, 3]), targets=np.array([1, 3, 2])
    )


def test_candidates_are_counted_without_what_was_seen_but_with_the_targets() -> None:
    assert num_candidates(tiny_queries(), 5).tolist() == [5 - 1, 5]


def test_slices_cover_each_target_once_in_each_group() -> None:
    queries = tiny_queries()
    split = Split(
        protocol={}, train=queries.history, valid=queries, test=queries,
        train_items=np.array([True, True, False, False, False]),
    )  # fmt: skip
    present = {"image": np.array([True, True, False, True, True]), "text": np.ones(5, dtype=bool)}
    groups = target_masks(split, queries, present)
    assert groups[""]["cold_items"].tolist() == [False, True, True]
    assert groups[""]["warm_items"].tolist() == [True, False, False]
    assert groups[""]["missing_image"].tolist() == [False, False, True]
    assert "has_text" not in groups[""], "all items have text: no slice"
    assert groups["history_length"]["3-4"].tolist() == [True, True, False]
    assert groups["history_length"]["0"].tolist() == [False, False, True]
    for group in ("history_length", "popularity"):
        assert np.sum(list(groups[group].values()), axis=0).tolist() == [1, 1, 1]


def test_a_slice_asks_a_query_for_its_own_targets_alone() -> None:
    ranks, offsets, rows = restrict(np.array([4.0, 2.0, 7.0]), np.array([0, 2, 3]), np.array([False, True, False]))
    assert ranks.tolist() == [2.0]
    assert offsets.tolist() == [0, 1]
    assert rows.tolist() == [0]


def test_lists_that_show_everything_evenly_have_full_coverage_and_no_inequality() -> None:
    even = beyond_accuracy(np.array([[0, 1], [2, 3]]), np.array([3, 3, 3, 0]))
    assert even["coverage@2"] == 1
    assert even["gini@2"] == pytest.approx(0)
    assert even["cold_share@2"] == 1 / 4
    same = beyond_accuracy(np.array([[0], [0], [0]]), np.zeros(100, int))
    assert same["gini@1"] == pytest.approx(99 / 100)
    assert same["novelty@1"] == pytest.approx(np.log2(100))
