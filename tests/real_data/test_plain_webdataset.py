"""What a dataset folder promises to strangers: the `webdataset` package alone reads all of it, and `check` is clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.movielens import MovieLensConfig, convert
from mmrec.data.audit import problems
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.data.manifest import MEDIA_MODALITIES
from mmrec.data.synthetic import make_world


def movielens(shared_data: Path, root: Path) -> Path:
    return convert(MovieLensConfig(source=shared_data / "movielens_mm", out=root / "out", shard_size_mb=16))


def demo_world(shared_data: Path, root: Path) -> Path:
    make_world(root / "world")
    tables = {"items": root / "world" / "items.csv", "interactions": root / "world" / "interactions.csv"}
    return ingest(IngestConfig(**tables, text_columns=("title", "description"), shard_size_mb=4, out=root / "out"))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "num_shards"), [(movielens, 6), (demo_world, 3)])
def test_plain_webdataset_gives_what_the_dataset_gives_and_check_is_clean(shared_data, tmp_path, make, num_shards):
    import webdataset

    out = make(shared_data, tmp_path)
    assert problems(out) == []
    dataset = Dataset.open(out)
    shards = sorted(str(path) for path in (out / "media").glob("*.tar"))
    assert len(shards) >= num_shards
    item_of = {key: item for item, key in enumerate(dataset.attributes["media_key"].to_list())}
    seen: dict[str, set[int]] = {name: set() for name in MEDIA_MODALITIES}
    keys = []
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=True):
        keys.append(int(sample["__key__"]))
        for name, data in sample.items():
            modality = name.split(".")[0]
            if modality in MEDIA_MODALITIES:
                found = dataset.read(modality, item_of[keys[-1]])
                assert data == (found.encode() if isinstance(found, str) else found)
                seen[modality].add(item_of[keys[-1]])
    assert len(keys) == len(set(keys))
    for modality in MEDIA_MODALITIES:
        places = {dataset.location(modality, item) for item in range(dataset.num_items)} - {None}
        assert {dataset.location(modality, item) for item in seen[modality]} == places, "each member once, and all"
