"""A checkpoint folder and a plain function in the model's place: the exporter asks no more of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmrec.exporter import ExportReport, export
from mmrec.index.build import IndexConfig

DIM = 6


class Encoder:
    """Unit vectors that depend on the item alone; keeps the indices of every call, fails at call ``fail_at``."""

    def __init__(self, seed: int = 0, fail_at: int | None = None):
        self.seed = seed
        self.fail_at = fail_at
        self.calls: list[list[int]] = []

    def __call__(self, item_idx: np.ndarray) -> np.ndarray:
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append(item_idx.tolist())
        rows = [np.random.default_rng([self.seed, int(idx)]).standard_normal(DIM) for idx in item_idx]
        vectors = np.stack(rows).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def encoder() -> type[Encoder]:
    return Encoder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    for name in ("model.safetensors", "config.json", "dataset.json", "preprocessing/text/tokenizer.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    (folder / "training_state").mkdir()
    (folder / "training_state" / "optimizer.pt").write_text("large")
    return folder


@pytest.fixture
def run_export(tiny_dataset, checkpoint: Path) -> Callable[..., ExportReport]:
    """``export`` of the tiny dataset, or another one, in parts of 7 with every argument given unless overridden.

    ``index`` may be True: that of `mmrec export --index`.
    """

    def run(encode_items, out: Path, dataset=None, index: IndexConfig | bool = False, **overrides) -> ExportReport:
        dataset = dataset or tiny_dataset
        presence = np.stack([dataset.present(name) for name in dataset.modalities], axis=1)
        arguments = {
            "checkpoint": checkpoint,
            "model_hash": "a" * 64,
            "presence": presence,
            "modalities": dataset.modalities,
            "shard_items": 7,
            "index": (IndexConfig() if index is True else index) or None,
        }
        return export(encode_items, dataset, out, **(arguments | overrides))

    return run
