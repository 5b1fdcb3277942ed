"""A new model beside an earlier export: it stays near where it was told to, and is refused where it was not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mmrec
from mmrec.cli import main
from mmrec.compatibility import earlier_vectors
from mmrec.engine import History
from mmrec.errors import CheckpointError, ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.objectives import CompatibilityConfig, compatibility_loss
from mmrec.training import preset
from mmrec.training.checkpoint import find_checkpoint
from mmrec.training.evaluation import vectors_of_checkpoint, vectors_of_export
from mmrec.training.trainer import Trainer, train


@pytest.fixture(scope="module")
def old(tiny_dataset_path, tmp_path_factory) -> dict[str, Path]:
    """An old model and its export."""
    root = tmp_path_factory.mktemp("old")
    config = dataclasses.replace(preset("features", tiny_dataset_path), out=root / "run", max_epochs=3)
    run = train(config)
    assert main(["export", str(run), "--data", str(tiny_dataset_path), "--out", str(root / "export")]) == 0
    return {"run": run, "export": root / "export"}


@pytest.fixture(scope="module")
def new(old, tiny_dataset_path, tmp_path_factory) -> dict[str, Path]:
    """New models of another seed, with and without a tie to the old export."""
    root = tmp_path_factory.mktemp("new")
    config = dataclasses.replace(preset("features", tiny_dataset_path), seed=1, max_epochs=30, patience=99)
    config = dataclasses.replace(config, batch_size=8, learning_rate=5e-3, id_dropout=0.0, modality_dropout=0.0)
    model = dataclasses.replace(config.model, compatibility=CompatibilityConfig(weight=1.0))
    tied = dataclasses.replace(config, model=model, compatible_with=old["export"], out=root / "tied")
    return {"apart": train(dataclasses.replace(config, out=root / "apart")) / "latest", "tied": train(tied) / "latest"}


def mean_cosine(run: Path, export: Path, data: Path) -> float:
    items = vectors_of_checkpoint(run, data, "test").items
    earlier, _ = earlier_vectors(export, ExportFolder.open(export).item_ids, items.shape[1])
    return float((items * earlier).sum(1).mean())


def test_the_loss_is_the_sum_of_one_minus_cosine():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(4, 6, generator=generator), dim=1)
    earlier = torch.randn(4, 6, generator=generator)
    expected = sum(1 - torch.cosine_similarity(a, b, dim=0) for a, b in zip(vectors, earlier, strict=True))
    torch.testing.assert_close(compatibility_loss(vectors, earlier), torch.as_tensor(expected))
    assert compatibility_loss(vectors, 3 * vectors) < 1e-6, "only directions count"
    assert compatibility_loss(vectors[:0], earlier[:0]) == 0


def test_a_tied_model_stays_near_and_another_one_does_not(old, new, tiny_dataset_path):
    near = mean_cosine(new["tied"], old["export"], tiny_dataset_path)
    far = mean_cosine(new["apart"], old["export"], tiny_dataset_path)
    assert near > 0.8
    assert far < 0.5


def test_items_that_the_export_lacks_are_not_looked_at(old, tiny_dataset_path, tmp_path):
    ids = [*ExportFolder.open(old["export"]).item_ids[:3], "new", "newer"]
    vectors, known = earlier_vectors(old["export"], ids, ExportFolder.open(old["export"]).dim)
    assert known.tolist() == [True, True, True, False, False]
    config = dataclasses.replace(
        preset("features", tiny_dataset_path), compatible_with=old["export"], out=tmp_path / "run"
    )
    trainer = Trainer(config)
    model = trainer.recommender.eval()
    step = next(iter(trainer.loader.epoch(0)))
    assert model.earlier is not None
    vectors, known = model.earlier
    known[step.step_items[::2]] = False
    before = model(step)["compatibility"]
    vectors[step.step_items[::2]] = torch.nan
    torch.testing.assert_close(model(step)["compatibility"], before)
    table = model.encode_items(step.items)
    earlier = torch.where(known[step.step_items, None], vectors[step.step_items], table)
    users = model.encode_users(table[torch.searchsorted(step.step_items, step.sequences.item_idx)], step.sequences)
    found = model._next_item(step, users, earlier, model.log_scale.exp()[0])
    cosines = (table[1::2] * vectors[step.step_items[1::2]]).sum(1)
    torch.testing.assert_close(before, found + 10 * (1 - cosines).mean(), atol=1e-4, rtol=0)
    known[:] = False
    torch.testing.assert_close(model(step)["compatibility"], model(step)["next_item"], atol=1e-5, rtol=0)


def test_users_of_a_tied_model_are_matched_with_the_old_index_and_those_of_another_are_refused(
    old, new, tiny_dataset_path, tmp_path, capsys
):
    found = vectors_of_export(old["export"], tiny_dataset_path, "test", users_of=new["tied"])
    plain = vectors_of_export(old["export"], tiny_dataset_path, "test")
    assert torch.equal(found.items, plain.items)
    assert not torch.equal(found.users, plain.users)
    itself = vectors_of_export(old["export"], tiny_dataset_path, "test", users_of=old["run"])
    assert torch.equal(itself.users, plain.users)
    with pytest.raises(CheckpointError, match="cannot be compared"):
        vectors_of_export(old["export"], tiny_dataset_path, "test", users_of=new["apart"])
    arguments = ["--embeddings", str(old["export"]), "--data", str(tiny_dataset_path), "--no-baselines"]
    assert main(["evaluate", str(new["apart"]), *arguments, "--out", str(tmp_path / "no")]) == 2
    assert "--compatible-with" in capsys.readouterr().err
    assert main(["evaluate", str(new["tied"]), *arguments, "--out", str(tmp_path / "yes")]) == 0
    assert json.loads((tmp_path / "yes" / "metrics.json").read_text())["metrics"]["ndcg@10"] > 0


def test_the_deployed_index_answers_users_of_the_tied_model_alone(old, new, tiny_dataset_path, capsys):
    export = old["export"]
    history = History(items=list(ExportFolder.open(export).item_ids[:2]))
    plain, tied = mmrec.load(export), mmrec.load(export, users_of=new["tied"])
    assert np.array_equal(tied.export.vectors, plain.export.vectors)
    assert not np.array_equal(tied.encode_users([history]), plain.encode_users([history]))
    with pytest.raises(CheckpointError, match="cannot be compared"):
        mmrec.load(export, users_of=new["apart"])
    with pytest.raises(ConfigError, match="users of its own"):
        mmrec.load(old["run"], users_of=new["tied"])
    arguments = ["recommend", str(export), "--items", *history.items, "--k", "3", "--json"]
    assert main([*arguments, "--users-of", str(new["tied"])]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [hit["item_id"] for hit in found] == [hit.item_id for hit in tied.recommend(history, 3)]
    assert main([*arguments, "--users-of", str(new["apart"])]) == 2


def test_a_checkpoint_says_what_it_is_compatible_with(old, new):
    made_by = ExportFolder.open(old["export"]).manifest["model_hash"]
    assert json.loads((find_checkpoint(new["tied"]) / "compatibility.json").read_text()) == {"model_hash": made_by}
    assert not (find_checkpoint(new["apart"]) / "compatibility.json").exists()


def test_what_cannot_be_compatible_is_refused(old, tmp_path):
    with pytest.raises(ConfigError, match=r"--model\.item-encoder\.dim"):
        earlier_vectors(old["export"], ["i00"], 5)
    with pytest.raises(DataError, match="none of the dataset's items"):
        earlier_vectors(old["export"], ["nobody"], ExportFolder.open(old["export"]).dim)
    with pytest.raises(ConfigError, match="greater than 0"):
        CompatibilityConfig(weight=0.0)
