"""What each vector is made of travels with the export: of fusion's weights those of each modality."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import mmrec
from mmrec.cli import main
from mmrec.engine import History
from mmrec.explanation import explain_items
from mmrec.export_folder import ExportFolder
from mmrec.training import preset
from mmrec.training.evaluation import open_checkpoint
from mmrec.training.trainer import train


@pytest.fixture(scope="module")
def run(tiny_dataset_path, tmp_path_factory) -> Path:
    config = preset("content", tiny_dataset_path)
    short = {"rest_epochs": 1, "tower_epochs": 0, "max_epochs": 1}
    return train(dataclasses.replace(config, out=tmp_path_factory.mktemp("shares") / "run", **short))


@pytest.fixture(scope="module")
def exported(run, tiny_dataset_path) -> Path:
    out = run.parent / "export"
    assert main(["export", str(run), "--data", str(tiny_dataset_path), "--out", str(out)]) == 0
    return out


def test_the_shares_are_those_of_explain(exported, run, tiny_dataset_path):
    _, dataset, model, catalog = open_checkpoint(run, tiny_dataset_path)
    expected = explain_items(model, catalog, np.arange(dataset.num_items))
    export = ExportFolder.open(exported)
    assert export.manifest["modalities"] == list(expected.modalities)
    assert export.shares is not None
    np.testing.assert_allclose(export.shares, expected.share, atol=2e-3)
    sums = export.shares.astype(np.float64).sum(axis=1)
    np.testing.assert_allclose(sums, expected.present.any(axis=1), atol=5e-3)
    assert not export.shares[~expected.present].any(), "nothing of what an item lacks"
    assert "shares" not in export.attributes.column_names


def test_copied_items_keep_their_shares_in_every_format(exported, run, tiny_dataset_path, tmp_path):
    before = ExportFolder.open(exported).shares
    for form in ("parquet", "npy", "lance"):
        arguments = ["export", str(run), "--data", str(tiny_dataset_path), "--since", str(exported)]
        assert main([*arguments, "--out", str(tmp_path / form), "--format", form]) == 0
        assert np.array_equal(ExportFolder.open(tmp_path / form).shares, before)


def test_an_explained_answer_tells_what_the_hits_are_made_of(exported, capsys):
    engine = mmrec.load(exported)
    hits = engine.recommend(History(items=["i01"]), 4)
    shares = engine.shares(hits)
    assert [set(one) for one in shares] == [set(hit.modalities) for hit in hits]
    assert all(list(one.values()) == sorted(one.values(), reverse=True) for one in shares)
    arguments = ["recommend", str(exported), "--items", "i01", "--k", "4", "--explain"]
    assert main([*arguments, "--json"]) == 0
    assert [hit["made_of"] for hit in json.loads(capsys.readouterr().out)] == shares
    assert main(arguments) == 0
    assert "%" in capsys.readouterr().out


def test_an_export_of_vectors_alone_tells_nothing_of_it(run_export, encoder, tmp_path):
    run_export(encoder(), tmp_path / "out")
    export = ExportFolder.open(tmp_path / "out")
    assert export.shares is None
    assert "shares" not in export.table.column_names
