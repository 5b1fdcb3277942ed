"""The MovieLens pipeline on a pack of three films made here, and on the real pack where it is."""

from __future__ import annotations

import subprocess
import sys

import polars as pl
import pytest

from data_pipelines.movielens import MovieLensConfig, convert
from mmrec.data.dataset import Dataset, verify_dataset
from mmrec.errors import DataError


@pytest.fixture
def pack(tmp_path, tiny_source):
    source = tmp_path / "pack"
    (source / "media").mkdir(parents=True)
    (source / "media" / "1.jpg").write_bytes((tiny_source / "media" / "00.jpg").read_bytes())
    films = {
        "item_id": [1, 2, 3],
        "title": ["Toy Story (1995)", "Jumanji (1995)", "Heat (1995)"],
        "year": [1995, 1995, 1995],
        "genres": ["Animation|Comedy", "(no genres listed)", "Crime"],
        "description": ["Toys live.", None, None],
        "user_tags": ["pixar|toys", None, None],
        "image_path": ["media/1.jpg", None, None],
        "audio_path": pl.Series([None] * 3, dtype=pl.String),
        "video_path": pl.Series([None] * 3, dtype=pl.String),
        "imdb_id": [114709, 113497, None],
        "n_ratings": [514, 185, 9],
    }
    pl.DataFrame(films).write_parquet(source / "items.parquet")
    ratings = {"user_id": [7, 7, 8], "item_id": [2, 1, 3], "rating": [4.0, 2.5, 5.0], "timestamp": [20, 10, 30]}
    pl.DataFrame(ratings).write_parquet(source / "interactions.parquet")
    return source


def test_columns_are_mapped_and_what_leaks_the_target_is_left_out(pack, tmp_path):
    dataset = Dataset.open(convert(MovieLensConfig(source=pack, out=tmp_path / "out")))
    first = dataset.item_index("1")
    assert dataset.read("text", first) == "Toy Story (1995)\nAnimation, Comedy\nToys live.\npixar, toys"
    assert dataset.read("image", first) == (pack / "media" / "1.jpg").read_bytes()
    assert dataset.read("text", dataset.item_index("2")) == "Jumanji (1995)"
    assert dataset.titles[first] == "Toy Story (1995)"
    assert dataset.attributes["year"][first] == 1995
    assert "n_ratings" not in dataset.attributes.columns
    assert "research use only" in dataset.manifest["licence"]


def test_all_ratings_count_unless_a_minimum_is_given(pack, tmp_path):
    everything = Dataset.open(convert(MovieLensConfig(source=pack, out=tmp_path / "all")))
    assert [everything.item_ids[i] for i in everything.sequences.items_of(0)] == ["1", "2"]
    liked = Dataset.open(convert(MovieLensConfig(source=pack, out=tmp_path / "liked", min_rating=4.0)))
    assert [liked.item_ids[i] for i in liked.sequences.items_of(0)] == ["2"]


def test_tags_can_be_left_out(pack, tmp_path):
    dataset = Dataset.open(convert(MovieLensConfig(source=pack, out=tmp_path / "out", user_tags=False)))
    assert "pixar" not in dataset.read("text", dataset.item_index("1"))
    assert "user_tags" not in dataset.attributes.columns


def test_a_folder_that_is_not_the_pack_is_an_error(pack, tmp_path):
    with pytest.raises(DataError, match="no file"):
        convert(MovieLensConfig(source=tmp_path, out=tmp_path / "out"))
    pl.DataFrame({"item_id": [1]}).write_parquet(pack / "items.parquet")
    with pytest.raises(DataError, match=r"items.parquet has no column 'title', .* \(it has item_id\)"):
        convert(MovieLensConfig(source=pack, out=tmp_path / "out"))


def test_the_command_prints_the_folder_and_errors_are_one_line(pack, tmp_path):
    command = [sys.executable, "-m", "data_pipelines.movielens", "--source", str(pack), "--out", str(tmp_path / "out")]
    first = subprocess.run(command, capture_output=True, text=True)
    assert (first.returncode, first.stdout.strip()) == (0, str(tmp_path / "out"))
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "exists" in again.stderr


@pytest.mark.slow
def test_the_real_pack_becomes_a_dataset(shared_data, tmp_path):
    out = convert(MovieLensConfig(source=shared_data / "movielens_mm", out=tmp_path / "out"))
    assert verify_dataset(out) == []
    dataset = Dataset.open(out)
    assert (dataset.num_items, dataset.num_users, len(dataset.sequences.item_idx)) == (13_049, 2_149, 206_584)
    present = {modality: int(dataset.present(modality).sum()) for modality in dataset.modalities}
    assert present == {"image": 5_724, "text": 13_049, "audio": 107, "video": 25}
    errors = pl.read_parquet(out / "errors.parquet").select("item_id", "modality", "error").rows()
    partial = {("79132", "video"), ("1950", "audio"), ("202439", "video")}
    assert {row[:2] for row in errors} == partial
    assert {row[2] for row in errors} == {"PartialMedia"}
