"""What an export tells of itself: attributes of its items, how its vectors are used, and a card in words."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import mmrec
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.export_folder import ExportFolder
from mmrec.exporter import UserSide

SIDE = UserSide(encoder="hstu", max_history=20, reads_times=True, query_time=False)


def dataset_of(items: pl.DataFrame, folder: Path, **settings) -> Dataset:
    folder.mkdir()
    items.write_parquet(folder / "items.parquet")
    events = pl.DataFrame({"user_id": ["u", "u"], "item_id": items["item_id"][:2], "timestamp": [1, 2]})
    events.write_parquet(folder / "log.parquet")
    arguments = {"media_root": folder, "out": folder / "dataset", "num_workers": 1} | settings
    return Dataset.open(
        ingest(IngestConfig(items=folder / "items.parquet", interactions=folder / "log.parquet", **arguments))
    )


def test_items_come_with_the_attributes_of_the_dataset_and_without_places_of_media(
    run_export, encoder, tiny_dataset, tmp_path
):
    run_export(encoder(), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "items.parquet")
    assert table.column_names == ["item_id", "title", "modalities", "description", "category"]
    assert table["item_id"].to_pylist() == tiny_dataset.item_ids.tolist()
    assert table["title"].to_pylist() == tiny_dataset.titles
    assert table["category"].to_pylist() == tiny_dataset.attributes["category"].to_list()
    export = ExportFolder.open(tmp_path / "out")
    assert export.attributes["category"].to_pylist() == table["category"].to_pylist()
    assert export.attributes.num_rows == 24


def test_attributes_are_strings_numbers_truth_values_and_dates(run_export, encoder, tmp_path):
    items = pl.DataFrame(
        {
            "item_id": ["a", "b"],
            "name": ["A", None],
            "about": ["short", "long " * 100],
            "price": [1.5, None],
            "year": [1999, 2001],
            "new": [True, False],
            "day": [datetime.date(2020, 1, 2), None],
            "tags": [["x"], ["y"]],
        }
    )
    dataset = dataset_of(items, tmp_path / "source", text_columns=("name", "about"))
    run_export(encoder(), tmp_path / "out", dataset=dataset)
    table = pq.read_table(tmp_path / "out" / "items.parquet").drop_columns(["modalities"])
    assert table.to_pydict() == {
        "item_id": ["a", "b"],
        "title": ["A", "b"],
        "price": [1.5, None],
        "year": [1999, 2001],
        "new": [True, False],
        "day": ["2020-01-02", None],
    }


def test_a_column_named_title_gives_way_to_the_title(run_export, encoder, tmp_path, caplog):
    items = pl.DataFrame({"item_id": ["a", "b"], "name": ["A", "B"], "title": ["Dr", "Mr"]})
    dataset = dataset_of(items, tmp_path / "source", text_columns=("name",))
    run_export(encoder(), tmp_path / "out", dataset=dataset)
    table = pq.read_table(tmp_path / "out" / "items.parquet").drop_columns(["modalities"])
    assert table.to_pydict() == {"item_id": ["a", "b"], "title": ["A", "B"]}
    assert "the column 'title' is not exported: the title of an item is its name" in caplog.text


def test_a_column_named_title_is_the_title_where_nothing_is_text(run_export, encoder, tmp_path):
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["Dr", None], "vec": [1, 2]})
    np.save(tmp_path / "vec.npy", np.ones((2, 3), dtype=np.float32))
    dataset = dataset_of(items, tmp_path / "source", features=(f"vec={tmp_path / 'vec.npy'}",))
    run_export(encoder(), tmp_path / "out", dataset=dataset)
    table = pq.read_table(tmp_path / "out" / "items.parquet").drop_columns(["modalities"])
    assert table.to_pydict() == {"item_id": ["a", "b"], "title": ["Dr", "b"], "vec": [1, 2]}


def test_the_manifest_says_how_the_vectors_are_used(run_export, encoder, tmp_path):
    run_export(encoder(), tmp_path / "out", user_side=SIDE)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["metric"] == "inner_product"
    assert manifest["normalised"] is True
    assert manifest["dtype"] == "float32"
    assert manifest["user_side"] == {"encoder": "hstu", "max_history": 20, "reads_times": True, "query_time": False}


def test_the_card_names_model_data_metric_and_limits(run_export, encoder, tiny_dataset, tmp_path):
    run_export(encoder(), tmp_path / "out", user_side=SIDE)
    card = (tmp_path / "out" / "README.md").read_text()
    for words in ("24 items, 6 dimensions", "a" * 16, tiny_dataset.fingerprint[:16], "licence of the data: not stated",
                  "metric: inner product", "float32", "hstu encoder", "the last 20", "Intended use",
                  "Limits"):  # fmt: skip
        assert words in card
    assert max(map(len, card.splitlines())) < 400


def test_the_lines_of_the_card_load_the_export(run_export, encoder, tmp_path):
    path = run_export(encoder(), tmp_path / "out").path
    lines = re.search(r"```python\n(.*?)```", (path / "README.md").read_text(), re.S)[1]
    assert len(lines.strip().splitlines()) == 3
    found: dict = {}
    exec(lines.replace("PATH OF THIS FOLDER", str(path)), found)
    assert np.array_equal(found["vectors"], encoder()(np.arange(24)))
    assert found["item_ids"].tolist() == mmrec.load(path).export.item_ids.tolist()


@pytest.mark.parametrize(("name", "reads_times"), [("hstu", True), ("sasrec", False)])
def test_the_user_side_is_that_of_the_model(tiny_dataset, name, reads_times):
    from mmrec.item_encoder import fit_preprocessings
    from mmrec.training.presets import preset

    config = preset("id", tiny_dataset.path, user_encoder=name)
    model = config.model.build(fit_preprocessings(config.model.item_encoder, tiny_dataset, np.ones(24, dtype=bool)))
    side = UserSide.of(model, tiny_dataset)
    assert (side.encoder, side.reads_times, side.query_time) == (name, reads_times, False)
    assert side.max_history == config.model.user_encoder.max_length
