"""Settings follow from the size and density of the data by the rules that presets.py states."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmrec.cli import main
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import ConfigError
from mmrec.modality_encoders import FOUNDATION_ENCODERS
from mmrec.training import preset


def dataset(folder: Path, histories: list[int], num_items: int, features: bool = False) -> Path:
    """Histories of the given lengths over items with texts."""
    generator = np.random.default_rng(0)
    ids = [f"i{n}" for n in range(num_items)]
    pl.DataFrame({"item_id": ids, "text": [f"thing {n}" for n in range(num_items)]}).write_csv(folder / "items.csv")
    rows = [
        {"user_id": user, "item_id": ids[item], "position": place}
        for user, length in enumerate(histories)
        for place, item in enumerate(generator.choice(num_items, size=length, replace=length > num_items))
    ]
    pl.DataFrame(rows).write_csv(folder / "interactions.csv")
    settings = {}
    if features:
        np.save(folder / "vec.npy", generator.standard_normal((num_items, 4)).astype(np.float32))
        settings["features"] = (f"vec={folder / 'vec.npy'}",)
    tables = {"items": folder / "items.csv", "interactions": folder / "interactions.csv"}
    return ingest(IngestConfig(**tables, **settings, out=folder / "dataset", num_workers=1))


def test_many_short_histories(tmp_path):
    config = preset("id", dataset(tmp_path, [6] * 2000, 100))
    assert config.batch_size == 64  # 2000 / 30, a power of two
    assert config.model.item_encoder.dim == 64
    assert config.model.user_encoder.max_length == 20
    assert config.model.next_item.num_negatives >= 100, "the full softmax"
    assert config.rest_epochs == 0


def test_long_histories_make_smaller_batches_and_the_softmax_has_a_bound(tmp_path):
    config = preset("id", dataset(tmp_path, [150] * 2000, 3000))
    assert config.model.user_encoder.max_length == 150
    assert config.batch_size == 32  # 4,096 events
    assert config.model.next_item.num_negatives == 1700  # x 32 histories x 147 targets: 8 million logits
    assert config.model.user_encoder.dropout == 0.3  # about 100 events an item, and a little less without the last two


def test_towers_rest_longer_where_epochs_are_short(tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    small = preset("content", dataset(tmp_path / "small", [5] * 200, 50))
    large = preset("content", dataset(tmp_path / "large", [5] * 9000, 50))
    assert (small.rest_epochs, small.tower_epochs) == (50, 10)
    assert (large.rest_epochs, large.tower_epochs) == (42, 2)  # 9,000 windows in steps of 256, and of 128


def test_ready_made_vectors_want_a_width_of_128(tmp_path):
    config = preset("features", dataset(tmp_path, [5] * 50, 20, features=True))
    assert list(config.model.item_encoder.encoders) == ["vec", "item_id"]
    assert config.model.item_encoder.dim == 128


def test_histories_without_a_next_item_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"no user of .* has two training events .*; ingest longer histories"):
        preset("id", dataset(tmp_path, [3] * 20, 10))


def test_frozen_foundation_encoders_count_as_ready_made_vectors(tiny_dataset_path):
    encoders = {
        modality: config(
            encoder="timm:test_vit@random" if modality in ("image", "video") else "transformers:bert@random"
        )
        for modality, config in FOUNDATION_ENCODERS.items()
    }
    frozen = preset("content", tiny_dataset_path, encoders=encoders)
    assert frozen.rest_epochs == 0, "there is no tower to wake"
    assert frozen.model.item_encoder.dim == 128
    learning = encoders | {"image": dataclasses.replace(encoders["image"], tune="top:1")}
    assert preset("content", tiny_dataset_path, encoders=learning).rest_epochs > 0
    with pytest.raises(ConfigError, match="an encoder of image is given, but preset 'id'"):
        preset("id", tiny_dataset_path, encoders=encoders)


def test_how_an_encoder_is_tuned_is_said_with_its_name(tiny_dataset_path, tmp_path, capsys):
    assert main(["train", "content", "--data", str(tiny_dataset_path), "--text-tune", "all"]) == 2
    assert "give --text-encoder too" in capsys.readouterr().err
    given = ["--text-encoder", "transformers:brt@random", "--out", str(tmp_path / "run")]
    assert main(["train", "content", "--data", str(tiny_dataset_path), *given]) == 2
    assert "perhaps you meant 'bert'" in capsys.readouterr().err


def test_presets_that_do_not_fit_the_data_say_so(tmp_path):
    path = dataset(tmp_path, [5] * 40, 20)
    with pytest.raises(ConfigError, match=r"preset 'features' needs ready-made vectors, of which .* has none"):
        preset("features", path)
    with pytest.raises(ConfigError, match=r"unknown preset 'contents'.*perhaps you meant 'content'"):
        preset("contents", path)
