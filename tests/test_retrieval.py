"""Ranks and top k against a slow float64 reference that reads like the definition."""

from __future__ import annotations

import dataclasses
from itertools import chain

import numpy as np
import pytest
import torch

from mmrec.data.sequences import Sequences, pack
from mmrec.data.splits import Queries
from mmrec.errors import DataError
from mmrec.metrics.slices import num_candidates
from mmrec.retrieval import rank_targets, rank_targets_from_scores, top_k


def make_queries(histories: list[list[int]], targets: list[list[int]]) -> Queries:
    return Queries(
        user=np.arange(len(histories)),
        history=Sequences(
            user_ids=np.array([f"u{n}" for n in range(len(histories))]),
            offsets=pack(np.array([len(row) for row in histories])),
            item_idx=np.array(list(chain.from_iterable(histories)), dtype=np.int32),
            timestamps=None,
            split=None,
            order="position",
        ),
        target_offsets=pack(np.array([len(row) for row in targets])),
        targets=np.array(list(chain.from_iterable(targets)), dtype=np.int32),
    )


def slow_ranks(scores: np.ndarray, histories: list[list[int]], targets: list[list[int]], filter_seen: bool = True):
    ranks = []
    for row, history, wanted in zip(scores, histories, targets, strict=True):
        candidates = [v for v in range(len(row)) if not filter_seen or v in wanted or v not in history]
        for target in wanted:
            greater = sum(row[v] > row[target] for v in candidates)
            equal = sum(row[v] == row[target] for v in candidates if v != target)
            ranks.append(greater + equal / 2)
    return np.array(ranks)


def random_case(seed: int, num_queries: int, num_items: int, num_targets: int):
    """Integer vectors, so that float32 is exact and ties are many; histories with repeats, some holding a target."""
    generator = np.random.default_rng(seed)
    users = generator.integers(-2, 3, (num_queries, 3)).astype(np.float64)
    items = generator.integers(-2, 3, (num_items, 3)).astype(np.float64)
    histories = [generator.integers(0, num_items, generator.integers(0, 9)).tolist() for _ in range(num_queries)]
    targets = [
        generator.choice(num_items, generator.integers(1, num_targets + 1), replace=False).tolist()
        for _ in range(num_queries)
    ]
    return users, items, histories, targets


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize(("num_queries", "num_items", "num_targets", "block"), [
    (17, 13, 1, 1 << 24), (17, 13, 1, 39), (31, 67, 4, 200), (5, 129, 9, 1), (1, 1, 1, 64),
])  # fmt: skip
def test_ranks_equal_the_definition(num_queries, num_items, num_targets, block, filter_seen) -> None:
    users, items, histories, targets = random_case(num_items, num_queries, num_items, num_targets)
    queries = make_queries(histories, targets)
    expected = slow_ranks(users @ items.T, histories, targets, filter_seen)

    ranks = rank_targets(torch.tensor(users), torch.tensor(items), queries, filter_seen=filter_seen, block=block)
    from_scores = rank_targets_from_scores(
        lambda part: (users[part] @ items.T).astype(np.float32),
        queries, num_items=num_items, filter_seen=filter_seen, block=block,
    )  # fmt: skip

    assert ranks.dtype == np.float64
    np.testing.assert_array_equal(ranks, expected)
    np.testing.assert_array_equal(from_scores, expected)


def test_real_vectors_rank_as_their_float32_scores_do_and_copies_of_an_item_tie() -> None:
    generator = torch.Generator().manual_seed(0)
    users = torch.randn(37, 48, generator=generator)
    items = torch.randn(101, 48, generator=generator)
    items[1:] = items[torch.randint(0, 20, (100,), generator=generator)]  # many copies, also at the ragged edge
    queries = make_queries([[] for _ in range(37)], [[n % 101] for n in range(37)])
    ranks = rank_targets(users, items, queries)
    exact = users.double() @ items.double().T
    for query, rank in enumerate(ranks):
        target = query % 101
        copies = (items == items[target]).all(1)
        greater = int((exact[query][~copies] > exact[query, target]).sum())
        assert rank == greater + (int(copies.sum()) - 1) / 2


def test_ranks_do_not_depend_on_which_queries_share_a_block() -> None:
    generator = torch.Generator().manual_seed(1)
    users, items = torch.randn(29, 17, generator=generator), torch.randn(57, 17, generator=generator).repeat(2, 1)
    queries = make_queries([[n] for n in range(29)], [[n + 30] for n in range(29)])
    whole = rank_targets(users, items, queries)
    for world in (2, 3):
        for rank in range(world):
            rows = np.arange(rank, 29, world)
            np.testing.assert_array_equal(rank_targets(users[rows], items, queries.take(rows)), whole[rows])


