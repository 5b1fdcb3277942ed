"""A build on a Ray cluster of two nodes makes the bytes that one machine makes, whatever becomes of the nodes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mmrec.data.executors import _on_this_machine
from mmrec.data.ingest import ingest
from mmrec.data.units import Unit, UnitSettings, package_versions
from mmrec.errors import DataError
from mmrec.media.normalise import Normalisation
from tests.data.bad_decoders import CRASHES, DAWDLES, HANGS, environment, write_pictures
from tests.data.test_build import folder_bytes

ray = pytest.importorskip("ray", reason="Ray is not installed (extra `scale`)")


class TwoNodes:
    """A cluster on loopback whose decoders are bad: a head, which does no units, and two nodes of one CPU each."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.variables = environment(folder)
        self.before = {name: os.environ.get(name) for name in self.variables}
        os.environ.update(self.variables)
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000})
        self.nodes = [self.add(), self.add()]
        ray.init(address=self.cluster.address, log_to_driver=False)

    def add(self):
        return self.cluster.add_node(num_cpus=1, object_store_memory=100_000_000)

    def lose(self, place: int) -> None:
        """End a node as a power cut does."""
        self.cluster.remove_node(self.nodes[place], allow_graceful=False)

    def decoding(self) -> int:
        """How many nodes have decoded something so far."""
        return len(list(Path(self.variables["MARKS"]).iterdir()))

    def close(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()
        for name, value in self.before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture
def cluster(tmp_path) -> Iterator[TwoNodes]:
    nodes = TwoNodes(tmp_path / "decoders")
    yield nodes
    nodes.close()


def test_two_nodes_share_the_units_and_make_the_same_bytes_as_this_machine(tmp_path, cluster):
    config = write_pictures(tmp_path / "source", [DAWDLES] * 16)
    on_ray = ingest(replace(config, out=tmp_path / "ray", executor="ray", num_workers=None))
    assert cluster.decoding() == 2
    assert folder_bytes(on_ray) == folder_bytes(ingest(replace(config, out=tmp_path / "local")))


@pytest.mark.slow
def test_a_decoder_that_hangs_and_one_that_crashes_cost_a_medium_each_on_ray_too(tmp_path, cluster):
    sides = [40] * 12
    sides[3], sides[7] = HANGS, CRASHES
    config = write_pictures(tmp_path / "source", sides)
    out = ingest(replace(config, executor="ray"))
    errors = pl.read_parquet(out / "errors.parquet").filter(pl.col("modality") == "image").sort("item_id")
    assert errors["message"].to_list() == [
        "media/3.png: took longer than 3 s",
        "media/7.png: the decoder crashed (SIGSEGV)",
    ]


@pytest.mark.slow
def test_one_node_lost_after_another_does_not_end_the_job(tmp_path, cluster):
    config = write_pictures(tmp_path / "source", [DAWDLES] * 40)
    cluster.add()
    lost: list[int] = []

    def lose_two() -> None:
        for place in (0, 1):
            while len(done(tmp_path / "ray.build")) < 2 * (place + 1):
                time.sleep(0.05)
            cluster.lose(place)
            lost.append(len(done(tmp_path / "ray.build")))

    thread = threading.Thread(target=lose_two)
    thread.start()
    on_ray = ingest(replace(config, out=tmp_path / "ray", executor="ray", num_workers=None))
    thread.join()
    assert len(lost) == 2
    assert lost[1] < 40 / 4, "there were units left to do"
    assert folder_bytes(on_ray) == folder_bytes(ingest(replace(config, out=tmp_path / "local")))


def done(build: Path) -> list[str]:
    ledger = build / "ledger.jsonl"
    return ledger.read_text().splitlines() if ledger.exists() else []


def settings(folder: Path) -> UnitSettings:
    return UnitSettings(
        root=str(folder),
        folder=folder,
        rules=Normalisation(image_side_px=0, video_side_px=0, audio_rate_hz=0),
        shard_bytes=10**6,
        timeout_s=60.0,
        versions=package_versions(),
    )


def test_a_machine_that_does_not_see_the_folders_or_has_other_packages_says_so_in_one_line(tmp_path):
    unit, here = Unit("unit", 0, []), settings(tmp_path)
    for changed, words in (
        (replace(here, folder=tmp_path / "no"), r"machine .* does not see .*/no; give an --out in a folder that all"),
        (replace(here, root="/no/where"), r"does not see /no/where; give a --media-root in a folder that all"),
        (
            replace(here, versions={**here.versions, "pillow": "1.0"}),
            r"has pillow \d+.* and not 1\.0, and would write other bytes; install the same on all machines",
        ),
    ):
        with pytest.raises(DataError, match=words) as caught:
            _on_this_machine(unit, changed)
        assert "\n" not in str(caught.value)
