"""A copy of an index on a GPU, where the installed FAISS has one.

faiss-cpu, which mmrec asks for, has none: without another build of FAISS nothing here is ever used. Written from its
documentation and never run on a GPU so far. Searches with filters, and what finds too little, stay on the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["MOST_ON_GPU", "GpuCopy", "gpu_copy"]

MOST_ON_GPU = 2048  # neighbours that FAISS finds on a GPU in one search


class GpuCopy:
    """An index on the first GPU; one search at a time, for its buffers are shared.

    Args:
        index: of a kind that FAISS has on GPUs.
        parameters: as of the index in memory.
    """

    def __init__(self, index: Any, parameters: Mapping[str, int]) -> None:
        import faiss

        self._resources = faiss.StandardGpuResources()
        self._index: Any = faiss.index_cpu_to_gpu(self._resources, 0, index)
        if "nprobe" in parameters:
            self._index.nprobe = parameters["nprobe"]
        self._searching = threading.Lock()

    def search(self, queries: np.ndarray, num: int) -> np.ndarray:
        """Positions of the ``num`` nearest, -1 where there are no more. (Q, num)"""
        with self._searching:
            return self._index.search(queries, num)[1]


def gpu_copy(index: Any, parameters: Mapping[str, int]) -> GpuCopy | None:
    """A copy on a GPU; None where FAISS sees no GPU or has this kind of index on the CPU alone."""
    import faiss

    if faiss.get_num_gpus() == 0 or not isinstance(
        index, faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexIVFScalarQuantizer
    ):
        return None
    return GpuCopy(index, parameters)
