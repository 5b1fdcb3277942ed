"""What ``ingest`` makes of good tables, and of odd ones that can be used."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import ConfigError


def folder_bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def tiny_config(source: Path, out: Path) -> IngestConfig:
    return IngestConfig(
        items=source / "items.csv",
        interactions=source / "interactions.csv",
        features=(f"vec={source / 'vec.npy'}",),
        text_columns=("title", "description"),
        out=out,
        name="tiny",
    )


@pytest.fixture
def config(tmp_path) -> IngestConfig:
    """Three items with text and one interaction each of two users, to be changed by each test."""
    pl.DataFrame({"item_id": ["a", "b", "c"], "text": ["A", "B", "C"]}).write_csv(tmp_path / "items.csv")
    write_events(tmp_path, [("u", "a", 1), ("u", "b", 2), ("v", "c", 3)])
    return IngestConfig(items=tmp_path / "items.csv", interactions=tmp_path / "events.csv", out=tmp_path / "out")


def write_events(root: Path, rows: list[tuple], columns: tuple[str, ...] = ("user_id", "item_id", "timestamp")) -> None:
    pl.DataFrame(rows, schema=list(columns), orient="row").write_csv(root / "events.csv")


def histories(path: Path) -> dict[str, list[str]]:
    dataset = Dataset.open(path)
    sequences = dataset.sequences
    return {str(u): list(dataset.item_ids[sequences.items_of(n)]) for n, u in enumerate(sequences.user_ids)}


def test_the_same_input_gives_the_same_bytes_whatever_the_folder_and_the_threads(
    tiny_source, tiny_dataset_path, tmp_path
):
    again = ingest(replace(tiny_config(tiny_source, tmp_path / "other"), num_workers=3))
    assert folder_bytes(again) == folder_bytes(tiny_dataset_path)
    assert Dataset.open(again).fingerprint == Dataset.open(tiny_dataset_path).fingerprint


def test_another_seed_numbers_the_items_otherwise_and_keeps_their_content(tiny_source, tiny_dataset, tmp_path):
    other = Dataset.open(ingest(replace(tiny_config(tiny_source, tmp_path / "other"), seed=1)))
    assert list(other.item_ids) != list(tiny_dataset.item_ids)
    assert other.fingerprint != tiny_dataset.fingerprint
    for idx, item_id in enumerate(other.item_ids):
        assert other.source_hash(idx) == tiny_dataset.source_hash(tiny_dataset.item_index(item_id))


def test_a_plain_webdataset_reader_sees_whole_samples_in_order(tiny_dataset):
    import webdataset

    shards = [str(path) for path in sorted((tiny_dataset.path / "media").iterdir())]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    with_media = [n for n in range(24) if any(tiny_dataset.present(m)[n] for m in ("image", "text", "audio", "video"))]
    assert [int(sample["__key__"]) for sample in samples] == with_media
    for sample in samples:
        idx = int(sample["__key__"])
        stored = {field: value for field, value in sample.items() if not field.startswith("__")}
        assert stored["text.txt"].decode() == tiny_dataset.read("text", idx)
        for modality, ext in (("image", "jpg"), ("audio", "wav"), ("video", "mp4")):
            assert (f"{modality}.{ext}" in stored) == tiny_dataset.present(modality)[idx]
            if tiny_dataset.present(modality)[idx]:
                assert stored[f"{modality}.{ext}"] == tiny_dataset.read(modality, idx)


def test_shards_stay_under_their_size_and_no_item_is_split(tmp_path):
    (tmp_path / "media").mkdir()
    for n in range(10):
        noise = np.random.default_rng(n).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "media" / f"{n}.png")  # 270 kB
    rows = [{"item_id": str(n), "text": f"item {n}", "image": f"media/{n}.png"} for n in range(10)]
    pl.DataFrame(rows).write_csv(tmp_path / "items.csv")
    write_events(tmp_path, [("u", str(n), n) for n in range(10)])
    config = IngestConfig(items=tmp_path / "items.csv", interactions=tmp_path / "events.csv", out=tmp_path / "out")
    out = ingest(replace(config, shard_size_mb=1))
    shards = sorted((out / "media").iterdir())
    assert len(shards) == 4  # three pictures fit into a megabyte
    assert all(path.stat().st_size < 1_050_000 for path in shards)
    keys = []
    for path in shards:
        with tarfile.open(path) as shard:
            keys.append({name.split(".")[0] for name in shard.getnames()})
    assert sum(len(group) for group in keys) == len(set.union(*keys)) == 10
    dataset = Dataset.open(out, verify=True)
    pictures = {(tmp_path / "media" / f"{n}.png").read_bytes() for n in range(10)}
    assert {dataset.read("image", n) for n in range(10)} == pictures


def test_the_manifest_names_no_place_and_no_time(tiny_dataset_path, tiny_source):
    text = (tiny_dataset_path / "manifest.json").read_text()
    assert str(tiny_source) not in text
    assert str(tiny_dataset_path) not in text
    assert json.loads(text)["counts"]["items"] == 24


def test_ids_are_read_as_written(config, tmp_path):
    (tmp_path / "items.csv").write_text("item_id,text\n007,bond\n7,seven\n")
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\n01,007,1\n1,7,1\n")
    assert histories(ingest(config)) == {"01": ["007"], "1": ["7"]}


def test_events_of_one_moment_stay_in_the_order_of_the_file(config, tmp_path):
    write_events(tmp_path, [("u", "c", 5), ("u", "a", 5), ("v", "b", 1), ("u", "b", 2), ("u", "a", 9)])
    assert histories(ingest(config)) == {"u": ["b", "c", "a", "a"], "v": ["b"]}
    assert json.loads((config.out / "manifest.json").read_text())["interactions"]["tie_break"] == "order in the file"


def test_events_of_one_second_keep_the_order_of_their_milliseconds(config, tmp_path):
    write_events(tmp_path, [("u", "b", 1_600_000_000_900), ("u", "a", 1_600_000_000_100)])
    assert histories(ingest(config)) == {"u": ["a", "b"]}


def test_positions_order_histories_and_are_not_taken_for_times(config, tmp_path):
    write_events(tmp_path, [("u", "c", 1), ("u", "a", 0)], ("user_id", "item_id", "position"))
    sequences = Dataset.open(ingest(config)).sequences
    assert (sequences.order, sequences.timestamps) == ("position", None)
    assert histories(config.out) == {"u": ["a", "c"]}


def test_numbers_in_a_text_column_stay_as_written(config, tmp_path):
    (tmp_path / "items.csv").write_text("item_id,text\na,007\nb,1984-01-01\nc,3.0\n")
    dataset = Dataset.open(ingest(config))
    assert [dataset.read("text", dataset.item_index(item_id)) for item_id in "abc"] == ["007", "1984-01-01", "3.0"]


def test_without_time_or_position_histories_are_sets(config, tmp_path):
    write_events(tmp_path, [("u", "c"), ("u", "a"), ("u", "c")], ("user_id", "item_id"))
    sequences = Dataset.open(ingest(config)).sequences
    assert (sequences.order, sequences.timestamps) == ("none", None)
    assert histories(config.out) == {"u": ["c", "a"]}


@pytest.mark.parametrize("stamp", ["1600000000", "1600000000.7", "1600000000123", "2020-09-13 12:26:40", "2020-09-13"])
def test_times_of_any_unit_become_seconds(config, tmp_path, stamp):
    (tmp_path / "events.csv").write_text(f"user_id,item_id,timestamp\nu,a,{stamp}\n")
    expected = 1_599_955_200 if stamp == "2020-09-13" else 1_600_000_000
    assert Dataset.open(ingest(config)).sequences.timestamps.tolist() == [expected]


def test_a_split_of_ones_own_is_kept(config, tmp_path):
    rows = [("u", "a", 1, "train"), ("u", "b", 2, "test"), ("v", "c", 3, "valid")]
    write_events(tmp_path, rows, ("user_id", "item_id", "timestamp", "split"))
    assert Dataset.open(ingest(config)).sequences.split.tolist() == [0, 2, 1]


def test_ratings_under_the_wanted_one_are_left_out_and_counted(config, tmp_path):
    rows = [("u", "a", 1, 5.0), ("u", "b", 2, 2.0), ("v", "c", 3, 4.0)]
    write_events(tmp_path, rows, ("user_id", "item_id", "timestamp", "rating"))
    out = ingest(replace(config, min_rating=4.0))
    assert histories(out) == {"u": ["a"], "v": ["c"]}
    assert json.loads((out / "manifest.json").read_text())["interactions"]["left_out"] == {"under_min_rating": 1}


def test_half_precision_vectors_stay_half_and_rows_of_nan_are_absent(config, tmp_path):
    vectors = np.array([[1, 2], [np.nan, np.nan], [3, 4]], dtype=np.float16)
    np.save(tmp_path / "v.npy", vectors)
    dataset = Dataset.open(ingest(replace(config, features=(f"v={tmp_path / 'v.npy'}",))))
    assert dataset.features("v").dtype == np.float16
    assert dataset.read("v", dataset.item_index("c")).tolist() == [3, 4]
    assert not dataset.present("v")[dataset.item_index("b")]
    assert pl.read_parquet(dataset.path / "errors.parquet").height == 0


def test_the_command_line_takes_columns_with_commas_or_spaces(tmp_path):
    import tyro

    common = ["--items", "i.csv", "--interactions", "e.csv", "--out", str(tmp_path)]
    for given in (["title,description"], ["title", "description"]):
        options = [*common, "--text-columns", *given, "--features", "a=a.npy", "b=b.npy", "--min-rating", "4"]
        config = tyro.cli(IngestConfig, args=options)
        assert config.content()["text_columns"] == ("title", "description")
        assert (config.features, config.min_rating) == (("a=a.npy", "b=b.npy"), 4.0)


def test_attributes_are_kept(tiny_dataset):
    assert set(tiny_dataset.attributes["category"]) == {"red", "green", "blue", "grey"}


def test_a_setting_out_of_range_is_an_error(config):
    for name in ("shard_size_mb", "num_workers"):
        with pytest.raises(ConfigError, match=f"{name} is 0"):
            replace(config, **{name: 0})


def test_interactions_alone_are_a_dataset_of_ids(config):
    path = ingest(replace(config, items=None))
    dataset = Dataset.open(path)
    assert sorted(dataset.item_ids) == ["a", "b", "c"]
    assert dataset.modalities == ()
    assert histories(path) == {"u": ["a", "b"], "v": ["c"]}
    assert pl.read_parquet(path / "errors.parquet").is_empty(), "nobody has promised media"


def test_vectors_without_an_item_table_belong_to_nothing(config):
    with pytest.raises(ConfigError, match="--features need --items"):
        ingest(replace(config, items=None, features=("vec=vec.npy",)))
