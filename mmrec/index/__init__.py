"""Search in an export folder."""

from mmrec.index.filters import Where
from mmrec.index.search import (
    Hit,
    hits_to_json,
    recommend,
    search_by_item,
    search_by_vector,
    search_by_vectors,
    vectors_at,
)

__all__ = [
    "Hit",
    "Where",
    "hits_to_json",
    "recommend",
    "search_by_item",
    "search_by_vector",
    "search_by_vectors",
    "vectors_at",
]
