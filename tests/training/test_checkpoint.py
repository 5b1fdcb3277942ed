"""Checkpoints: whole or not at all, verified, kept in number, copied to URLs; damage costs the newest one at most."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmrec.cli import main
from mmrec.errors import CheckpointError, ConfigError
from mmrec.training import preset
from mmrec.training.checkpoint import find_checkpoint, newest_whole, problem_of
from mmrec.training.checkpoint_writer import CheckpointWriter, text_writer
from mmrec.training.config import TrainConfig
from mmrec.training.run_mirror import local_run
from mmrec.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


def config(dataset: Path, run: Path | str, **settings) -> TrainConfig:
    small = {"batch_size": 8, "max_epochs": 3, "patience": 99, "trackers": (), "checkpoint_steps": 2}
    return dataclasses.replace(preset("id", dataset), out=Path(run), **{**small, **settings})


def losses(run: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def whole_run(tiny_dataset_path, tmp_path_factory) -> Path:
    return Trainer(config(tiny_dataset_path, tmp_path_factory.mktemp("whole") / "run", keep_checkpoints=3)).fit()


@pytest.fixture
def stopped_run(whole_run, tmp_path) -> Path:
    """The run of two epochs, copied, as it was before its end."""
    run = tmp_path / "run"
    shutil.copytree(whole_run, run, symlinks=True)
    (run / "finished.json").unlink()
    return run


def checkpoints(run: Path) -> list[str]:
    return sorted(folder.name for folder in run.glob("step-*"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_ones_and_the_best_are_kept(whole_run):
    newest = (whole_run / "latest").resolve().name
    best = (whole_run / "best").resolve().name
    kept = checkpoints(whole_run)
    assert newest in kept
    assert best in kept
    assert len(set(kept) - {best}) in (2, 3), "three with the newest, the best may be one of them"
    assert not list(whole_run.glob(".*tmp"))


def test_every_file_is_listed_with_its_hash(whole_run):
    folder = (whole_run / "latest").resolve()
    listed = json.loads((folder / "files.json").read_text())
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(listed) == there - {"files.json"}
    assert problem_of(folder, training_state=True) is None


@pytest.mark.parametrize("name", ["model.safetensors", "training_state/optimizer.pt", "files.json", "config.json"])
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    stopped_run, whole_run, tiny_dataset_path, caplog, name
):
    newest = (stopped_run / "latest").resolve()
    damage(newest / name)
    Trainer(config(tiny_dataset_path, stopped_run, keep_checkpoints=3)).fit()
    assert "is damaged" in caplog.text
    assert "going on from the checkpoint before" in caplog.text
    assert losses(stopped_run) == losses(whole_run)
    assert problem_of((stopped_run / "latest").resolve(), training_state=True) is None


def test_where_all_are_damaged_the_run_is_refused(stopped_run):
    for folder in stopped_run.glob("step-*"):
        (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing; no other checkpoint of the run is whole"):
        newest_whole(stopped_run)


def test_evaluation_refuses_damaged_weights_and_names_what_else_there_is(stopped_run):
    best = (stopped_run / "best").resolve()
    damage(best / "model.safetensors")
    others = [name for name in checkpoints(stopped_run) if name != best.name]
    with pytest.raises(CheckpointError, match=f"model.safetensors is not what was written; others are .*{others[0]}"):
        find_checkpoint(stopped_run)


def test_evaluation_does_not_read_what_only_resuming_needs(stopped_run):
    damage((stopped_run / "best").resolve() / "training_state" / "optimizer.pt")
    assert find_checkpoint(stopped_run) == (stopped_run / "best").resolve()


def test_an_interrupted_write_leaves_no_checkpoint(tmp_path):
    """What was under a temporary name is cleared by the next one."""
    writer = CheckpointWriter(tmp_path, keep=2)

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    writer.folder("step-00000001")
    writer.start("step-00000001", {"a.txt": text_writer("a")}, best=True)
    writer.folder("step-00000002")
    writer.start("step-00000002", {"a.txt": text_writer("b"), "b.txt": fail}, best=True)
    with pytest.raises(CheckpointError, match=r"No space left on device.*the last whole one is .*step-00000001"):
        writer.finish()
    assert checkpoints(tmp_path) == ["step-00000001"]
    assert (tmp_path / "latest").resolve().name == (tmp_path / "best").resolve().name == "step-00000001"
    assert not list(tmp_path.glob(".*tmp"))
    writer.finish()


def test_training_that_cannot_write_ends_with_one_line_and_the_old_checkpoint_is_whole(stopped_run, tiny_dataset_path):
    """A file may not grow beyond 64 KiB here: the system's own error, as of a full disk, in the writing thread."""
    before = (stopped_run / "latest").resolve()
    arguments = ["train", "id", "--data", str(tiny_dataset_path), "--out", str(stopped_run), "--batch-size", "8"]
    arguments += ["--max-epochs", "9", "--patience", "99", "--checkpoint-steps", "2", "--trackers"]
    code = (
        "import resource, signal, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)); "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from mmrec.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert "could not be written" in last
    assert f"the last whole one is {before}" in last
    assert "Traceback" not in done.stderr
    assert problem_of(before, training_state=True) is None
    assert newest_whole(stopped_run) == before


def test_training_waits_for_a_copy_and_not_for_the_disk(tmp_path):
    import threading
    import time

    released = threading.Event()
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.folder("step-00000001")
    began = time.perf_counter()
    writer.start("step-00000001", {"slow.txt": lambda path: (released.wait(20), path.touch())}, best=False)
    assert time.perf_counter() - began < 5
    assert not (tmp_path / "latest").exists()
    released.set()
    writer.finish()
    assert (tmp_path / "latest").resolve().name == "step-00000001"


@pytest.fixture
def url(tmp_path, monkeypatch) -> Iterator[str]:
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path / "cache"))
    yield "memory://bucket/run"
    MemoryFileSystem.store.clear()


