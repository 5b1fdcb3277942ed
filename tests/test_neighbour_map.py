"""The map of the item space: neighbours in space are neighbours on the plane."""

from __future__ import annotations

import numpy as np
import pytest

from mmrec.neighbour_map import neighbour_map, neighbours_kept
from mmrec.principal_plane import principal_plane


def test_groups_that_lie_apart_stay_apart() -> None:
    generator = np.random.default_rng(0)
    centres = 3 * generator.standard_normal((7, 16))
    group = np.repeat(np.arange(7), 20)
    places = neighbour_map(centres[group] + 0.3 * generator.standard_normal((140, 16)))
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(axis=1)] == group).all()


def test_more_neighbours_stay_than_on_the_principal_components() -> None:
    """A ring that winds through ten dimensions: no two directions hold it."""
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    ring = np.stack([wave(n * angle) for n in range(1, 6) for wave in (np.sin, np.cos)], axis=1)
    kept = neighbours_kept(ring, neighbour_map(ring))
    assert kept > 0.8
    assert kept > neighbours_kept(ring, principal_plane(ring)[0]) + 0.1


def test_equal_vectors_give_equal_maps_around_the_middle() -> None:
    vectors = np.random.default_rng(1).standard_normal((60, 8)).astype(np.float32)
    places = neighbour_map(vectors)
    np.testing.assert_array_equal(places, neighbour_map(vectors))
    np.testing.assert_allclose(places.mean(axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("number", [1, 2, 4, 5, 50])
def test_few_points_and_points_that_are_all_the_same_have_finite_places(number: int) -> None:
    generator = np.random.default_rng(2)
    for vectors in (
        np.ones((number, 3)),
        generator.standard_normal((number, 3)),
        generator.standard_normal((number, 1)),
    ):
        places = neighbour_map(vectors)
        assert places.shape == (number, 2)
        assert np.isfinite(places).all()


def test_what_is_kept_is_counted_by_hand() -> None:
    line = np.array([[0.0], [1.0], [2.1], [3.3]])
    assert neighbours_kept(line, line, most=1) == 1
    swapped = line[[0, 2, 1, 3]]  # the neighbour of 0 is now 2, of 1 it is 3, of 2 and of 3 what they had not
    assert neighbours_kept(line, swapped, most=1) == 0
    assert neighbours_kept(line[:1], line[:1]) == 1
