"""`mmrec check` on real data: what is known of it is found, and nothing else is called wrong."""

from __future__ import annotations

import pytest

from mmrec.data.audit import near_duplicate_lines, near_duplicates, problems, suspicions
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest


def test_amazon_scientific_is_whole_and_only_some_of_its_texts_are_equal(shared_data, tmp_path):
    pack = shared_data / "amazon_scientific"
    tables = {name: pack / f"{name}.parquet" for name in ("items", "interactions")}
    features = tuple(f"{name}={pack / name}.npy" for name in ("clip_image", "clip_text"))
    dataset = Dataset.open(ingest(IngestConfig(**tables, features=features, out=tmp_path / "out")))
    assert problems(dataset.path) == []
    (line,) = suspicions(dataset)
    assert line.startswith("20 items share their text with another, byte for byte (10 different ones")
    (found,) = near_duplicates(dataset)
    assert [[dataset.item_ids[item] for item in group] for group in found.groups] == [["B00MV7T3TO", "B018F5878I"]]


@pytest.mark.slow
def test_movielens_leaks_its_counts_of_ratings_and_has_one_poster_twice(shared_data, tmp_path):
    pack = shared_data / "movielens_mm"
    tables = {name: pack / f"{name}.parquet" for name in ("items", "interactions")}
    columns = {f"{modality}_column": f"{modality}_path" for modality in ("image", "audio", "video")}
    texts = ("title", "description", "user_tags")
    config = IngestConfig(**tables, **columns, text_columns=texts, media_root=pack, out=tmp_path / "out")
    dataset = Dataset.open(ingest(config))
    assert problems(dataset.path) == []
    ties, ordered, counts, posters, plots = suspicions(dataset)
    assert ties.startswith("16.8% of neighbouring events have the same time")
    assert ordered.startswith("where times tie, item ids ascend in 100% of the pairs")
    assert counts.startswith("column 'n_ratings' follows the number of an item's test events (rank correlation 0.33")
    assert posters.startswith("2 items share their image")
    assert plots.startswith("2 items share their text")
    (line,) = [line for found in near_duplicates(dataset) for line in near_duplicate_lines(dataset, found)]
    assert line.startswith("2 items have nearly the image of another (in one group of up to 2: 89840 = 561)")
