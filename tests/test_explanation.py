"""Which modality made a vector: weights that sum to one, and what is different without each modality."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrec import item_inputs
from mmrec.cli import main
from mmrec.explanation import explain, explain_items
from mmrec.export_folder import ExportFolder
from mmrec.fusion import FUSIONS
from mmrec.inference import encode_catalog
from mmrec.training import preset
from mmrec.training.evaluation import open_checkpoint
from mmrec.training.trainer import train

OTHERS = sorted(set(FUSIONS) - {"attention"})


@pytest.fixture(scope="module", params=["attention", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)])
def run(request, tiny_dataset_path, tmp_path_factory) -> Path:
    config = preset("content", tiny_dataset_path, fusion=request.param)
    settings = {"out": tmp_path_factory.mktemp("runs") / request.param, "rest_epochs": 1, "max_epochs": 1}
    return train(dataclasses.replace(config, **settings, learning_rate=1e-2, trackers=()))


@pytest.fixture(scope="module")
def opened(run, tiny_dataset_path):
    _, dataset, model, catalog = open_checkpoint(run, tiny_dataset_path)
    return dataset, model, catalog


def test_shares_are_sums_of_the_tokens_weights_and_make_one(opened):
    _, model, catalog = opened
    found = explain_items(model, catalog, np.arange(24))
    assert found.modalities == model.inputs.modalities
    assert found.present.sum(1).min() < found.present.sum(1).max()
    for item in range(24):
        weights, columns = found.weights[item], found.token_modality[item]
        expected = [weights[columns == column].sum() for column in range(len(found.modalities))]
        np.testing.assert_allclose(found.share[item], expected, atol=1e-6)
        assert found.share[item].sum() == pytest.approx(float(found.present[item].any()), abs=1e-6)
        assert set(columns) == set(np.flatnonzero(found.present[item])), "tokens of what is there alone"
    assert (found.share[~found.present] == 0).all()


def test_left_out_is_the_distance_to_the_vector_of_a_catalogue_without_the_modality(opened):
    _, model, catalog = opened
    found = explain_items(model, catalog, np.arange(24))
    vectors = encode_catalog(model, catalog, np.arange(24))
    for column in range(len(found.modalities)):
        keep = np.ones(catalog.present.shape, dtype=bool)
        keep[:, column] = False
        with torch.inference_mode():
            without = model.encode_items(catalog.batch(np.arange(24), keep))
        expected = np.where(catalog.present[:, column], 1 - (vectors * without).sum(1).numpy(), 0)
        np.testing.assert_allclose(found.left_out[:, column], expected.clip(min=0), atol=1e-5)
    assert found.left_out.max() > 0.01


def test_many_items_are_explained_in_chunks(opened, monkeypatch):
    _, model, catalog = opened
    whole = explain_items(model, catalog, np.arange(24))
    monkeypatch.setattr(item_inputs, "CHUNK_BYTES", 1)
    parts = explain_items(model, catalog, np.arange(24))
    np.testing.assert_allclose(parts.share, whole.share, atol=1e-6)
    np.testing.assert_allclose(parts.left_out, whole.left_out, atol=1e-5)
    for row, expected in zip(parts.weights, whole.weights, strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_records_of_new_items_are_explained_too(opened):
    dataset, model, catalog = opened
    item = int(np.flatnonzero(dataset.present("image") & dataset.present("text"))[0])
    record = {name: dataset.read(name, item) for name in ("image", "text")}
    found = explain(model, model.inputs.from_records([record, {}]))
    keep = np.isin(model.inputs.modalities, ["image", "text"])[None]
    expected = explain(model, catalog.batch(np.array([item]), keep))
    np.testing.assert_allclose(found.share[0], expected.share[0], atol=1e-6)
    np.testing.assert_allclose(found.left_out[0], expected.left_out[0], atol=1e-5)
    assert not found.present[1].any()
    assert found.share[1].sum() == found.left_out[1].sum() == len(found.weights[1]) == 0


def test_an_item_that_has_nothing_is_flagged_in_an_export(run, opened, tiny_dataset_path, tmp_path, capsys):
    dataset, model, catalog = opened
    export = tmp_path / "export"
    assert main(["export", str(run), "--data", str(tiny_dataset_path), "--out", str(export)]) == 0
    empty = ~catalog.present.any(1)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{empty.sum()} items have nothing that the model encodes; they share one vector" in said
    table = ExportFolder.open(export).table
    flagged = table["modalities"].to_numpy() == 0
    ids = np.array(table["item_id"].to_pylist())
    assert set(ids[flagged]) == set(dataset.item_ids[empty]) == {"i23"}
    with torch.inference_mode():
        expected = model.encode_items(model.inputs.from_records([{}]))[0]
    np.testing.assert_allclose(np.stack(table["vector"].to_pylist())[flagged][0], expected, atol=1e-6)


def test_the_command_prints_them(run, opened, tiny_dataset_path, capsys):
    dataset, model, catalog = opened
    assert main(["explain", str(run), "--data", str(tiny_dataset_path), "--items", "i00", "i23"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    found = explain_items(model, catalog, np.array([dataset.item_index("i00")]))
    for share, moved, present in zip(found.share[0], found.left_out[0], found.present[0], strict=True):
        assert not present or f"{share:.2f} │ {moved:.2f}" in said
    assert "none: the learned" in said, "i23 has nothing"
    assert f"share: {model.item_encoder.fusion.weights_are}"[:30] in said
    assert main(["explain", str(run), "--data", str(tiny_dataset_path), "--items", "i99"]) == 2
