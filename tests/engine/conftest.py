"""A hybrid trained for an epoch on the tiny dataset, its export, and an export of a model that reads times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import mmrec
from mmrec.atomic_files import write_table
from mmrec.cli import main
from mmrec.engine import Engine


@pytest.fixture(scope="session")
def engine_run(tiny_dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("engine") / "run"
    data = ["--data", str(tiny_dataset_path)]
    short = ["--max-epochs", "1", "--tower-epochs", "0", "--trackers"]
    assert main(["train", "hybrid", *data, "--out", str(run), *short]) == 0
    return run


@pytest.fixture(scope="session")
def engine_export(engine_run: Path, tiny_dataset_path: Path) -> Path:
    out = engine_run.with_name("export")
    command = ["export", str(engine_run), "--data", str(tiny_dataset_path), "--out", str(out)]
    assert main([*command, "--index", "--blend"]) == 0
    return out


@pytest.fixture(scope="session")
def engine(engine_export: Path) -> Engine:
    return mmrec.load(engine_export)


@pytest.fixture(scope="session")
def timed_export(tiny_dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an HSTU, which reads when items were taken."""
    folder = tmp_path_factory.mktemp("timed")
    data = ["--data", str(tiny_dataset_path)]
    train = ["train", "id", *data, "--out", str(folder / "run"), "--user-encoder", "hstu", "--max-epochs", "1"]
    assert main([*train, "--trackers"]) == 0
    assert main(["export", str(folder / "run"), *data, "--out", str(folder / "export")]) == 0
    return folder / "export"


@pytest.fixture(scope="session")
def with_users(engine_export: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """The export with 300 users, and their vectors; the last one has no events. (300, D)"""
    folder = tmp_path_factory.mktemp("users") / "export"
    shutil.copytree(engine_export, folder)
    dim = mmrec.load(folder).export.dim
    users = np.random.default_rng(0).standard_normal((300, dim)).astype(np.float32)
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    users[-1] = 0
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(users.ravel()), dim)
    columns = {
        "user_id": [f"u{n:03d}" for n in range(300)],
        "vector": vectors,
        "events": pa.array([3] * 299 + [0], pa.int32()),
        "last_time": pa.nulls(300, pa.int64()),
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "users").mkdir()
    name = "users/part-00000.parquet"
    part = {"file": name, "rows": 300, **write_table(folder / name, pa.table(columns))}
    manifest["users"] = {"num_users": 300, "parts": [part]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder, users
