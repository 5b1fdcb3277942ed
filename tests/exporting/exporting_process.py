"""An export by a process of its own: ``python -m tests.exporting.exporting_process DATASET CHECKPOINT OUT SLEEP_S``.

Vectors depend on the item alone; encoding a part takes SLEEP_S at least.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from mmrec.data.dataset import Dataset
from mmrec.exporter import export
from mmrec.index.build import IndexConfig

DIM = 6


def vectors_of(item_idx: np.ndarray) -> np.ndarray:
    rows = [np.random.default_rng([0, int(idx)]).standard_normal(DIM) for idx in item_idx]
    vectors = np.stack(rows).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main(data: str, checkpoint: str, out: str, sleep_s: str, *options: str) -> None:
    dataset = Dataset.open(data)

    def encode(item_idx: np.ndarray) -> np.ndarray:
        time.sleep(float(sleep_s))
        return vectors_of(item_idx)

    report = export(
        encode,
        dataset,
        Path(out),
        checkpoint=Path(checkpoint),
        model_hash="a" * 64,
        presence=np.stack([dataset.present(name) for name in dataset.modalities], axis=1),
        modalities=dataset.modalities,
        shard_items=1,
        dtype="int8",
        index=IndexConfig() if "--index" in options else None,
    )
    print(report.encoded)


if __name__ == "__main__":
    main(*sys.argv[1:])
