"""Diversity, popularity bias, calibration, exposure and gaps between user groups, each against its formula in loops."""

from __future__ import annotations

import itertools
from math import log, log2

import numpy as np
import pytest
import scipy.sparse as sp

from mmrec.metrics.beyond_accuracy import calibration, intra_list_diversity, popularity_bias
from mmrec.metrics.exposure import exposure_by_group, modality_completeness, popularity_deciles
from mmrec.metrics.user_groups import group_gap
from tests.test_retrieval import make_queries

NOWHERE = -1


def test_diversity_is_the_mean_distance_of_the_pairs_that_have_content() -> None:
    generator = np.random.default_rng(0)
    content = generator.standard_normal((30, 5))
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    content[25:] = 0
    lists = np.stack([generator.choice(30, 8, replace=False) for _ in range(40)])
    lists[3, 5:] = NOWHERE
    lists[4, 1:] = NOWHERE
    means = []
    for row in lists:
        pairs = [content[a] @ content[b] for a, b in itertools.combinations([v for v in row if 0 <= v < 25], 2)]
        if pairs:
            means.append(1 - np.mean(pairs))
    assert intra_list_diversity(lists, content)["diversity@8"] == pytest.approx(np.mean(means))
    assert intra_list_diversity(lists, sp.csr_matrix(content))["diversity@8"] == pytest.approx(np.mean(means))


def test_lists_of_one_item_have_no_diversity_to_tell() -> None:
    assert intra_list_diversity(np.array([[0], [1]]), np.eye(2)) == {}
    assert intra_list_diversity(np.full((3, 4), NOWHERE), np.eye(2)) == {}


def test_copies_are_alike_and_strangers_have_nothing_in_common() -> None:
    lists = np.array([[0, 1]])
    assert intra_list_diversity(lists, np.array([[1.0, 0], [1, 0]]))["diversity@2"] == pytest.approx(0)
    assert intra_list_diversity(lists, np.eye(2))["diversity@2"] == pytest.approx(1)


def test_popularity_bias_compares_lists_with_what_the_users_took() -> None:
    counts = np.array([100, 10, 4, 1, 0])
    history = make_queries([[1, 2], [], [2]], [[0]] * 3).history
    found = popularity_bias(np.array([[0, 1], [0, 3], [4, NOWHERE]]), history, counts)
    assert found["popularity@2"] == pytest.approx((55 + 50.5 + 0) / 3)
    assert found["popularity_lift@2"] == pytest.approx(((55 + 0) / 2 - (7 + 4) / 2) / ((7 + 4) / 2))
    assert found["long_tail_share@2"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 2) / 3), (
        "items 1 to 4 have 15 of 115 events"
    )


def test_a_list_with_the_mix_of_the_history_is_calibrated_and_another_is_not() -> None:
    category = np.array([0, 0, 1, 1, NOWHERE])
    history = make_queries([[0, 2], [0, 1, 4], [4], []], [[0]] * 4).history
    same = calibration(np.array([[1, 3], [1, 0], [0, 1], [0, 1]]), history, category)
    assert same["miscalibration@2"] == pytest.approx(0, abs=1e-12)
    found = calibration(np.array([[0, 1], [2, 3], [0, 1], [0, 1]]), history, category)
    first = 0.5 * log(0.5 / (0.99 * 1 + 0.01 * 0.5)) + 0.5 * log(0.5 / (0.01 * 0.5))
    second = log(1 / 0.01)
    assert found["miscalibration@2"] == pytest.approx((first + second) / 2)


def test_exposure_is_the_share_of_attention_and_merit_that_of_what_was_taken() -> None:
    lists = np.array([[0, 1], [0, 2]])
    found = exposure_by_group(
        lists,
        np.array([1, 2, 3]),
        np.array([0, 2, 3]),
        np.array([7, 9]),
        np.array([0, 0, 1, 1, NOWHERE]),
        ["a", "b", "c"],
    )
    total = 2 * (1 + 1 / log2(3))
    assert list(found) == ["a", "b"], "c has no items"
    assert found["a"]["exposure"] == pytest.approx((2 + 1 / log2(3)) / total)
    assert found["a"]["merit"] == pytest.approx(1 / 3)
    assert found["a"]["ratio"] == pytest.approx((2 + 1 / log2(3)) / total * 3)
    assert found["b"]["items"] == 2
    assert found["b"]["catalogue"] == pytest.approx(1 / 2)
    assert found["b"]["low"] <= found["b"]["ratio"] <= found["b"]["high"]


def test_a_group_that_nobody_took_has_no_ratio() -> None:
    found = exposure_by_group(
        np.array([[0, 1]]), np.array([0]), np.array([0, 1]), np.zeros(1, int), np.array([0, 1]), "ab"
    )
    assert found["b"]["merit"] == 0
    assert found["b"]["exposure"] > 0
    assert found["b"]["ratio"] is None


def test_lists_that_show_what_is_taken_as_often_as_it_is_taken_have_ratio_one() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 4, 400)
    found = exposure_by_group(
        targets[:, None], targets, np.arange(401), np.arange(400), np.array([0, 1, 1, 0]), ["with", "without"]
    )
    assert all(group["ratio"] == pytest.approx(1) for group in found.values())


def test_deciles_hold_a_tenth_of_the_events_each_and_equal_counts_stay_together() -> None:
    group, names = popularity_deciles(np.array([0, *[1] * 10, *[5] * 10, 40]))
    assert names[0] == "new"
    assert group[0] == 0
    assert set(group[1:11]) == {1}
    assert set(group[11:21]) == {6}
    assert group[21] == 10


def test_completeness_names_each_pattern_that_there_is_the_fullest_first() -> None:
    present = {"image": np.array([True, False, True, False]), "text": np.array([True, True, False, False])}
    group, names = modality_completeness(present)
    assert [names[n] for n in group] == ["image + text", "text", "image", "nothing"]
    assert names[0] == "image + text"
    assert names[-1] == "nothing"


def test_a_real_gap_between_groups_is_found_and_a_random_one_is_not() -> None:
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(300), 2)
    group = np.repeat(np.arange(300) % 3, 2)
    noise = generator.random(600)
    apart = group_gap(noise + 0.3 * (group == 2), users, group, ["a", "b", "c"])
    assert apart["p_value"] < 0.01
    means = [noise[group == n].mean() + 0.3 * (n == 2) for n in range(3)]
    assert apart["gap"] == pytest.approx(max(means) - min(means))
    assert apart["groups"]["c"]["num_users"] == 100
    assert apart["groups"]["c"]["low"] < apart["groups"]["c"]["mean"] < apart["groups"]["c"]["high"]
    assert group_gap(noise, users, group, ["a", "b", "c"])["p_value"] > 0.05


def test_one_group_has_no_gap() -> None:
    found = group_gap(np.ones(4), np.arange(4), np.array([0, 0, NOWHERE, NOWHERE]), ["a", "b"])
    assert found["gap"] is None
    assert list(found["groups"]) == ["a"]
