"""`mmrec export` of a trained run: equal bytes each time, whatever the number format costs is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmrec.cli import main
from mmrec.export_folder import ExportFolder
from tests.exporting.test_exporter import contents


@pytest.fixture(scope="module")
def run(tiny_dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hybrid that was trained for one epoch at widths 16 and the whole."""
    out = tmp_path_factory.mktemp("command") / "run"
    arguments = ["train", "hybrid", "--data", str(tiny_dataset_path), "--out", str(out), "--max-epochs", "1"]
    assert main([*arguments, "--model.matryoshka", "16", "--trackers"]) == 0
    return out


def exported(run: Path, data: Path, out: Path, *options: str) -> ExportFolder:
    assert main(["export", str(run), "--data", str(data), "--out", str(out), *options]) == 0
    return ExportFolder.open(out, verify=True)


def evaluated(data: Path, out: Path, *source: str) -> dict:
    assert main(["evaluate", *source, "--data", str(data), "--out", str(out), "--no-baselines"]) == 0
    return json.loads((out / "metrics.json").read_text())["metrics"]


@pytest.mark.slow
def test_the_same_command_writes_the_same_bytes(run, tiny_dataset_path, tmp_path):
    """Each in a process of its own: PyTorch numbers the classes of graphs that one process makes."""
    for name in ("one", "two"):
        command = [sys.executable, "-m", "mmrec", "export", str(run), "--data", str(tiny_dataset_path), "--index"]
        subprocess.run([*command, "--out", str(tmp_path / name)], check=True, capture_output=True)
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two")
    assert first.keys() >= {"model/graphs/image.pt", "README.md", "items.parquet", "embeddings/part-00000.parquet"}


def test_float32_in_every_format_gives_the_metrics_of_the_run(run, tiny_dataset_path, tmp_path):
    expected = evaluated(tiny_dataset_path, tmp_path / "of-run", str(run))
    for form in ("npy", "safetensors"):
        exported(run, tiny_dataset_path, tmp_path / form, "--format", form)
        found = evaluated(tiny_dataset_path, tmp_path / f"of-{form}", "--embeddings", str(tmp_path / form))
        assert found == expected


def test_fewer_bytes_cost_something_that_is_told(run, tiny_dataset_path, tmp_path):
    """int8 and float16 hardly move a metric, signs alone do; recall is in the manifest."""
    expected = evaluated(tiny_dataset_path, tmp_path / "of-run", str(run))
    recall = {}
    for dtype in ("float16", "int8", "binary"):
        export = exported(run, tiny_dataset_path, tmp_path / dtype, "--dtype", dtype)
        found = evaluated(tiny_dataset_path, tmp_path / f"of-{dtype}", "--embeddings", str(tmp_path / dtype))
        recall[dtype] = export.manifest["recall_at_10"]["value"]
        if dtype != "binary":
            assert abs(found["ndcg@10"] - expected["ndcg@10"]) < 0.03
    assert recall["float16"] > 0.99
    assert recall["int8"] > 0.95
    assert recall["binary"] < recall["int8"]


def test_dim_exports_a_prefix_that_the_model_was_trained_for(run, tiny_dataset_path, tmp_path, capsys):
    export = exported(run, tiny_dataset_path, tmp_path / "short", "--dim", "16")
    assert (export.dim, export.manifest["cut"]) == (16, 16)
    assert export.manifest["normalised"] is True
    expected = evaluated(tiny_dataset_path, tmp_path / "of-run", str(run), "--dim", "16")
    assert evaluated(tiny_dataset_path, tmp_path / "again", "--embeddings", str(tmp_path / "short")) == expected
    capsys.readouterr()
    arguments = ["export", str(run), "--data", str(tiny_dataset_path), "--out", str(tmp_path / "no"), "--dim", "17"]
    assert main(arguments) == 2
    assert "dim is 17; this model has vectors of 16 or" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_of_a_launcher_share_the_work_and_write_the_same_bytes(run, tiny_dataset_path, tmp_path):
    arguments = ["-m", "mmrec", "export", str(run), "--data", str(tiny_dataset_path), "--users", "--index"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, started_by in (("two", launcher), ("one", [])):
        command = [sys.executable, *started_by, *arguments, "--out", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("exported: ") == 1, "said once"
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