def test_a_run_at_a_url_goes_on_and_is_evaluated_on_another_machine(url, tiny_dataset_path, whole_run, tmp_path):
    first = config(tiny_dataset_path, url, max_epochs=2, keep_checkpoints=1)
    assert Trainer(first).fit() == local_run(url)
    files = fsspec.filesystem("memory")
    there = {Path(path).name for path in files.ls("/bucket/run", detail=False)}
    assert {"latest", "best", "metrics.jsonl", "cost.json", "finished.json", "preprocessing"} <= there
    kept = {name for name in there if name.startswith("step-")}
    assert kept == set(checkpoints(local_run(url)))
    shutil.rmtree(local_run(url))  # another machine
    files.rm("/bucket/run/finished.json")
    Trainer(config(tiny_dataset_path, url, keep_checkpoints=1)).fit()
    assert losses(local_run(url)) == losses(whole_run)
    shutil.rmtree(local_run(url))
    results = tmp_path / "results"
    assert main(["evaluate", url, "--data", str(tiny_dataset_path), "--out", str(results), "--no-baselines"]) == 0
    assert (results / "metrics.json").is_file()


def test_a_url_without_a_run_is_said_to_be_one(url):
    with pytest.raises(CheckpointError, match=r"memory://bucket/run holds no checkpoint; give the URL of a run"):
        find_checkpoint(url)


def test_a_kind_of_url_that_nobody_knows_is_refused(tiny_dataset_path):
    with pytest.raises(ConfigError, match=r"nosuch://bucket/run cannot be opened"):
        Trainer(config(tiny_dataset_path, "nosuch://bucket/run"))


def test_other_settings_are_refused_by_the_name_of_the_one_that_differs(stopped_run, tiny_dataset_path):
    wider = config(tiny_dataset_path, stopped_run)
    wider = dataclasses.replace(
        wider,
        model=dataclasses.replace(
            wider.model, user_encoder=dataclasses.replace(wider.model.user_encoder, num_blocks=3)
        ),
    )
    with pytest.raises(CheckpointError, match=r"another setting of `model.user_encoder.num_blocks` \(1 there, 3 now\)"):
        Trainer(wider)
