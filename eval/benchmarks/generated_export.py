"""An export folder of generated vectors: what index and server are measured and tested on, at any size.

The vectors lie around centres of different weight, as those of a catalogue do. The folder has no model: it answers by
item and by vector alone.

Legend: V items, D vector width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmrec.atomic_files import write_json, write_table
from mmrec.export_folder import MANIFEST, SCHEMA, SCHEMA_VERSION

__all__ = ["clustered_vectors", "write_export"]

MODALITIES = ("image", "text")


def clustered_vectors(
    num_items: int, dim: int, *, seed: int = 0, spread: float = 0.7, block: int = 65_536
) -> Iterator[np.ndarray]:
    """Unit vectors around one centre for each hundred items, block after block. float32 (n, D)

    Args:
        spread: mean distance from the centre, as a share of the centre's length.
    """
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(num_items // 100, 1), dim), dtype=np.float32)
    for start in range(0, num_items, block):
        size = min(block, num_items - start)
        # Squares of uniform numbers: the first tenth of the centres has a third of the items.
        centre = (len(centres) * generator.random(size) ** 2).astype(np.int64)
        vectors = generator.standard_normal((size, dim), dtype=np.float32)
        vectors *= np.float32(spread)
        vectors += centres[centre]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield vectors


def write_export(
    path: Path,
    blocks: Iterable[np.ndarray],
    *,
    item_ids: Iterable[str] | None = None,
    attributes: Mapping[str, Any] | None = None,
    bitmasks: np.ndarray | None = None,
    model_hash: str = "a" * 64,
    dataset: str = "generated",
) -> Path:
    """Write vectors as an export folder, a part a block; return its path.

    Args:
        blocks: float32 (n, D) each.
        item_ids: V; the default is item-0, item-1, ...
        attributes: columns of ``items.parquet`` by name, V values each.
        bitmasks: which of image and text each item has; the default is both. (V,)
    """
    ids = None if item_ids is None else list(item_ids)
    parts, known, dim, unit = [], [], 0, True
    for number, block in enumerate(blocks):
        dim, start = block.shape[1], len(known)
        known += ids[start : start + len(block)] if ids else [f"item-{n}" for n in range(start, start + len(block))]
        masks = np.full(len(block), 3) if bitmasks is None else bitmasks[start : start + len(block)]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), type=_vector_type(dim))
        columns = [known[start:], vectors, pa.array(masks, pa.int32()), [""] * len(block)]
        name = f"embeddings/part-{number:05d}.parquet"
        entry = write_table(path / name, pa.Table.from_arrays([*map(pa.array, columns)], schema=_schema(dim)))
        normalised = bool(np.allclose(np.linalg.norm(block, axis=1), 1, atol=1e-4))
        unit = unit and normalised
        parts.append({"file": name, "rows": len(block), "normalised": normalised, **entry})
    masks = np.full(len(known), 3) if bitmasks is None else bitmasks
    items = pa.table(
        {"item_id": known, "title": [f"title of {one}" for one in known], "modalities": pa.array(masks, pa.int32())}
        | dict(attributes or {})
    )
    manifest = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "model_hash": model_hash,
        "dataset": {"name": dataset, "fingerprint": "0" * 64},
        "num_items": len(known),
        "shard_items": max(part["rows"] for part in parts),
        "modalities": list(MODALITIES),
        "dim": dim,
        "cut": None,
        "format": "parquet",
        "dtype": "float32",
        "decode": "the vectors as the model scores them",
        "normalised": unit,
        "metric": "inner_product",
        "recall_at_10": None,
        "user_side": None,
        "users": None,
        "parts": parts,
        "files": {"items.parquet": write_table(path / "items.parquet", items)},
    }
    write_json(path / MANIFEST, manifest)
    return path


def _vector_type(dim: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.float32(), nullable=False), dim)


def _schema(dim: int) -> pa.Schema:
    kinds = {
        "item_id": pa.string(), "vector": _vector_type(dim), "modalities": pa.int32(), "source_hash": pa.string()
    }  # fmt: skip
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])
