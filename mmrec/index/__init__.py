"""Search in an export folder."""

from mmrec.index.search import Hit, hits_to_json, recommend, search_by_item, search_by_vector, vectors_at

__all__ = ["Hit", "hits_to_json", "recommend", "search_by_item", "search_by_vector", "vectors_at"]