def test_a_constant_score_earns_the_rank_of_chance() -> None:
    queries = make_queries([[0, 1, 1]], [[5]])
    assert rank_targets(torch.zeros(1, 4), torch.randn(10, 4), queries).tolist() == [(10 - 2 - 1) / 2]


def test_a_target_that_was_seen_before_stays_a_candidate() -> None:
    scores = torch.eye(4)[:1] * 5
    queries = make_queries([[0, 0, 1]], [[0]])
    assert rank_targets(scores, torch.eye(4), queries).tolist() == [0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_without_an_order_are_an_error(bad: float) -> None:
    users = torch.full((1, 2), bad)
    queries = make_queries([[]], [[0]])
    with pytest.raises(DataError, match="not all finite"):
        rank_targets(users, torch.ones(3, 2), queries)
    with pytest.raises(DataError, match="not all finite"):
        rank_targets_from_scores(lambda part: np.full((1, 3), bad, np.float32), queries, num_items=3)
    with pytest.raises(DataError, match="not all finite"):
        top_k(users, torch.ones(3, 2), 1)


def test_no_queries_have_no_ranks() -> None:
    assert rank_targets(torch.zeros(0, 2), torch.ones(3, 2), make_queries([], [])).shape == (0,)


def test_top_k_is_the_sorted_catalogue_without_the_excluded_items() -> None:
    generator = np.random.default_rng(3)
    users, items = generator.standard_normal((11, 5)), generator.standard_normal((23, 5))
    histories = [generator.integers(0, 23, 4).tolist() for _ in range(11)]
    exclude = make_queries(histories, [[0]] * 11).history
    idx, scores = top_k(torch.tensor(users), torch.tensor(items), 6, exclude=exclude, block=50)
    for row in range(11):
        order = [v for v in np.argsort(-(users[row] @ items.T)) if v not in histories[row]]
        assert idx[row].tolist() == order[:6]
        np.testing.assert_allclose(scores[row], (users[row] @ items.T)[order[:6]], rtol=1e-5)


def test_top_k_says_where_too_few_items_are_left() -> None:
    exclude = make_queries([[0, 1]], [[0]]).history
    idx, scores = top_k(torch.ones(1, 1), torch.tensor([[1.0], [2.0], [3.0]]), 4, exclude=exclude)
    assert idx.tolist() == [[2, -1, -1, -1]]
    assert scores.tolist() == [[3.0, -np.inf, -np.inf, -np.inf]]


def test_only_what_was_there_at_the_time_of_the_query_competes() -> None:
    generator = np.random.default_rng(4)
    users, items, histories, targets = random_case(8, 23, 41, 3)
    since, now = generator.integers(0, 9, 41), generator.integers(0, 9, 23)
    plain = make_queries(histories, targets)
    queries = dataclasses.replace(plain, times=now, available_from=since)
    scores = users @ items.T
    expected, competing = [], []
    for query in range(23):
        there = [v for v in range(41) if v in targets[query] or (since[v] <= now[query] and v not in histories[query])]
        competing.append(len(there))
        for target in targets[query]:
            greater = sum(scores[query, v] > scores[query, target] for v in there)
            equal = sum(scores[query, v] == scores[query, target] for v in there) - 1
            expected.append(greater + equal / 2)
    np.testing.assert_array_equal(rank_targets(torch.tensor(users), torch.tensor(items), queries, block=100), expected)
    assert num_candidates(queries, 41).tolist() == competing
    lists, _ = top_k(torch.tensor(users), torch.tensor(items), 41, queries=queries)
    for query, row in enumerate(lists):
        assert set(row[row >= 0]) == {v for v in range(41) if since[v] <= now[query] and v not in histories[query]}


def test_queries_may_keep_what_was_seen() -> None:
    users, items, histories, targets = random_case(8, 23, 41, 3)
    queries = dataclasses.replace(make_queries(histories, targets), filter_seen=False)
    ranks = rank_targets(torch.tensor(users), torch.tensor(items), queries)
    np.testing.assert_array_equal(ranks, slow_ranks(users @ items.T, histories, targets, filter_seen=False))
    assert num_candidates(queries, 41).tolist() == [41] * 23
    lists, _ = top_k(torch.tensor(users), torch.tensor(items), 41, queries=queries)
    assert (np.sort(lists, axis=1) == np.arange(41)).all()
