"""Parts of a medium as players ask for them (RFC 9110, section 14)."""

from __future__ import annotations

import pytest

from mmrec.explore.byte_range import ranged_response

DATA = bytes(range(100))


def answer(asked: str | None):
    return ranged_response(DATA, "video/mp4", asked, {})


@pytest.mark.parametrize(
    ("asked", "first", "stop"),
    [
        ("bytes=0-", 0, 100),
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=90-1000", 90, 100),
        ("bytes=99-", 99, 100),
        ("bytes=-10", 90, 100),
        ("bytes=-1000", 0, 100),
    ],
)
def test_one_range_is_given(asked, first, stop):
    response = answer(asked)
    assert response.status_code == 206
    assert response.body == DATA[first:stop]
    assert response.headers["content-range"] == f"bytes {first}-{stop - 1}/100"
    assert response.headers["content-length"] == str(stop - first)


@pytest.mark.parametrize(
    "asked", [None, "", "bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,5-6", "items=0-5", "bytes=a-b"]
)
def test_other_headers_are_given_all(asked):
    response = answer(asked)
    assert (response.status_code, response.body) == (200, DATA)
    assert response.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=200-300", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(asked):
    response = answer(asked)
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */100")
