"""What is frozen is encoded once: training from the cache is training from the media; only what is new is encoded."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mmrec.data.dataset import Dataset, verify_dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import DataError
from mmrec.inference import encode_catalog, use_feature_caches
from mmrec.item_inputs import CatalogInputs
from mmrec.modality_encoders import FOUNDATION_ENCODERS
from mmrec.training import preset
from mmrec.training.config import TrainConfig
from mmrec.training.trainer import Trainer
from tests.modality_encoders.tiny_networks import WRITERS

TUNES = {"image": ("timm_vit", "top:1"), "text": ("bert", "top:1"), "audio": ("whisper", "frozen")}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """A picture and a text network whose top block learns, a frozen one of sounds, and frozen frames of clips."""
    root = tmp_path_factory.mktemp("networks")
    short = {"text": {"max_tokens": 16}, "audio": {"duration_s": 1.0}, "video": {"num_frames": 3}}
    made = {}
    for modality, (name, tune) in {**TUNES, "video": ("timm_vit", "frozen")}.items():
        if not (root / name).exists():
            (root / name).mkdir()
            WRITERS[name](root / name)
        config = FOUNDATION_ENCODERS[modality]
        made[modality] = config(encoder=f"path:{root / name}", tune=tune, **short.get(modality, {}))
    return made


@pytest.fixture
def dataset(tiny_dataset_path, tmp_path) -> Path:
    # Other tests may have filled the cache of the dataset that all share.
    return shutil.copytree(tiny_dataset_path, tmp_path / "dataset", ignore=shutil.ignore_patterns("cache"))


def config(dataset: Path, run: Path, encoders, **settings) -> TrainConfig:
    small = {"batch_size": 8, "tower_batch_size": 8, "rest_epochs": 1, "tower_epochs": 2, "patience": 99}
    return dataclasses.replace(preset("hybrid", dataset, encoders=encoders), out=run, **{**small, **settings})


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def parts(dataset: Path) -> dict[str, int]:
    """Files of the cache and when each was written."""
    return {str(path): path.stat().st_mtime_ns for path in (dataset / "features" / "cache").rglob("*.np?")}


def test_training_from_the_cache_equals_training_from_the_media(dataset, tmp_path, encoders):
    Trainer(config(dataset, tmp_path / "media", encoders, feature_cache=False)).fit()
    assert not parts(dataset)
    Trainer(config(dataset, tmp_path / "cached", encoders)).fit()
    assert len({Path(path).parents[1].name for path in parts(dataset)}) == 4, "one folder a modality"
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "media"), abs=1e-5)
    assert not verify_dataset(dataset), "the cache is no part of the dataset"


@pytest.mark.parametrize("epochs", [1, 2], ids=["at rest", "while the top blocks learn"])
def test_a_resumed_run_has_the_losses_of_a_whole_one(dataset, tmp_path, encoders, epochs):
    Trainer(config(dataset, tmp_path / "whole", encoders)).fit()
    Trainer(config(dataset, tmp_path / "parts", encoders, max_epochs=epochs)).fit()
    (tmp_path / "parts" / "finished.json").unlink()
    Trainer(config(dataset, tmp_path / "parts", encoders)).fit()
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_another_run_finds_everything_encoded_whatever_has_been_learnt(dataset, tmp_path, encoders):
    Trainer(config(dataset, tmp_path / "one", encoders)).fit()
    before = parts(dataset)
    trainer = Trainer(config(dataset, tmp_path / "two", encoders, seed=1))
    trainer.fit()
    assert parts(dataset) == before
    model = trainer.recommender
    catalog = CatalogInputs(trainer.dataset, model.inputs)
    from_media = encode_catalog(model, catalog, np.arange(24))
    use_feature_caches(model, catalog, fill=False)
    assert catalog.gives_features("audio")
    torch.testing.assert_close(encode_catalog(model, catalog, np.arange(24)), from_media, atol=1e-5, rtol=0)


def test_an_interrupted_encoding_goes_on_and_only_what_changed_is_encoded_again(tiny_source, tmp_path, encoders):
    def ingested(name: str, source: Path) -> Path:
        return ingest(
            IngestConfig(
                items=source / "items.csv",
                interactions=source / "interactions.csv",
                text_columns=("title", "description"),
                out=tmp_path / name,
                num_workers=1,
            )
        )

    text = {"text": encoders["text"]}
    first = ingested("first", tiny_source)
    trainer = Trainer(config(first, tmp_path / "run", text))
    changed = shutil.copytree(tiny_source, tmp_path / "source")
    items = pl.read_csv(changed / "items.csv")
    items = items.with_columns(
        title=pl.when(pl.col("item_id") == "i03").then(pl.lit("blue")).otherwise(pl.col("title"))
    )
    items.write_csv(changed / "items.csv")
    second = ingested("second", changed)
    shutil.copytree(first / "features" / "cache", second / "features" / "cache")
    before = parts(second)
    Trainer(config(second, tmp_path / "run-2", text))
    (new,) = {Path(path).parent for path in parts(second)} - {Path(path).parent for path in before}
    with np.load(new / "index.npz") as index:
        assert len(index["media"]) == 1, "one text has changed"
    shutil.rmtree(new)
    Trainer(config(second, tmp_path / "run-3", text))
    assert parts(second).keys() > before.keys()
    assert trainer.catalog.present.any()


def test_a_damaged_medium_is_masked_and_not_tried_again(dataset, tmp_path, encoders):
    victim = next(iter(sorted((dataset / "media").glob("*.tar"))))
    where = pl.read_parquet(dataset / "items.parquet").filter(pl.col("image.shard") == 0).row(0, named=True)
    with victim.open("r+b") as shard:
        shard.seek(where["image.offset"] + where["image.size"] // 2)
        shard.write(b"\xff" * 20)
    faults = []
    for run in ("one", "two"):
        trainer = Trainer(config(dataset, tmp_path / run, {"image": encoders["image"]}))
        faults.append(trainer.catalog.faults)
        column = trainer.catalog.inputs.modalities.index("image")
        assert not trainer.catalog.present[where["item_idx"], column]
    assert faults == [1, 0]


def test_a_damaged_cache_says_what_to_remove(dataset, tmp_path, encoders):
    Trainer(config(dataset, tmp_path / "one", encoders))
    broken = next((dataset / "features" / "cache").rglob("index.npz"))
    broken.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"is damaged .*; remove it, it is computed again"):
        Trainer(config(dataset, tmp_path / "two", encoders))


def test_half_precision_is_another_cache_of_half_the_size(dataset, tmp_path, encoders):
    sizes = {}
    for dtype in ("float32", "float16"):
        image = dataclasses.replace(encoders["image"], cache_dtype=dtype)
        shutil.rmtree(dataset / "features" / "cache", ignore_errors=True)
        Trainer(config(dataset, tmp_path / dtype, {"image": image}))
        sizes[dtype] = sum(np.load(path).nbytes for path in (dataset / "features" / "cache").rglob("values.npy"))
    assert sizes["float16"] * 2 == sizes["float32"] > 0


def test_items_of_equal_media_are_kept_once(dataset):
    opened = Dataset.open(dataset)
    hashes = opened.media_hashes("image")[opened.present("image")]
    assert len(np.unique(hashes)) == len(hashes), "else the counts of the other tests would be others"
