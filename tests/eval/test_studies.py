"""The studies of eval/ on a tiny run: their tables hold what the evaluator says, and their files are there."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from eval import embedding_quality, id_vs_multimodal, modality_subsets, reranking
from mmrec.data.dataset import Dataset
from mmrec.errors import ConfigError
from mmrec.evaluator import score_vectors
from mmrec.inference import encode_catalog, encode_views
from mmrec.item_inputs import CatalogInputs
from mmrec.metrics.ranking import ranking_metrics
from mmrec.model import load_model
from mmrec.training import preset
from mmrec.training.checkpoint import find_checkpoint
from mmrec.training.evaluation import vectors_of_checkpoint
from mmrec.training.trainer import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tiny_dataset_path, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    short = {"rest_epochs": 1, "tower_epochs": 1, "max_epochs": 2}
    return {
        name: train(dataclasses.replace(preset(name, tiny_dataset_path), out=root / name, **short))
        for name in ("id", "hybrid")
    }


def opened(run: Path, dataset: Path):
    model = load_model(find_checkpoint(run))
    return model, CatalogInputs(Dataset.open(dataset), model.inputs)


def test_a_view_is_what_a_catalogue_without_the_other_modalities_is(runs, tiny_dataset_path):
    model, catalog = opened(runs["hybrid"], tiny_dataset_path)
    items = np.arange(24)
    everything, text = encode_views(model, catalog, items, [model.inputs.modalities, ["text"]])
    torch.testing.assert_close(everything, encode_catalog(model, catalog, items), atol=1e-5, rtol=0)
    column = model.inputs.modalities.index("text")
    keep = np.zeros(catalog.present.shape, dtype=bool)
    keep[:, column] = True
    with torch.inference_mode():
        expected = model.encode_items(catalog.batch(items, keep))
    torch.testing.assert_close(text, expected, atol=1e-5, rtol=0)


def test_every_subset_has_its_row_and_all_modalities_have_the_metrics_of_evaluate(
    runs, tiny_dataset_path, tmp_path, monkeypatch
):
    out = tmp_path / "subsets"
    config = modality_subsets.ModalitySubsets(checkpoint=runs["hybrid"], data=tiny_dataset_path, out=out)
    rows = modality_subsets.study(config)
    model, _ = opened(runs["hybrid"], tiny_dataset_path)
    names = model.inputs.modalities
    every = [" + ".join(s) or "nothing" for n in range(len(names) + 1) for s in itertools.combinations(names, n)]
    assert sorted(rows["modalities"]) == sorted(every)
    given = vectors_of_checkpoint(runs["hybrid"], tiny_dataset_path, "test")
    ranks = score_vectors(given.split, "test", given.users, given.items).ranks
    expected = ranking_metrics(ranks, given.split.test.target_offsets)["ndcg@10"].mean()
    whole = rows.filter(pl.col("size") == len(names))
    assert whole["ndcg@10"].item() == pytest.approx(expected, abs=1e-6)
    few = 20 * 4 * 24 * model.config.item_encoder.dim
    monkeypatch.setattr(modality_subsets, "VIEW_BYTES", few)
    assert modality_subsets.study(config).equals(rows), "in groups of twenty subsets"


def test_the_commands_write_their_files_and_refuse_a_folder_that_exists(runs, tiny_dataset_path, tmp_path):
    def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *arguments, "--data", str(tiny_dataset_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    out = tmp_path / "subsets"
    done = run("eval.modality_subsets", str(runs["hybrid"]), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"subsets.csv", "subsets.svg"}
    assert (out / "subsets.svg").read_text().startswith("<?xml")
    again = run("eval.modality_subsets", str(runs["hybrid"]), "--out", str(out))
    assert again.returncode == 2
    assert again.stderr.strip().endswith("exists already; give another --out")


def test_ids_and_media_are_compared_on_the_same_queries(runs, tiny_dataset_path, tmp_path):
    config = id_vs_multimodal.IdVsMultimodal(data=tiny_dataset_path, out=tmp_path / "out", runs=runs)
    table, comparisons = id_vs_multimodal.study(config)
    assert set(table["run"]) == {"id", "hybrid"}
    overall = {row["run"]: row["ndcg@10"] for row in table.iter_rows(named=True) if row["targets"] == "all targets"}
    difference = comparisons.filter(pl.col("targets") == "all targets")["difference"].item()
    assert comparisons["pair"][0] == "hybrid - id"
    assert difference == pytest.approx(overall["hybrid"] - overall["id"])
    (tmp_path / "out").mkdir()
    from rich.console import Console

    id_vs_multimodal.write((table, comparisons), tmp_path / "out", Console(quiet=True))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"runs.csv", "comparisons.csv", "runs.svg"}


def test_the_runs_are_trained_with_the_encoders_that_are_given(tiny_dataset_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where runs go to checkpoints/
    settings = {"image_encoder": "timm:test_vit@random", "image_tune": "top:1", "max_epochs": 1, "tower_items": 4}
    config = id_vs_multimodal.IdVsMultimodal(data=tiny_dataset_path, out=tmp_path / "out", **settings)
    runs, comparisons = id_vs_multimodal.study(config)
    assert runs["run"].unique(maintain_order=True).to_list() == ["id", "content", "hybrid"]
    assert comparisons["pair"].unique(maintain_order=True).to_list() == [
        "hybrid - content",
        "hybrid - id",
        "content - id",
    ]
    stored = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("checkpoints/*/best/config.json"))]
    encoders = {config["name"]: config["model"]["item_encoder"]["encoders"] for config in stored}
    assert list(encoders["id"]) == ["item_id"]
    for name in ("content", "hybrid"):
        assert encoders[name]["image"]["encoder"] == "timm:test_vit@random"
        assert encoders[name]["image"]["tune"] == "top:1"
        assert "encoder" not in encoders[name]["text"], "the others are the small networks"


def test_encoders_that_nothing_could_use_are_refused(runs, tiny_dataset_path, tmp_path):
    config = id_vs_multimodal.IdVsMultimodal(data=tiny_dataset_path, out=tmp_path, text_encoder="path:/nowhere")
    with pytest.raises(ConfigError, match="leave them out with --runs"):
        id_vs_multimodal.study(dataclasses.replace(config, runs=runs))
    with pytest.raises(ConfigError, match="--image-tune is for foundation encoders; give --image-encoder too"):
        id_vs_multimodal.study(dataclasses.replace(config, image_tune="all"))


def test_quality_is_told_for_the_whole_item_and_each_content_modality(runs, tiny_dataset_path, tmp_path):
    config = embedding_quality.EmbeddingQuality(checkpoint=runs["hybrid"], data=tiny_dataset_path, out=tmp_path / "out")
    spread, pairs = embedding_quality.study(config)
    assert spread["shown"].to_list() == ["all", "image", "text", "audio", "video", "vec"]
    assert (spread["effective rank"] <= spread["of"]).all()
    assert set(pairs["from"]) <= set(spread["shown"])
    assert pairs["recall@10"].is_between(0, 1).all()


def test_lists_as_scored_have_the_metrics_of_evaluate_and_every_order_keeps_its_promise(
    runs, tiny_dataset_path, tmp_path
):
    config = reranking.RerankingStudy(
        checkpoint=runs["hybrid"], data=tiny_dataset_path, attribute="category", out=tmp_path / "reranking"
    )
    rows = reranking.study(config)
    given = vectors_of_checkpoint(runs["hybrid"], tiny_dataset_path, "test")
    found = score_vectors(given.split, "test", given.users, given.items)
    expected = ranking_metrics(found.ranks, given.split.test.target_offsets)
    plain = rows.row(0, named=True)
    for name in ("hr@10", "ndcg@10"):
        assert plain[name] == pytest.approx(expected[name].mean(), abs=1e-9)
    assert plain["order"] == "plain"
    of = {row["order"]: row for row in rows.iter_rows(named=True)}
    assert of["fair:category"]["gap to catalogue"] < plain["gap to catalogue"]
    reranking.write(rows, tmp_path, Console(file=io.StringIO()))
    assert pl.read_csv(tmp_path / "reranking.csv")["order"].to_list() == rows["order"].to_list()
    assert "mmr:0.7" in (tmp_path / "reranking.svg").read_text()
