"""`--since`: what has not changed is copied bit for bit, what has is encoded, and both are counted."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.export_folder import ExportFolder

NUM_ITEMS = 300


def made(folder: Path, ids: list[str], vectors: np.ndarray) -> Dataset:
    folder.mkdir()
    pl.DataFrame({"item_id": ids}).write_parquet(folder / "items.parquet")
    pl.DataFrame({"user_id": ["u", "u"], "item_id": ids[:2], "timestamp": [1, 2]}).write_parquet(folder / "log.parquet")
    np.save(folder / "vec.npy", vectors)
    config = IngestConfig(
        items=folder / "items.parquet",
        interactions=folder / "log.parquet",
        features=(f"vec={folder / 'vec.npy'}",),
        out=folder / "dataset",
        num_workers=1,
    )
    return Dataset.open(ingest(config))


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """300 items, and a day later: 3 of them, 1 %, changed."""
    root = tmp_path_factory.mktemp("versions")
    vectors = np.random.default_rng(0).standard_normal((NUM_ITEMS, 4)).astype(np.float32)
    ids = [f"i{n:03d}" for n in range(NUM_ITEMS)]
    changed = vectors.copy()
    changed[[7, 150, 299]] += 1
    return made(root / "old", ids, vectors), made(root / "new", ids, changed)


@pytest.mark.parametrize(("old_dtype", "dtype"), [("float32", "float32"), ("float32", "int8"), ("int8", "int8")])
def test_of_a_hundredth_changed_a_hundredth_is_encoded(run_export, encoder, versions, tmp_path, old_dtype, dtype):
    old, new = versions
    run_export(encoder(seed=1), tmp_path / "old", dataset=old, shard_items=64, dtype=old_dtype)
    second = encoder(seed=2)  # another stream, so that copied and encoded vectors cannot be confused
    report = run_export(second, tmp_path / "new", dataset=new, shard_items=64, since=tmp_path / "old", dtype=dtype)
    changed = sorted(new.item_index(item_id) for item_id in ("i007", "i150", "i299"))
    assert sorted(idx for call in second.calls for idx in call) == changed
    assert (report.encoded, report.copied, report.gone) == (3, 297, 0)

    def both(item_idx: np.ndarray) -> np.ndarray:
        fresh = np.isin(item_idx, changed)[:, None]
        return np.where(fresh, encoder(seed=2)(item_idx), encoder(seed=1)(item_idx))

    run_export(both, tmp_path / "whole", dataset=new, shard_items=64, dtype=dtype)
    found, expected = ExportFolder.open(tmp_path / "new"), ExportFolder.open(tmp_path / "whole")
    assert found.table.equals(expected.table)
    recall = [export.manifest["recall_at_10"] for export in (found, expected)]
    if old_dtype == "int8":  # the vectors of which these were made are not there any more
        recall[1] = ExportFolder.open(tmp_path / "old").manifest["recall_at_10"] | {"carried_over": True}
    assert recall[0] == recall[1]


def test_items_that_moved_are_found_and_those_that_went_are_counted(run_export, encoder, versions, tmp_path):
    old, _ = versions
    order = np.random.default_rng(1).permutation(NUM_ITEMS)[:200]
    moved = made(tmp_path / "moved", old.item_ids[order].tolist(), np.asarray(old.features("vec"))[order])
    run_export(encoder(seed=1), tmp_path / "old", dataset=old, shard_items=64)
    second = encoder(seed=2)
    report = run_export(second, tmp_path / "new", dataset=moved, shard_items=30, since=tmp_path / "old")
    assert second.calls == []
    assert (report.encoded, report.copied, report.gone) == (0, 200, 100)
    old_export, new_export = ExportFolder.open(tmp_path / "old"), ExportFolder.open(tmp_path / "new")
    assert np.array_equal(new_export.vectors, old_export.vectors_of(new_export.item_ids))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({}, {"model_hash": "b" * 64}, "is of model aaaaaaaaaaaa, this is model bbbbbbbbbbbb: a new version"),
        ({"dtype": "int8"}, {}, "has vectors in int8, of which float32 cannot be made"),
        ({"cut": 6}, {}, "has vectors of another width"),
    ],
)
def test_what_cannot_be_copied_is_encoded_and_the_reason_told(
    run_export, encoder, tmp_path, caplog, before, after, reason
):
    run_export(encoder(), tmp_path / "old", **before)
    with caplog.at_level(logging.WARNING):
        report = run_export(encoder(), tmp_path / "new", since=tmp_path / "old", **after)
    assert (report.encoded, report.copied) == (24, 0)
    assert f"{reason}; all items are encoded again" in caplog.text
