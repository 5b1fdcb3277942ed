"""A build on a Ray cluster of two nodes makes the bytes that one machine makes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmrec.data.ingest import ingest
from tests.data.test_build import folder_bytes, write_source

ray = pytest.importorskip("ray", reason="Ray is not installed (extra `scale`)")


@pytest.fixture
def cluster():
    """Two nodes of one slot each, on loopback, gone after the test."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
    nodes.add_node(num_cpus=1, object_store_memory=100_000_000)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_two_nodes_make_the_same_bytes_as_this_machine(tmp_path, cluster):
    source = write_source(tmp_path / "source", 24, 200)
    local = ingest(replace(source, out=tmp_path / "local"))
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    on_ray = ingest(replace(source, out=tmp_path / "ray", executor="ray"))
    assert folder_bytes(on_ray) == folder_bytes(local)
