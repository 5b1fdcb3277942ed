"""`mmrec export --executor ray`: two nodes make the bytes that one process makes, also when one of them is lost."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mmrec.cli import main
from mmrec.errors import DataError
from mmrec.training.exporting import ExportJob, _unit_of, run_job
from tests.exporting.test_exporter import contents

ray = pytest.importorskip("ray", reason="Ray is not installed (extra `scale`)")


@contextlib.contextmanager
def no_progress(num_items: int) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


@pytest.fixture(scope="module")
def run(tiny_dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("on-ray") / "run"
    assert main(["train", "id", "--data", str(tiny_dataset_path), "--out", str(out), "--max-epochs", "1"]) == 0
    return out


@pytest.fixture
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=100_000_000) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_two_nodes_of_which_one_is_lost_make_the_bytes_of_one_process(run, cluster, tiny_dataset_path, tmp_path):
    def job(out: str) -> ExportJob:
        return ExportJob(
            checkpoint=run, data=tiny_dataset_path, out=tmp_path / out, users=True, dtype="int8", shard_items=2
        )

    def lose() -> None:
        while len(list((tmp_path / "ray" / "unfinished" / "done").glob("*.json"))) < 2:
            time.sleep(0.02)
        cluster[0].remove_node(cluster[1][0], allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    report = run_job(job("ray"), executor="ray", progress=no_progress)
    thread.join()
    assert report.encoded == 24, "all of them by Ray"
    run_job(job("here"), progress=no_progress)
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


def test_a_machine_that_does_not_see_the_folders_says_so_in_one_line(run, tiny_dataset_path, tmp_path):
    job = ExportJob(checkpoint=run, data=tiny_dataset_path, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"does not see .*/out; give an --out in a folder that all machines share$"):
        _unit_of(job, "token", {}, "part-00000")
    with pytest.raises(DataError, match=r"has mmrec .* and not 0\.0, and would write other bytes"):
        _unit_of(replace(job, out=tmp_path), "token", {"mmrec": "0.0"}, "part-00000")


def test_workers_are_of_ray_alone(run, tiny_dataset_path, tmp_path, capsys):
    arguments = ["export", str(run), "--data", str(tiny_dataset_path), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--num-workers", "2"]) == 2
    assert "--num-workers is of --executor ray" in capsys.readouterr().err
    assert main([*arguments[:-1], "memory://bucket/out", "--executor", "ray"]) == 2
    assert "is written by one process; several share a folder" in capsys.readouterr().err
