"""Each kind of bad input gives one clear line, or a row of errors.parquet; nothing is dropped in silence."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mmrec.data.audit import problems
from mmrec.data.dataset import Dataset, verify_dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import ConfigError, DataError, MediaError


@pytest.fixture
def config(tmp_path) -> IngestConfig:
    (tmp_path / "items.csv").write_text("item_id,text\na,A\nb,B\nc,C\n")
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nv,c,3\n")
    return IngestConfig(items=tmp_path / "items.csv", interactions=tmp_path / "events.csv", out=tmp_path / "out")


def fails(config: IngestConfig, words: str) -> None:
    """One line with ``words``, and nothing left behind."""
    with pytest.raises((DataError, ConfigError), match=words) as caught:
        ingest(config)
    assert "\n" not in str(caught.value)
    assert not list(config.out.parent.glob("out*"))


def errors(out: Path) -> list[tuple[str, str, str]]:
    table = pl.read_parquet(out / "errors.parquet")
    assert table.columns == ["item_id", "modality", "stage", "error", "message"]
    assert not table["message"].str.contains("\n").any()
    return table.select("item_id", "modality", "error").rows()


# Tables


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_a_missing_column_of_the_interactions_names_the_nearest(config, column):
    config.interactions.write_text("user_id,item_id,timestamp\nu,a,1\n".replace(column, column.replace("_", "")))
    fails(config, f"unknown column '{column}'; perhaps you meant '{column.replace('_', '')}'")


def test_a_missing_column_of_the_items_names_the_nearest(config):
    config.items.write_text("itemid,text\na,A\n")
    fails(config, "unknown column 'item_id'; perhaps you meant 'itemid'")


def test_a_named_text_or_media_column_must_exist(config):
    fails(replace(config, text_columns=("title",)), "unknown column 'title'")
    fails(replace(config, image_column="picture"), "unknown column 'picture'")


def test_an_unknown_item_in_the_interactions_is_an_error_with_count_and_example(config):
    config.interactions.write_text("user_id,item_id,timestamp\nu,a,1\nu,ghost,2\nv,ghost,3\n")
    fails(config, r"2 events name 1 items not in the item table, for example 'ghost'.*--unknown-items drop")


def test_unknown_items_are_dropped_on_demand_and_recorded(config):
    config.interactions.write_text("user_id,item_id,timestamp\nu,a,1\nu,ghost,2\nv,ghost,3\n")
    out = ingest(replace(config, unknown_items="drop"))
    assert errors(out) == [("ghost", "interactions", "UnknownItem")] * 2
    assert json.loads((out / "manifest.json").read_text())["interactions"]["left_out"] == {"UnknownItem": 2}


def test_a_duplicate_item_id_is_an_error_with_an_example(config):
    config.items.write_text("item_id,text\na,A\nb,B\na,again\n")
    fails(config, "lists 1 item ids more than once, for example 'a'")


def test_an_item_without_id_is_an_error(config):
    config.items.write_text('item_id,text\na,A\n"",B\n')
    fails(config, "1 rows without an item_id")


@pytest.mark.parametrize(("name", "words"), [("items", "item_id,text\n"), ("interactions", "user_id,item_id\n")])
def test_an_empty_table_is_an_error(config, name, words):
    getattr(config, name).write_text(words)
    fails(config, "has no rows")
    getattr(config, name).write_text("")
    fails(config, "is empty")


def test_a_table_that_is_not_what_its_name_says_is_an_error(config, tmp_path):
    (tmp_path / "items.parquet").write_text("item_id,text\na,A\n")
    fails(replace(config, items=tmp_path / "items.parquet"), r"items.parquet cannot be read: .*")
    (tmp_path / "items.xlsx").write_bytes(b"PK\x03\x04")
    fails(replace(config, items=tmp_path / "items.xlsx"), "tables are .parquet, .csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 10)
    fails(replace(config, items=tmp_path / "binary.csv"), "binary.csv")
    fails(replace(config, items=tmp_path / "nowhere.csv"), "no file")


def test_ids_of_a_fractional_type_are_an_error(config, tmp_path):
    pl.DataFrame({"item_id": [1.0, 2.0], "text": ["A", "B"]}).write_parquet(tmp_path / "items.parquet")
    fails(replace(config, items=tmp_path / "items.parquet"), "ids are strings or whole numbers")


def test_a_column_that_mmrec_needs_is_an_error(config):
    config.items.write_text("item_id,item_idx\na,0\n")
    fails(config, "'item_idx', a name that mmrec needs")


@pytest.mark.parametrize("name", ["media_key", "image.shard"])
def test_a_name_that_mmrec_needs_is_an_error_and_leaves_nothing(config, name):
    config.items.write_text(f"item_id,{name}\na,0\n")
    fails(config, f"has a column '{name}', a name that mmrec needs for itself; rename it")


@pytest.mark.parametrize("table", ["items", "interactions"])
def test_a_column_that_comes_twice_is_an_error(config, table):
    getattr(config, table).write_text("item_id,user_id,item_id,timestamp\na,u,b,1\n")
    fails(config, "has the column 'item_id' twice; rename one of them or leave it out")


def test_a_column_cannot_be_two_things_at_once(config):
    with pytest.raises(ConfigError, match="column 'text' is to be both text and image; name another one"):
        replace(config, image_column="text")
    with pytest.raises(ConfigError, match="column 'clip' is to be both audio and video"):
        replace(config, audio_column="clip", video_column="clip")
    with pytest.raises(ConfigError, match="column 'item_id' is to be both the id and text"):
        replace(config, text_columns=("item_id",))


# Ids


@pytest.mark.parametrize("table", ["items", "interactions"])
@pytest.mark.parametrize(("wrong", "what"), [("a\0", "with a zero byte"), ("x" * 1025, "longer than 1,024 bytes")])
def test_an_id_with_a_zero_byte_or_of_more_than_1024_bytes_is_an_error(config, tmp_path, table, wrong, what):
    good = {"user_id": "u", "item_id": "a", "timestamp": 1}
    pl.DataFrame([good, good | {"item_id": wrong}]).write_parquet(tmp_path / "table.parquet")
    fails(replace(config, **{table: tmp_path / "table.parquet"}), f"column 'item_id' holds 1 ids {what}, for example")


def test_a_user_id_of_more_than_1024_bytes_is_an_error(config):
    config.interactions.write_text(f"user_id,item_id,timestamp\n{'ü' * 513},a,1\n")
    fails(config, "column 'user_id' holds 1 ids longer than 1,024 bytes")


def test_an_id_of_blanks_is_none(config):
    config.items.write_text("item_id,text\na,A\n  ,B\n")
    fails(config, "1 rows without an item_id")
    config.items.write_text("item_id,text\na,A\nb,B\n")
    config.interactions.write_text('user_id,item_id,timestamp\nu,a,1\n" ",a,2\nu," ",3\n')
    out = ingest(config)
    assert errors(out)[-2:] == [("a", "interactions", "MissingId"), ("", "interactions", "MissingId")]
    assert problems(out) == []


def test_one_long_id_costs_its_own_bytes_and_not_those_of_all(tmp_path):
    ids = ["x" * 1024, *(f"i{n}" for n in range(20_000))]
    events = {"user_id": ["y" * 1024, *(f"u{n}" for n in range(20_000))], "item_id": ids, "timestamp": 1}
    pl.DataFrame(events).write_parquet(tmp_path / "events.parquet")
    dataset = Dataset.open(ingest(IngestConfig(interactions=tmp_path / "events.parquet", out=tmp_path / "out")))
    for strings in (dataset.item_ids, dataset.sequences.user_ids):
        assert len(strings) == 20_001
        assert strings.nbytes < 20_001 * 32  # as a matrix of letters: 82 MB


# Texts


def test_a_text_or_attribute_of_more_than_a_megabyte_is_blanked_everywhere_and_recorded(config, tmp_path):
    huge = "word " * 600_000
    table = {
        "item_id": ["a", "b", "c"],
        "title": [huge, "B", "C"],
        "text": ["x" * 600_000, "y" * 600_000, "z" * 1_048_574],
        "brand": ["A", huge, "C"],
        "tags": [["t"], ["t"], [huge, huge]],
    }
    pl.DataFrame(table).write_parquet(tmp_path / "items.parquet")
    given = replace(config, items=tmp_path / "items.parquet", text_columns=("title", "text"))
    dataset = Dataset.open(ingest(given))
    assert sorted(errors(dataset.path)) == [
        ("a", "all", "NoModality"),
        ("a", "text", "TooLong"),
        ("b", "attributes", "TooLong"),
        ("c", "attributes", "TooLong"),
    ]
    a, b, c = (dataset.item_index(item) for item in "abc")
    assert dataset.titles[a] == "a"
    assert dataset.attributes["text"][a] is None
    assert dataset.read("text", b) == "B\n" + "y" * 600_000
    assert len(dataset.read("text", c)) == 1_048_576
    assert dataset.attributes["brand"].to_list()[b] is None
    assert dataset.attributes["tags"].to_list()[c] is None
    assert sum(path.stat().st_size for path in dataset.path.rglob("*.parquet")) < 100_000
    assert problems(dataset.path) == []


# Times, ratings, weights


def times(config: IngestConfig, values: pl.Series) -> IngestConfig:
    table = pl.DataFrame({"user_id": "u", "item_id": ["a", "b", "c"][: len(values)], "timestamp": values})
    table.write_parquet(config.out.parent / "events.parquet")
    return replace(config, interactions=config.out.parent / "events.parquet")


@pytest.mark.parametrize(
    "values",
    [pl.Series([1, 2**63 + 5], dtype=pl.UInt64), pl.Series([1.0, 1e30]), pl.Series([1.0, -1e30])],
)
def test_a_time_beyond_all_times_is_an_error(config, values):
    fails(times(config, values), r"column 'timestamp' holds -?(1e\+30|9.22337e\+18), which is none; give seconds since")


def test_decimal_times_are_times(config):
    values = pl.Series(["1600000000.25", "1600000000.75"]).cast(pl.Decimal(20, 2))
    assert Dataset.open(ingest(times(config, values))).sequences.timestamps.tolist() == [1_600_000_000] * 2


def test_milliseconds_among_seconds_are_an_error(config):
    values = pl.Series([1_600_000_000, 1_600_000_000_123, 1_600_000_001])
    fails(times(config, values), r"mixes units: 1600000000123 would be ms, 1600000000 s; give all times in one unit")
    fails(times(config, values.cast(pl.Float64)), "mixes units")


def test_a_time_of_zero_is_one_moment_in_any_unit(config):
    values = pl.Series([0, 1_600_000_000_123])
    assert Dataset.open(ingest(times(config, values))).sequences.timestamps.tolist() == [0, 1_600_000_000]


@pytest.mark.parametrize("moment", ["--5", "²", "", "1e9", "99999999999999", "2024-13-01"])
def test_a_moment_that_is_none_is_an_error(config, moment):
    with pytest.raises(ConfigError, match=r"since is .*; give a date such as 2024-05-31, or seconds since 1970"):
        replace(config, since=moment)


def test_events_without_user_item_or_time_are_recorded(config):
    config.interactions.write_text("user_id,item_id,timestamp\nu,a,1\n,a,2\nu,,3\nu,b,\n")
    out = ingest(config)
    kinds = [
        ("a", "interactions", "MissingId"),
        ("", "interactions", "MissingId"),
        ("b", "interactions", "MissingTime"),
    ]
    assert errors(out)[-3:] == kinds


def test_a_nan_timestamp_is_recorded(config, tmp_path):
    table = {"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1.0, float("nan")]}
    pl.DataFrame(table).write_parquet(tmp_path / "events.parquet")
    out = ingest(replace(config, interactions=tmp_path / "events.parquet"))
    assert errors(out) == [("b", "interactions", "MissingTime")]


def test_a_repeated_event_is_recorded_and_a_later_visit_is_not_one(config):
    config.interactions.write_text("user_id,item_id,timestamp\nu,a,1\nu,a,1\nu,a,2\n")
    out = ingest(config)
    assert errors(out) == [("a", "interactions", "RepeatedEvent")]
    assert Dataset.open(out).sequences.lengths.tolist() == [2]


def test_times_in_words_are_an_error(config):
    config.interactions.write_text("user_id,item_id,timestamp\nu,a,yesterday\n")
    fails(config, "'timestamp' is of type String; it must be seconds since 1970 or a date")


def test_a_minimal_rating_without_ratings_is_an_error(config):
    fails(replace(config, min_rating=4.0), "no column 'rating'")


def test_no_event_left_is_an_error_that_says_why(config):
    config.interactions.write_text("user_id,item_id,timestamp,rating\nu,a,1,2\n")
    fails(replace(config, min_rating=4.0), r"no event is left of 1 \(under_min_rating: 1\)")


def test_an_unknown_split_is_an_error(config):
    config.interactions.write_text("user_id,item_id,timestamp,split\nu,a,1,trian\n")
    fails(config, "unknown split 'trian'; perhaps you meant 'train'")


def test_a_user_with_one_event_is_kept(config):
    config.interactions.write_text("user_id,item_id,timestamp\nu,a,1\nv,b,2\nv,c,3\n")
    out = ingest(config)
    assert errors(out) == []
    assert Dataset.open(out).sequences.lengths.tolist() == [1, 2]


# Vectors


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (np.zeros((2, 4), np.float32), "has 2 rows, the item table 3"),
        (np.zeros(3, np.float32), r"must be floats of shape \(items, dim\)"),
        (np.zeros((3, 4), np.int64), "must be floats"),
    ],
)
def test_vectors_of_a_wrong_shape_or_type_are_an_error(config, tmp_path, vectors, words):
    np.save(tmp_path / "v.npy", vectors)
    fails(replace(config, features=(f"v={tmp_path / 'v.npy'}",)), words)


def test_vectors_that_cannot_be_read_are_an_error(config, tmp_path):
    np.save(tmp_path / "whole.npy", np.ones((3, 4), np.float32))
    whole = (tmp_path / "whole.npy").read_bytes()
    torn = whole.replace(b"(3, 4)", b"(3, 4("), whole.replace(b"'descr'", b"1;descr"), whole[:140], b"no array"
    for data in torn:
        (tmp_path / "v.npy").write_bytes(data)
        fails(replace(config, features=(f"v={tmp_path / 'v.npy'}",)), r"cannot be read as .npy|is cut off or damaged")
    fails(replace(config, features=(f"v={tmp_path / 'nowhere.npy'}",)), "no file")


@pytest.mark.parametrize("option", ["v", "=v.npy", "v=", "Vec=v.npy", "image=v.npy", "item_id=v.npy"])
def test_a_malformed_feature_option_is_an_error(config, option):
    fails(replace(config, features=(option,)), "--features was given")


def test_vectors_of_zeros_or_with_infinities_are_recorded_and_absent(config, tmp_path):
    """The square of 1e30 is no float32: a vector of it has no length that a network could divide by."""
    for odd in (np.inf, np.nan, -1e30):
        np.save(tmp_path / "v.npy", np.array([[0, 0], [1, odd], [1, 2]], dtype=np.float32))
        dataset = Dataset.open(ingest(replace(config, features=(f"v={tmp_path / 'v.npy'}",), overwrite=True)))
        assert sorted(errors(dataset.path)) == [("a", "v", "ZeroVector"), ("b", "v", "NotFinite")]
        assert dataset.present("v").sum() == 1


# Media


def test_each_unusable_medium_is_a_row_and_the_item_stays(config, tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "good.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "one_pixel.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    (tmp_path / "renamed.jpg").write_bytes((tmp_path / "good.png").read_bytes())
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")  # a plain open() would wait for a writer for ever
    names = ["good.png", "one_pixel.png", "empty.jpg", "page.jpg", "cut.png", "renamed.jpg", "folder.jpg", "pipe.jpg"]
    names.append("nowhere.jpg")
    pl.DataFrame({"item_id": names, "text": "x", "image": names}).write_csv(config.items)
    config.interactions.write_text("user_id,item_id,timestamp\nu,good.png,1\n")
    dataset = Dataset.open(ingest(config))
    assert dataset.num_items == 9
    usable = {item_id for item_id, present in zip(dataset.item_ids, dataset.present("image"), strict=True) if present}
    assert usable == {"good.png", "renamed.jpg"}
    kinds = {item_id: error for item_id, modality, error in errors(dataset.path) if modality == "image"}
    assert kinds.pop("renamed.jpg") == "MislabelledMedia"
    assert kinds == dict.fromkeys(set(names) - usable, "MediaError")
    renamed = dataset.item_index("renamed.jpg")
    assert dataset.attributes["image.ext"][renamed] == "png"


def test_a_picture_of_20000_by_20000_is_a_row(config, tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    pl.DataFrame({"item_id": ["a"], "text": ["x"], "image": ["huge.png"]}).write_csv(config.items)
    config.interactions.write_text("user_id,item_id,timestamp\nu,a,1\n")
    out = ingest(config)
    assert errors(out) == [("a", "image", "MediaError")]
    assert "too large" in pl.read_parquet(out / "errors.parquet")["message"][0]


def test_silent_audio_and_a_video_without_frames_are_rows(config, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 8000)
    shutil.copy(tmp_path / "silence.wav", tmp_path / "no_frames.mp4")
    row = {"item_id": ["a"], "text": ["x"], "audio": ["silence.wav"], "video": ["no_frames.mp4"]}
    pl.DataFrame(row).write_csv(config.items)
    config.interactions.write_text("user_id,item_id,timestamp\nu,a,1\n")
    out = ingest(config)
    assert errors(out) == [("a", "audio", "MediaError"), ("a", "video", "MediaError")]
    messages = pl.read_parquet(out / "errors.parquet")["message"]
    assert "silent" in messages[0]
    assert "no video stream" in messages[1]


def test_an_item_with_no_modality_at_all_stays_and_is_recorded(tiny_dataset):
    assert errors(tiny_dataset.path) == [("i02", "image", "MediaError"), ("i23", "all", "NoModality")]
    assert tiny_dataset.item_index("i23") in range(24)


def test_a_missing_media_root_is_an_error(config, tmp_path):
    fails(replace(config, media_root=tmp_path / "nowhere"), "no folder .*nowhere.*--media-root")


# Dataset folders


@pytest.fixture
def dataset_copy(tiny_dataset_path, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_dataset_path, tmp_path / "copy"))


def test_a_sound_folder_has_no_problems(dataset_copy):
    assert verify_dataset(dataset_copy) == []


def test_a_flipped_byte_in_a_shard_is_found_when_read_and_when_verified(dataset_copy, tiny_dataset):
    idx = int(np.flatnonzero(tiny_dataset.present("image"))[0])
    shard = dataset_copy / "media" / "shard-00000.tar"
    data = bytearray(shard.read_bytes())
    data[tiny_dataset.attributes["image.offset"][idx] + 10] ^= 1
    shard.write_bytes(data)
    dataset = Dataset.open(dataset_copy)
    with pytest.raises(MediaError, match=r"shard-00000.tar is damaged at byte"):
        dataset.read("image", idx)
    assert dataset.read("text", idx) == tiny_dataset.read("text", idx)
    with pytest.raises(DataError, match=r"shard-00000.tar is damaged: its sha256"):
        Dataset.open(dataset_copy, verify=True)
    assert len(verify_dataset(dataset_copy)) == 1


def test_a_shard_that_is_cut_off_or_missing_is_an_error_at_once(dataset_copy):
    shard = dataset_copy / "media" / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"shard-00000.tar is damaged: .* bytes, the manifest says"):
        Dataset.open(dataset_copy)
    shard.unlink()
    with pytest.raises(DataError, match=r"shard-00000.tar is missing"):
        Dataset.open(dataset_copy)


def test_a_manifest_of_another_version_is_an_error_that_names_both(dataset_copy):
    manifest = json.loads((dataset_copy / "manifest.json").read_text())
    (dataset_copy / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(DataError, match="has schema version 99, this mmrec reads version 2"):
        Dataset.open(dataset_copy)
    assert len(verify_dataset(dataset_copy)) == 1


def test_a_damaged_manifest_is_an_error(dataset_copy):
    (dataset_copy / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest.json is damaged"):
        Dataset.open(dataset_copy)
    (dataset_copy / "manifest.json").write_text('{"schema": "something else"}')
    with pytest.raises(DataError, match="does not describe a dataset"):
        Dataset.open(dataset_copy)
    (dataset_copy / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"has no manifest.json"):
        Dataset.open(dataset_copy)
    with pytest.raises(DataError, match="no dataset folder"):
        Dataset.open(dataset_copy / "nowhere")


def test_an_output_folder_that_exists_is_an_error_and_stays_as_it_was(config):
    config.out.mkdir()
    (config.out / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists; give another --out, or --overwrite"):
        ingest(config)
    with pytest.raises(DataError, match="is no dataset folder"):
        ingest(replace(config, overwrite=True))
    assert (config.out / "mine.txt").read_text() == "mine"


def test_an_output_folder_that_cannot_be_made_is_an_error(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        ingest(replace(config, out=tmp_path / "file" / "out"))


def test_overwriting_replaces_a_dataset_only_when_the_new_one_is_complete(config):
    first = Dataset.open(ingest(config)).fingerprint
    config.items.write_text("item_id,text\na,other\nb,B\nc,C\n")
    assert Dataset.open(ingest(replace(config, overwrite=True))).fingerprint != first
    kept = Dataset.open(config.out).fingerprint
    config.items.write_text("item_id,text\n")
    with pytest.raises(DataError, match="has no rows"):
        ingest(replace(config, overwrite=True))
    assert Dataset.open(config.out, verify=True).fingerprint == kept
    assert [path.name for path in config.out.parent.glob("out*")] == ["out"]
