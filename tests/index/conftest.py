"""A generated export of 4,000 items around 40 centres, with attributes, and its index of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from eval.benchmarks.generated_export import clustered_vectors, write_export
from mmrec.export_folder import ExportFolder
from mmrec.index.build import IndexConfig, rebuild

NUM_ITEMS, DIM = 4000, 16
KINDS = ("none", "exact", "ivf", "hnsw", "sq8")


@dataclass(frozen=True)
class Catalog:
    """What was written: the reference of all tests here computes from it in float64."""

    path: Path
    vectors: np.ndarray
    item_ids: np.ndarray
    attributes: dict[str, list]

    def queries(self, num: int, seed: int = 0) -> np.ndarray:
        """Near items, on none of them. float32 (num, D)"""
        generator = np.random.default_rng(seed)
        near = self.vectors[generator.integers(0, len(self.vectors), num)]
        return near + 0.1 * generator.standard_normal(near.shape).astype(np.float32)

    def exact(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[str]:
        """Ids of the k greatest inner products among the allowed items, by sorting all."""
        scores = (self.vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        order = np.lexsort((np.arange(len(scores)), -scores))
        return self.item_ids[order if allowed is None else order[allowed[order]]][:k].tolist()


def make_catalog(path: Path, vectors: np.ndarray, **columns) -> Catalog:
    """Ids in an order that is not that of numbers; an attribute that follows the centres, one that does not."""
    generator = np.random.default_rng(7)
    item_ids = np.array([f"p{n:05d}" for n in generator.permutation(len(vectors))])
    side = np.where(vectors[:, 0] > np.quantile(vectors[:, 0], 0.6), "right", "left")
    rare = [
        None if n % 3 == 0 else "one" if n == 17 else "few" if n % 500 == 1 else "many" for n in range(len(vectors))
    ]
    years = (2000 + generator.integers(0, 25, len(vectors))).tolist()
    attributes = {"side": side.tolist(), "rare": rare, "year": years, "new": [year >= 2020 for year in years]} | columns
    blocks = [vectors[start : start + 1024] for start in range(0, len(vectors), 1024)]
    write_export(path, blocks, item_ids=item_ids, attributes=attributes)
    return Catalog(path, vectors, item_ids, attributes)


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    vectors = np.concatenate([*clustered_vectors(NUM_ITEMS, DIM)])
    return make_catalog(tmp_path_factory.mktemp("catalog") / "export", vectors)


@pytest.fixture(scope="session")
def built(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportFolder]:
    """The export with an index of a kind, or with none; read only."""
    made: dict[str, ExportFolder] = {}

    def build(kind) -> ExportFolder:
        if kind not in made:
            path = tmp_path_factory.mktemp(kind) / "export"
            shutil.copytree(catalog.path, path)
            made[kind] = ExportFolder.open(path) if kind == "none" else rebuild(path, IndexConfig(kind=kind))
        return made[kind]

    return build


@pytest.fixture
def copy_of(built, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of such an export, to be changed."""

    def copy(kind: str, name: str = "export") -> Path:
        shutil.copytree(built(kind).path, tmp_path / name)
        return tmp_path / name

    return copy
