"""Quality of vectors without users, and paired comparisons of runs, by values that can be told by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch

from mmrec.metrics.embedding_quality import Scatter, alignment, cross_modal_retrieval, effective_rank, uniformity
from mmrec.metrics.paired import compare_paired, holm


def test_the_effective_rank_counts_directions_in_which_vectors_differ_alike():
    assert effective_rank(torch.cat([torch.eye(5), -torch.eye(5)])) == pytest.approx(5)
    assert effective_rank(torch.eye(5)) == pytest.approx(4), "five points span four directions around their mean"
    assert effective_rank(torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]])) == pytest.approx(1), "on one line"
    corners = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # variances 4/5 and 1/5 of the whole
    assert effective_rank(corners) == pytest.approx(math.exp(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2))))
    assert effective_rank(torch.ones(7, 5)) == effective_rank(torch.ones(1, 5)) == 0


def test_what_all_vectors_have_in_common_is_no_direction():
    vectors = torch.randn(200, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert effective_rank(vectors + 100) == pytest.approx(effective_rank(vectors), rel=1e-6)


def test_spread_and_directions_follow_from_parts_as_from_the_whole():
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((57, 6)) * [3, 1, 1, 0.1, 0, 2] + 1
    scatter = Scatter(6)
    for part in np.split(vectors, [5, 5, 40]):
        scatter.add(torch.from_numpy(part))
    centred = vectors - vectors.mean(0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    shares = [value / variances.sum() for value in variances if value > 1e-12]
    assert scatter.count == 57
    assert scatter.spread == pytest.approx((centred**2).sum() / 57)
    assert scatter.effective_rank == pytest.approx(math.exp(-sum(share * math.log(share) for share in shares)))


def test_every_measure_agrees_with_its_definition_written_out():
    """Loops over all pairs in float64, more rows than a block of similarities has."""
    generator = np.random.default_rng(1)
    first, second = (generator.standard_normal((1100, 3)) for _ in range(2))
    second += first
    unit, other = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (first, second))
    potential, ranks = [], []
    for n in range(1100):
        potential += [math.exp(-2 * float(((unit[n] - row) ** 2).sum())) for row in unit[:n]]
        scores = [float(unit[n] @ row) for row in other]
        ranks.append(sum(score > scores[n] for score in scores))
    given = torch.from_numpy(first), torch.from_numpy(second)
    assert uniformity(given[0]) == pytest.approx(math.log(np.mean(potential)))
    assert alignment(*given) == pytest.approx(np.mean([((a - b) ** 2).sum() for a, b in zip(unit, other, strict=True)]))
    found = cross_modal_retrieval(*given, cutoffs=(1, 10))
    for k in (1, 10):
        assert found[f"recall@{k}"] == pytest.approx(np.mean([rank < k for rank in ranks]))
        assert found[f"chance@{k}"] == k / 1100
    assert found["mrr"] == pytest.approx(np.mean([1 / (rank + 1) for rank in ranks]))


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
