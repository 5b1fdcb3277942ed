"""Re-ranking against slow references: greedy by the book, optimal by trying everything, shares by their bounds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mmrec.errors import ConfigError
from mmrec.reranking import Candidates, Reranking, at_most, in_shares, maximal_marginal_relevance, pool_size


def pool(seed: int, number: int = 12, dim: int = 4, groups: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    scores = np.sort(generator.uniform(-1, 1, number))[::-1].copy()
    return scores, generator.standard_normal((number, dim)), generator.integers(groups, size=number)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / math.sqrt(one @ one) / math.sqrt(other @ other))


def mmr_by_the_book(scores: np.ndarray, vectors: np.ndarray, k: int, relevance: float) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        left = [n for n in range(len(scores)) if n not in chosen]
        closest = [max((cosine(vectors[n], vectors[c]) for c in chosen), default=0.0) for n in left]
        values = [relevance * scores[n] - (1 - relevance) * close for n, close in zip(left, closest, strict=True)]
        chosen.append(left[int(np.argmax(values))])
    return chosen


@pytest.mark.parametrize("relevance", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_mmr_is_the_greedy_rule_of_the_paper(seed, relevance):
    scores, vectors, _ = pool(seed)
    for k in (1, 5, 12, 20):
        found = maximal_marginal_relevance(scores, vectors, k, relevance)
        assert found.tolist() == mmr_by_the_book(scores, vectors, k, relevance)


def test_mmr_of_relevance_alone_is_the_order_of_the_scores_and_lengths_of_vectors_do_not_matter():
    scores, vectors, _ = pool(0)
    assert maximal_marginal_relevance(scores, vectors, 12, 1.0).tolist() == list(range(12))
    lengths = np.random.default_rng(1).uniform(0.1, 10, (12, 1))
    for relevance in (0.2, 0.8):
        found = maximal_marginal_relevance(scores, vectors * lengths, 6, relevance)
        assert found.tolist() == maximal_marginal_relevance(scores, vectors, 6, relevance).tolist()


def test_mmr_leaves_a_twin_for_later():
    scores = np.array([0.9, 0.89, 0.5])
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # second place: .5 * .89 - .5 * 1 < .5 * .5 - .5 * 0
    assert maximal_marginal_relevance(scores, vectors, 3, 0.5).tolist() == [0, 2, 1]


@pytest.mark.parametrize("seed", range(8))
def test_no_allowed_list_has_a_greater_sum_of_scores_than_the_capped_one(seed):
    scores, _, group = pool(seed, number=9)
    group = np.where(np.random.default_rng(seed).random(9) < 0.2, -1, group)
    for most, k in itertools.product((1, 2), (3, 5)):
        found = at_most(group, k, most)
        allowed = [
            places
            for size in range(k + 1)
            for places in itertools.combinations(range(9), size)
            if all(sum(group[n] == one for n in places) <= most for one in range(3))
        ]
        longest = max(len(places) for places in allowed)
        assert len(found) == longest
        best = max(scores[list(places)].sum() for places in allowed if len(places) == longest)
        assert scores[found].sum() == pytest.approx(best)
        assert found.tolist() == sorted(found.tolist()), "in the order of the pool"


def shares_by_the_book(group: np.ndarray, shares: np.ndarray, k: int) -> list[int]:
    """Geyik et al. 2019, algorithm 1, line by line; exact fractions in place of rounding."""
    from fractions import Fraction

    exact = [Fraction(share).limit_denominator(1000) for share in shares.tolist()]
    chosen: list[int] = []
    for place in range(1, min(k, len(group)) + 1):
        left = [n for n in range(len(group)) if n not in chosen]
        count = [sum(group[n] == one for n in chosen) for one in range(len(shares))]
        below_least = [n for n in left if count[group[n]] < math.floor(exact[group[n]] * place)]
        below_most = [n for n in left if count[group[n]] < math.ceil(exact[group[n]] * place)]
        chosen.append((below_least or below_most or left)[0])
    return chosen


@pytest.mark.parametrize("seed", range(8))
def test_shares_are_given_by_the_rule_of_the_paper(seed):
    _, _, group = pool(seed, number=30)
    for shares in ([0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]):
        for k in (1, 10, 30):
            expected = shares_by_the_book(group, np.array(shares), k)
            assert in_shares(group, np.array(shares), k).tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_every_beginning_of_a_list_has_the_shares_where_the_pool_has_the_items(seed):
    generator = np.random.default_rng(seed)
    group = np.concatenate([np.full(20, 0), generator.integers(3, size=60)])  # the best are all of one group
    shares = np.array([0.4, 0.35, 0.25])
    chosen = group[in_shares(group, shares, 20)]
    for place in range(1, 21):
        for one, share in enumerate(shares):
            count = (chosen[:place] == one).sum()
            assert math.floor(share * place + 1e-9) - 1 <= count <= math.ceil(share * place - 1e-9)


def test_within_a_group_the_better_one_comes_first():
    _, _, group = pool(3, number=30)
    chosen = in_shares(group, np.array([0.2, 0.3, 0.5]), 15)
    for one in range(3):
        places = chosen[group[chosen] == one].tolist()
        assert places == np.flatnonzero(group == one)[: len(places)].tolist()


def test_where_the_pool_lacks_a_group_others_fill_its_places():
    found = in_shares(np.array([0, 0, 0, 1]), np.array([0.2, 0.3, 0.5]), 4)
    assert sorted(found.tolist()) == [0, 1, 2, 3]


def test_settings_are_read_as_they_are_written():
    assert Reranking.parse("mmr:0.7") == Reranking(kind="mmr", relevance=0.7)
    assert Reranking.parse("cap:category=2") == Reranking(kind="cap", attribute="category", most=2)
    assert Reranking.parse("fair:provider") == Reranking(kind="fair", attribute="provider")
    wrong = [
        "",
        "mmr",
        "mmr:2",
        "mmr:nan",
        "mmr:x",
        "cap:category",
        "cap:=2",
        "cap:category=0",
        "cap:category=x",
        "fair:",
    ]
    for text in [*wrong, "fair:a=1", "best"]:
        with pytest.raises(ConfigError, match=r"give mmr:LAMBDA .* cap:COLUMN=N .* or fair:COLUMN"):
            Reranking.parse(text)


def test_the_settings_choose_the_function():
    scores, vectors, group = pool(4)
    shares = np.bincount(group) / len(group)
    candidates = Candidates(scores=scores, vectors=vectors, group=group, shares=shares)
    for text, expected in (
        ("mmr:0.4", maximal_marginal_relevance(scores, vectors, 5, 0.4)),
        ("cap:c=1", at_most(group, 5, 1)),
        ("fair:c", in_shares(group, shares, 5)),
    ):
        assert Reranking.parse(text).choose(candidates, 5).tolist() == expected.tolist()


def test_the_pool_grows_with_the_list():
    assert (pool_size(1), pool_size(10), pool_size(50)) == (200, 200, 1000)
