"""Search in an export folder, and the index that makes it quick.

Files beside the parts of the export::

    index.faiss          positions -> vectors or codes, inner product: IndexFlatIP (exact), IVF (ivf), HNSW (hnsw),
                         8-bit codes, in lists above the size of an exact index (sq8)
    index_ids.parquet    by position: item_id, row in the export; null and -1 where the item is no more
    index_vectors.npy    with sq8: the vectors as exported, by row, mapped into memory for the scores
    removed_ids.parquet  ids of items that are in no answer
    manifest.json        index: {kind, asked {kind, recall, memory_gb, seed}, parameters, positions, vectors: digest of
                         the parts, recall {at, target, measured, standard_error, queries, of}, memory_bytes,
                         queries_per_second, threads}; removed: how many

Only ``queries_per_second`` tells of the machine; an exact index has none, and its folder stays the same bytes for the
same input.
"""

from mmrec.index.filters import Where
from mmrec.index.search import (
    Hit,
    live_rows,
    search_by_vector,
    search_by_vectors,
    vectors_at,
)

__all__ = [
    "Hit",
    "Where",
    "live_rows",
    "search_by_vector",
    "search_by_vectors",
    "vectors_at",
]
