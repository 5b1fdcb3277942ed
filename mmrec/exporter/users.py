"""Vectors of users, from the item vectors that the same export holds and the histories of the dataset.

Legend: n users of a part, V items, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from mmrec.atomic_files import write_parquet
from mmrec.data.dataset import Dataset
from mmrec.data.sequences import Sequences
from mmrec.export_folder import Encoding
from mmrec.export_folder.formats import vector_array
from mmrec.exporter.parts import vectors_or_refuse
from mmrec.exporter.workplace import Workplace

__all__ = ["EncodeUsers", "UserParts"]

# Item vectors float32 (V, D) and histories -> user vectors after the last event of each, float32 (n, D).
EncodeUsers = Callable[[np.ndarray, Sequences], np.ndarray]


class UserParts:
    """Encodes the users of one part after the other, and writes them.

    Args:
        encode_users: makes user vectors.
        dataset: whose users they are, with all their events.
        encoding: number format.
        items: gives the vectors of all items as the export stores them, decoded; called when the first part is written.
    """

    def __init__(
        self, encode_users: EncodeUsers, dataset: Dataset, encoding: Encoding, items: Callable[[], np.ndarray]
    ) -> None:
        self._encode_users = encode_users
        self._sequences = dataset.sequences
        self._encoding = encoding
        self._items = items

    def write(self, work: Workplace, name: str, users: np.ndarray, may: Callable[[], bool]) -> dict[str, Any]:
        """Commit the part of these consecutive users; what is to be known of it, as of a part of items.

        Raises: Lost if another process has taken the part.
        """
        histories = self._sequences.take(users)
        ids = pa.array(histories.user_ids.tolist(), pa.string())
        vectors = vectors_or_refuse(self._encode_users(self._items(), histories), ids, "user")
        codes, scale = self._encoding.encode(vectors)
        lengths = histories.lengths
        last = pa.nulls(len(users), pa.int64())
        if histories.timestamps is not None:
            times = np.concatenate([histories.timestamps, [0]])[histories.offsets[1:] - 1]
            last = pa.array(times.astype(np.int64), pa.int64(), mask=lengths == 0)
        columns = [(pa.field("user_id", pa.string(), nullable=False), ids), vector_array(codes)]
        if scale is not None:
            columns.append((pa.field("scale", pa.float32(), nullable=False), pa.array(scale)))
        columns.append((pa.field("events", pa.int32(), nullable=False), pa.array(lengths, pa.int32())))
        columns.append((pa.field("last_time", pa.int64()), last))
        fields, arrays = zip(*columns, strict=True)
        table = pa.Table.from_arrays(list(arrays), schema=pa.schema(fields))
        entry = work.commit(name, lambda path: write_parquet(path, table), may)
        return {"part": {"file": name, "rows": len(users), **entry}}
