"""Quality of vectors without users, and paired comparisons of runs, by values that can be told by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from mmrec.metrics.embedding_quality import alignment, cross_modal_retrieval, effective_rank, uniformity
from mmrec.metrics.paired import compare_paired, holm


def test_the_effective_rank_counts_directions_that_are_used_alike():
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.eye(5)[:2]) == pytest.approx(2)
    assert effective_rank(torch.ones(7, 5)) == pytest.approx(1)
    two = torch.tensor([[3.0, 0.0], [0.0, 1.0]])  # singular values 3 and 1: shares 3/4 and 1/4
    assert effective_rank(two) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_uniformity_is_zero_for_equal_vectors_and_the_mean_potential_of_pairs_else():
    assert uniformity(torch.ones(4, 3)) == pytest.approx(0)
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])  # squared distances 2, 2, 4 of unit vectors
    pairs = [math.exp(-4), math.exp(-4), math.exp(-8)]
    assert uniformity(vectors) == pytest.approx(math.log(sum(pairs) / 3))


def test_alignment_is_the_mean_squared_distance_of_partners():
    first = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert alignment(first, first) == pytest.approx(0)
    assert alignment(first, first.flip(1)) == pytest.approx(2)


def test_each_query_looks_for_the_candidate_of_its_row():
    candidates = torch.eye(4)
    queries = torch.eye(4)[[0, 1, 3, 2]]  # the last two find each other's
    found = cross_modal_retrieval(queries, candidates, cutoffs=(1, 3))
    assert found["recall@1"] == 0.5
    # Rank 0, 0; then one candidate scores higher and the other two tie with the partner: rank 1 + 2 / 2.
    assert found["mrr"] == pytest.approx((1 + 1 + 1 / 3 + 1 / 3) / 4)
    assert found["chance@1"] == 0.25


def test_constant_vectors_retrieve_like_chance():
    found = cross_modal_retrieval(torch.ones(9, 2), torch.ones(9, 2), cutoffs=(1, 9))
    assert found["recall@1"] == 0, "rank 4 of 9 each: the middle"
    assert found["recall@9"] == 1


def test_the_permutation_test_agrees_with_all_permutations():
    generator = np.random.default_rng(0)
    first, second = generator.random(16), generator.random(16) - 0.1
    users = np.repeat(np.arange(8), 2)
    sums = (first - second).reshape(8, 2).sum(1)
    every = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=8)]
    exact = np.mean(np.array(every) >= abs(sums.sum()) - 1e-12)
    found = compare_paired(first, second, users)
    assert found.difference == pytest.approx((first - second).mean())
    assert found.p_value == pytest.approx(exact, abs=0.02)
    assert found.low < found.difference < found.high


def test_equal_runs_do_not_differ_and_opposite_ones_change_sign():
    values, users = np.array([0.0, 1.0, 0.5]), np.array([3, 1, 2])
    assert compare_paired(values, values, users).p_value == 1
    other = np.array([1.0, 0.0, 0.25])
    forth, back = compare_paired(values, other, users), compare_paired(other, values, users)
    assert forth.difference == -back.difference
    assert forth.p_value == back.p_value


def test_holm_multiplies_and_never_orders_two_comparisons_the_other_way():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # .01 * 3, .03 * 2, and .04 * 1 no less
    assert holm([0.001, 0.02, 0.02]) == pytest.approx([0.003, 0.04, 0.04])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_the_signed_rank_test_is_that_of_scipy_on_the_means_of_users():
    generator = np.random.default_rng(0)
    first, second, users = generator.random(60), generator.random(60) * 0.9, np.repeat(np.arange(20), 3)
    means = (first - second).reshape(20, 3).mean(axis=1)
    expected = scipy.stats.wilcoxon(means, zero_method="pratt", method="asymptotic").pvalue
    assert compare_paired(first, second, users).p_wilcoxon == pytest.approx(expected)
    assert compare_paired(first, first, users).p_wilcoxon == 1
