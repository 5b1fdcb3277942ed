"""Filters by attribute: exact, whatever the index and however few items pass."""

from __future__ import annotations

import numpy as np
import pytest

from mmrec.errors import ConfigError
from mmrec.index import search_by_vector, search_by_vectors
from tests.asking import search_by_item

from .conftest import KINDS

# Share of the items that pass: none, one, few, a part that follows the vectors, a part that does not, all but empty.
FILTERS = {
    "no item": {"rare": ["one"], "side": ["left", "right"], "year": ["2000"], "new": ["true"]},
    "one item": {"rare": ["one"]},
    "few items": {"rare": ["few"]},
    "one side": {"side": ["right"]},
    "the other side": {"side": ["left"]},
    "some years": {"year": ["2003", "2004", "2011"], "side": ["left", "right"]},
    "truth values": {"new": ["true"]},
    "two columns": {"rare": ["many", "few"], "side": ["right"]},
    "all that have a value": {"rare": ["many", "few", "one"]},
}


def passing(catalog, where) -> np.ndarray:
    mask = np.ones(len(catalog.item_ids), dtype=bool)
    for name, values in where.items():
        texts = [None if value is None else str(value) for value in catalog.attributes[name]]
        mask &= np.array([text is not None and text.lower() in values for text in texts])
    return mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", FILTERS.values(), ids=FILTERS)
def test_a_filtered_search_is_an_exact_search_among_the_items_that_pass(catalog, built, kind, where):
    allowed = passing(catalog, where)
    queries = catalog.queries(8)
    for query, hits in zip(queries, search_by_vectors(built(kind), queries, 12, where=where), strict=True):
        assert [hit.item_id for hit in hits] == catalog.exact(query, 12, allowed)


def test_the_filters_of_these_tests_leave_what_they_say(catalog):
    left = {name: int(passing(catalog, where).sum()) for name, where in FILTERS.items()}
    assert (left["no item"], left["one item"]) == (0, 1)
    assert 1 < left["few items"] < 20
    assert min(left["one side"], left["some years"] * 4, left["two columns"]) > 1000


@pytest.mark.parametrize("kind", KINDS)
def test_filters_go_together_with_excluded_items_and_with_a_bonus(catalog, built, kind):
    allowed = passing(catalog, {"side": ["right"]})
    query = catalog.queries(1)[0]
    first = catalog.exact(query, 3, allowed)
    hits = search_by_vector(built(kind), query, 4, exclude=first, where={"side": ["right"]})
    assert [hit.item_id for hit in hits] == catalog.exact(query, 7, allowed)[3:]
    favoured = np.array([np.flatnonzero(~allowed)[0], np.flatnonzero(allowed)[5]])
    hits = search_by_vector(built(kind), query, 4, first, (favoured, np.array([50.0, 50.0])), where={"side": ["right"]})
    assert [hit.item_id for hit in hits] == [catalog.item_ids[favoured[1]], *catalog.exact(query, 6, allowed)[3:]]


def test_an_item_finds_its_neighbours_on_the_other_side(catalog, built):
    item = str(catalog.item_ids[np.flatnonzero(~passing(catalog, {"side": ["right"]}))[0]])
    hits = search_by_item(built("ivf"), item, 5, where={"side": ["right"]})
    assert len(hits) == 5
    assert item not in {hit.item_id for hit in hits}


def test_no_filter_filters_nothing(catalog, built):
    query = catalog.queries(1)[0]
    assert search_by_vector(built("exact"), query, 5, where={}) == search_by_vector(built("exact"), query, 5)


def test_values_may_be_given_as_what_they_are(catalog, built):
    query = catalog.queries(1)[0]
    numbers = search_by_vector(built("exact"), query, 5, where={"year": [2003], "new": [False]})  # pyright: ignore[reportArgumentType]
    assert numbers == search_by_vector(built("exact"), query, 5, where={"year": ["2003"], "new": ["false"]})
    assert len(numbers) == 5


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"sid": ["left"]}, "unknown attribute 'sid'; perhaps you meant 'side'; known: new, rare, side, year"),
        ({"item_id": ["p00001"]}, "unknown attribute 'item_id'; known: new, rare, side, year"),
        ({"side": ["lefty"]}, "unknown side 'lefty'; perhaps you meant 'left'; known: left, right"),
        ({"side": ["left", ""]}, "unknown side ''; known: left, right"),
        ({"year": ["1999"]}, "unknown year '1999'; .*known: 2000, 2001, 2002, .*, 2019 and 5 more"),
        ({"year": ["old"]}, "unknown year 'old'; known: 2000"),
        ({"side": []}, "the filter side has no values; give at least one"),
        ({"side": "left"}, "the filter side is the string 'left'; give a list of values"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused_with_what_is_known(built, where, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        search_by_vector(built("exact"), np.ones(16), 3, where=where)
