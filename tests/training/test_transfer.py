"""A model goes on with another dataset: what carries over, what is new, and what it knows before training."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mmrec.cli import main
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import ConfigError
from mmrec.inference import encode_catalog
from mmrec.item_inputs import CatalogInputs
from mmrec.model import load_model, weights_of
from mmrec.training import preset
from mmrec.training.assembly import open_split
from mmrec.training.checkpoint import find_checkpoint
from mmrec.training.trainer import Trainer
from mmrec.training.transfer import start_from, without_training

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source(tiny_dataset_path, tmp_path_factory) -> Path:
    """A hybrid run on the tiny dataset."""
    config = preset("hybrid", tiny_dataset_path)
    settings = {"rest_epochs": 1, "max_epochs": 2, "batch_size": 8, "tower_batch_size": 8, "trackers": ()}
    return Trainer(dataclasses.replace(config, out=tmp_path_factory.mktemp("source") / "run", **settings)).fit()


@pytest.fixture(scope="module")
def other(tiny_source, tmp_path_factory) -> Path:
    """Another catalogue: texts and pictures of fewer items, under other ids and in another order, and another log."""
    root = tmp_path_factory.mktemp("other")
    items = pl.read_csv(tiny_source / "items.csv").drop("audio", "video").head(20).reverse()
    renamed = items.with_columns(item_id=pl.format("x{}", "item_id"))
    renamed.write_csv(root / "items.csv")
    events = pl.read_csv(tiny_source / "interactions.csv").with_columns(item_id=pl.format("x{}", "item_id"))
    events.filter(pl.col("item_id").is_in(renamed["item_id"].to_list())).write_csv(root / "interactions.csv")
    return ingest(
        IngestConfig(
            items=root / "items.csv", interactions=root / "interactions.csv", media_root=tiny_source,
            text_columns=("title", "description"), out=root / "dataset", name="other", num_workers=1,
        )
    )  # fmt: skip


def item_vectors(model, dataset: Dataset, ids: list[str]) -> torch.Tensor:
    rows = np.array([dataset.item_index(item) for item in ids])
    return encode_catalog(model, CatalogInputs(dataset, model.inputs), rows)


def test_the_same_content_has_the_same_vector_on_the_other_dataset(source, other, tiny_dataset, tmp_path):
    """By the source's own content encoders and fusion, shown no more than what the other dataset has."""
    dataset, checkpoint = Dataset.open(other), find_checkpoint(source)
    config = start_from(preset("content", other), checkpoint, dataset)
    assert set(config.model.item_encoder.encoders) == {"image", "text"}
    _, split = open_split(config)
    found = item_vectors(without_training(config, dataset, split.train_items), dataset, ["xi01", "xi05", "xi10"])
    own = load_model(checkpoint)
    catalog = CatalogInputs(tiny_dataset, own.inputs)
    rows = np.array([tiny_dataset.item_index(item) for item in ("i01", "i05", "i10")])
    keep = np.zeros((3, len(own.inputs.modalities)), dtype=bool)
    for name in ("image", "text"):
        keep[:, own.inputs.modalities.index(name)] = True
    with torch.inference_mode():
        expected = own.encode_items(catalog.batch(rows, keep))
    # The sum is scaled by the number of modalities, which unit length takes away again; attention sees the same tokens.
    cosine = (found * expected).sum(1)
    assert cosine.min() > 0.98, cosine


@pytest.mark.parametrize("fusion", ["attention", "sum", "mean", "gated", "concat"])
def test_what_a_fusion_holds_for_a_modality_goes_to_the_modalitys_place(tiny_dataset_path, tmp_path, fusion):
    run = Trainer(
        dataclasses.replace(
            preset("hybrid", tiny_dataset_path, fusion=fusion), out=tmp_path / "run", rest_epochs=9, max_epochs=1,
            trackers=(),
        )
    ).fit()  # fmt: skip
    checkpoint, dataset = find_checkpoint(run), Dataset.open(tiny_dataset_path)
    config = start_from(preset("content", tiny_dataset_path), checkpoint, dataset)
    encoders = dict(reversed(config.model.item_encoder.encoders.items()))
    model_config = dataclasses.replace(
        config.model, item_encoder=dataclasses.replace(config.model.item_encoder, encoders=encoders)
    )
    config = dataclasses.replace(config, model=model_config)
    _, split = open_split(config)
    model = without_training(config, dataset, split.train_items)
    stored, source_names = weights_of(checkpoint), list(load_model(checkpoint).config.item_encoder.encoders)
    for name, axis in model.item_encoder.fusion.by_modality.items():
        found = model.item_encoder.fusion.state_dict()[name].chunk(len(encoders), axis)
        expected = stored[f"item_encoder.fusion.{name}"].chunk(len(source_names), axis)
        for place, modality in enumerate(encoders):
            assert torch.equal(found[place], expected[source_names.index(modality)]), (name, modality)


def test_training_goes_on_from_there_with_ids_of_its_own(source, other, tmp_path):
    run = tmp_path / "run"
    command = ["train", "hybrid", "--data", str(other), "--out", str(run), "--start-from", str(source)]
    settings = ["--max-epochs", "1", "--rest-epochs", "9", "--batch-size", "8", "--trackers"]
    assert main([*command, *settings]) == 0
    model = load_model(find_checkpoint(run))
    assert set(model.config.item_encoder.encoders) == {"image", "text", "item_id"}
    assert model.item_encoder.encoders["item_id"].embedding.weight.shape[0] <= 20
    before, after = weights_of(find_checkpoint(source)), weights_of(find_checkpoint(run))
    towers = [name for name in after if ".image.tower." in name]
    assert towers
    assert all(torch.equal(before[name], after[name]) for name in towers), "at rest they stay what they were"
    assert main([*command, *settings[:1], "2", *settings[2:]]) == 0, "the same command goes on"


def test_a_model_without_anything_in_common_is_refused(tiny_dataset_path, other, tmp_path):
    run = Trainer(
        dataclasses.replace(preset("id", tiny_dataset_path), out=tmp_path / "run", max_epochs=1, trackers=())
    ).fit()
    with pytest.raises(ConfigError, match=r"encodes nothing but ids, of which .* has nothing \(it has: image, text\)"):
        start_from(preset("content", other), find_checkpoint(run), Dataset.open(other))


def test_options_that_choose_other_parts_are_refused(source, other, capsys):
    command = ["train", "content", "--data", str(other), "--start-from", str(source), "--fusion", "sum"]
    assert main(command) == 2
    assert "--start-from brings encoders and fusion with it" in capsys.readouterr().err


@pytest.mark.slow
def test_the_study_of_transfer_compares_five_ways(source, other, tmp_path):
    command = [sys.executable, "-m", "eval.transfer", str(source), "--data", str(other), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--max-epochs", "1"], cwd=ROOT, capture_output=True, text=True,
        env={"PATH": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    runs = pl.read_csv(tmp_path / "out" / "runs.csv")
    assert runs.filter(pl.col("targets") == "all targets")["run"].to_list() == [
        "zero-shot", "content, going on", "content, from scratch", "hybrid, going on", "hybrid, from scratch",
    ]  # fmt: skip
    assert pl.read_csv(tmp_path / "out" / "comparisons.csv").height >= 3
