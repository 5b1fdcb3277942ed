"""Shares of the peak rate, as visible arithmetic."""

from __future__ import annotations

import math

import pytest

from mmrec.training.schedules import rate_share


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_the_warm_up_is_linear_and_ends_at_the_peak(schedule):
    assert [rate_share(schedule, step, 4, 100) for step in range(4)] == [1 / 4, 2 / 4, 3 / 4, 1.0]


def test_constant_stays_at_the_peak():
    assert {rate_share("constant", step, 2, 0) for step in (2, 50, 10**6)} == {1.0}


def test_cosine_falls_to_nothing():
    assert rate_share("cosine", 4, 4, 104) == 1.0
    assert rate_share("cosine", 54, 4, 104) == pytest.approx(0.5)
    assert rate_share("cosine", 29, 4, 104) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert rate_share("cosine", 104, 4, 104) == pytest.approx(0.0)
    assert rate_share("cosine", 200, 4, 104) == pytest.approx(0.0), "and does not rise again"


def test_wsd_is_stable_and_then_falls_in_a_line_over_the_last_fifth():
    shares = [rate_share("wsd", step, 0, 100) for step in (0, 79, 80, 90, 95, 100, 120)]
    assert shares == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.25, 0.0, 0.0])


def test_without_warm_up_the_first_step_has_the_whole_rate():
    assert rate_share("constant", 0, 0, 0) == 1.0
