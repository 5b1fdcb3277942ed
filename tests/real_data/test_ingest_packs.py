"""The packs of ready-made tables and vectors go through plain ``mmrec ingest``."""

from __future__ import annotations

import numpy as np
import polars as pl

from mmrec.data.dataset import Dataset, verify_dataset
from mmrec.data.ingest import IngestConfig, ingest


def test_amazon_scientific_keeps_every_event_and_every_vector(shared_data, tmp_path):
    pack = shared_data / "amazon_scientific"
    names = ("clip_image", "clip_text")
    config = IngestConfig(
        items=pack / "items.parquet",
        interactions=pack / "interactions.parquet",
        features=tuple(f"{name}={pack / name}.npy" for name in names),
        out=tmp_path / "out",
    )
    dataset = Dataset.open(ingest(config))
    assert verify_dataset(dataset.path) == []
    assert (dataset.num_items, dataset.num_users, len(dataset.sequences.item_idx)) == (1_585, 2_928, 19_712)
    assert (dataset.name, dataset.modalities) == ("amazon_scientific", ("text", *names))

    items = pl.read_parquet(pack / "items.parquet")
    row_of = {item_id: row for row, item_id in enumerate(items["item_id"])}
    rows = np.array([row_of[item_id] for item_id in dataset.item_ids])
    for name in names:
        np.testing.assert_array_equal(dataset.features(name), np.load(pack / f"{name}.npy")[rows])

    events = pl.read_parquet(pack / "interactions.parquet").sort("user_id", "position")
    assert [str(item_id) for item_id in dataset.item_ids[dataset.sequences.item_idx]] == events["item_id"].to_list()
