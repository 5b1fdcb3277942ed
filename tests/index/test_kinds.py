"""Kinds of index: chosen by size, recall and memory; tuned to the recall that is asked for; measured; wary."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from eval.benchmarks.generated_export import clustered_vectors, write_export
from mmrec.cli import main
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.index import search_by_vector, search_by_vectors
from mmrec.index.build import IndexConfig, choose, rebuild
from tests.asking import search_by_item

from .conftest import KINDS, make_catalog


def recall(catalog, export, queries, k: int = 10) -> float:
    answers = search_by_vectors(export, queries, k)
    exact = [catalog.exact(query, k) for query in queries]
    return float(np.mean([len({hit.item_id for hit in a} & set(e)) / k for a, e in zip(answers, exact, strict=True)]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_what_it_promises(catalog, built, kind):
    found = recall(catalog, built(kind), catalog.queries(60))
    assert found == 1 if kind in ("none", "exact") else found >= 0.96, "60 queries have a standard error of .01"


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_inner_products_in_float64_whatever_the_index_stores(catalog, built, kind):
    row_of = {item_id: row for row, item_id in enumerate(catalog.item_ids)}
    for query in catalog.queries(5):
        hits = search_by_vector(built(kind), query, 20)
        vectors = catalog.vectors[[row_of[hit.item_id] for hit in hits]].astype(np.float64)
        np.testing.assert_allclose([hit.score for hit in hits], vectors @ query.astype(np.float64), rtol=1e-12)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_one_pass_over_many_queries_answers_as_one_by_one(catalog, built, kind):
    queries = catalog.queries(40)
    taken = [catalog.item_ids[n : n + 2].tolist() for n in range(40)]
    singly = [search_by_vector(built(kind), *one) for one in zip(queries, [7] * 40, taken, strict=True)]
    together = search_by_vectors(built(kind), queries, 7, taken)
    assert [[hit.item_id for hit in hits] for hits in together] == [[hit.item_id for hit in hits] for hits in singly]
    assert not any(hit.item_id in gone for hits, gone in zip(together, taken, strict=True) for hit in hits)


@pytest.mark.parametrize("kind", KINDS)
def test_asking_for_more_than_there_is_gives_all_in_order(catalog, built, kind):
    query = catalog.queries(1)[0]
    hits = search_by_vector(built(kind), query, 10_000)
    assert [hit.item_id for hit in hits] == catalog.exact(query, 10_000)
    assert [hit.rank for hit in hits] == [*range(1, 4001)]
    assert len(search_by_item(built(kind), str(catalog.item_ids[0]), 10_000)) == 3999


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw", "sq8"])
def test_an_index_answers_without_the_parts(copy_of, kind):
    path = copy_of(kind)
    shutil.rmtree(path / "embeddings")
    export = ExportFolder(path, json.loads((path / "manifest.json").read_text()))
    assert len(search_by_item(export, "p00042", 5)) == 5


@pytest.mark.parametrize("kind", ["ivf", "sq8", "hnsw"])
def test_vectors_of_any_length_are_compared_by_inner_product(tmp_path, kind):
    generator = np.random.default_rng(3)
    vectors = np.concatenate([*clustered_vectors(4000, 12)]) * generator.lognormal(0, 0.5, (4000, 1)).astype(np.float32)
    catalog = make_catalog(tmp_path / "long", vectors)
    export = rebuild(catalog.path, IndexConfig(kind=kind, recall=0.95))
    assert export.manifest["normalised"] is False
    assert recall(catalog, export, catalog.queries(60)) >= 0.92


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_more_recall_costs_more_and_is_measured_on_queries_that_chose_nothing(copy_of, kind):
    effort = {}
    for target in (0.7, 0.95, 0.999):
        entry = rebuild(copy_of(kind, f"{target}"), IndexConfig(kind=kind, recall=target)).manifest["index"]
        assert entry["recall"]["measured"] >= target
        assert (entry["recall"]["at"], entry["recall"]["queries"]) == (10, 500)
        assert entry["queries_per_second"] > 0
        effort[target] = entry["parameters"]["nprobe" if kind == "ivf" else "ef_search"]
    assert effort[0.7] <= effort[0.95] <= effort[0.999]
    assert effort[0.7] < effort[0.999]


def test_items_with_one_vector_are_equal_and_cost_no_recall(tmp_path):
    vectors = np.concatenate([*clustered_vectors(3000, 8)])
    vectors[::2] = vectors[0]  # half of the items have nothing of their own
    catalog = make_catalog(tmp_path / "equal", vectors)
    assert rebuild(catalog.path, IndexConfig(kind="ivf", recall=0.99)).manifest["index"]["recall"]["measured"] >= 0.99


def test_the_kind_follows_from_size_recall_and_memory():
    def kind(num_items: int, **asked) -> str:
        return choose(num_items, 256, IndexConfig(**asked)).kind

    assert kind(195_000) == "exact"
    assert kind(196_000) == "ivf"
    assert kind(1_000_000, recall=1.0) == "exact"
    assert kind(1_000_000, memory_gb=1.1) == "ivf"
    assert kind(1_000_000, memory_gb=0.9) == "sq8"
    assert kind(190_000, memory_gb=0.1) == "sq8"
    assert kind(1000, kind="hnsw") == "hnsw"
    assert choose(190_000, 256, IndexConfig(memory_gb=0.1)).nlist == 0, "small enough to look at all codes"
    assert choose(1_000_000, 256, IndexConfig()).nlist == 2048
    with pytest.raises(ConfigError, match=r"sq8 of 1,000,000 items x 256 needs 0.274 GB and takes least; memory-gb is"):
        kind(1_000_000, memory_gb=0.2)
    with pytest.raises(ConfigError, match=r"ivf of 1,000,000 items x 256 needs 1.04 GB; memory-gb is 0.5"):
        kind(1_000_000, kind="ivf", memory_gb=0.5)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw", "sq8"])
def test_what_a_plan_says_of_memory_is_about_what_the_index_takes(built, kind):
    entry = built(kind).manifest["index"]
    planned = choose(4000, 16, IndexConfig(kind=kind)).memory_bytes
    assert 0.8 * planned < entry["memory_bytes"] < 1.2 * planned


def test_the_same_export_gets_the_same_lists(copy_of):
    twice = [rebuild(copy_of("none", name), IndexConfig(kind="ivf")) for name in ("first", "second")]
    assert twice[0].files["index.faiss"] == twice[1].files["index.faiss"]
    entries = [{**export.manifest["index"], "queries_per_second": 0} for export in twice]
    assert entries[0] == entries[1]


def test_the_id_map_tells_positions_apart_for_other_readers(catalog, built):
    import faiss
    import pyarrow.parquet as pq

    export = built("ivf")
    index = faiss.read_index(str(export.path / "index.faiss"))
    index.nprobe = export.manifest["index"]["parameters"]["nprobe"]
    ids = pq.read_table(export.path / "index_ids.parquet")["item_id"].to_pylist()
    query = catalog.queries(1)
    found = [ids[position] for position in index.search(query, 5)[1][0]]
    assert found == [hit.item_id for hit in search_by_vector(export, query[0], 5)]


def test_building_another_kind_leaves_no_file_of_the_one_before(copy_of):
    path = copy_of("sq8")
    assert (path / "index_vectors.npy").is_file()
    rebuild(path, IndexConfig(kind="exact"))
    assert not (path / "index_vectors.npy").exists()
    assert len(search_by_item(ExportFolder.open(path, verify=True), "p00001", 3)) == 3


def test_a_kind_that_does_not_reach_the_recall_is_refused_and_the_export_answers_as_before(
    catalog, copy_of, monkeypatch
):
    monkeypatch.setattr("mmrec.index.tuning._MOST_EF", 10)
    path = copy_of("ivf")
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(ConfigError, match=r"kind hnsw finds 0\.\d+ of the exact answer here at the most, recall asks"):
        rebuild(path, IndexConfig(kind="hnsw", recall=1.0))
    assert (path / "manifest.json").read_bytes() == before
    ExportFolder.open(path, verify=True)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, float("nan")])
def test_a_recall_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match="must be above 0 and at most 1"):
        IndexConfig(recall=value)
    with pytest.raises(ConfigError, match=r"memory-gb is .*must be above 0"):
        IndexConfig(memory_gb=min(value, 0.0))


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw", "sq8"])
def test_a_damaged_index_file_is_named(copy_of, kind):
    for name in ("index.faiss", "index_ids.parquet", *(["index_vectors.npy"] if kind == "sq8" else [])):
        path = copy_of(kind, name)
        data = bytearray((path / name).read_bytes())
        data[len(data) // 2] ^= 1
        (path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name} is damaged: its sha256"):
            search_by_item(ExportFolder.open(path), "p00001", 3)


def test_the_index_of_another_export_is_refused(copy_of, tmp_path):
    other = write_export(tmp_path / "other", clustered_vectors(4000, 16, seed=1))
    rebuild(other, IndexConfig())
    path = copy_of("exact")
    foreign, own = (json.loads((folder / "manifest.json").read_text()) for folder in (other, path))
    for name in ("index.faiss", "index_ids.parquet"):
        shutil.copyfile(other / name, path / name)
    with pytest.raises(DataError, match="is damaged"):
        ExportFolder.open(path, verify=True)
    own |= {"index": foreign["index"]}
    own["files"] |= {name: foreign["files"][name] for name in ("index.faiss", "index_ids.parquet")}
    (path / "manifest.json").write_text(json.dumps(own))
    with pytest.raises(DataError, match=r"was made for other vectors than those of .*; make it again: mmrec index"):
        search_by_item(ExportFolder.open(path), "p00001", 3)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_queries_are_refused_with_one_line(built, kind):
    export = built(kind)
    with pytest.raises(ConfigError, match="k is 0; it must be at least 1"):
        search_by_vectors(export, np.ones((2, 16)), 0)
    with pytest.raises(DataError, match="NaN or infinite"):
        search_by_vectors(export, np.array([np.ones(16), np.full(16, np.nan)]), 3)
    with pytest.raises(DataError, match=r"shape \(2, 5\)"):
        search_by_vectors(export, np.ones((2, 5)), 3)
    with pytest.raises(DataError, match="unknown item_id 'nobody'"):
        search_by_vector(export, np.ones(16), 3, exclude=["nobody"])
    assert search_by_vectors(export, np.ones((0, 16)), 3) == []


def test_an_index_is_built_from_the_command_line(copy_of, capsys):
    path = str(copy_of("none"))
    assert main(["index", path, "--kind", "ivf", "--recall", "0.9"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"indexed: {path}  (ivf, nlist 100, nprobe ")
    assert "(asked for 0.9, 500 queries)" in out
    assert main(["index", path]) == 0
    assert capsys.readouterr().out == f"indexed: {path}  (exact; 0.3 MB; all of the exact answer)\n"
    assert main(["index", path, "--recall", "1.5"]) == 2
    assert capsys.readouterr().err == "mmrec index: recall is 1.5; it must be above 0 and at most 1\n"
    assert main(["index", path, "--memory-gb", "0.00001"]) == 2
    assert "needs 6.4e-05 GB and takes least" in capsys.readouterr().err


def test_settings_are_kept_with_the_index(built):
    config = IndexConfig(kind="ivf")
    assert built("ivf").manifest["index"]["asked"] == dataclasses.asdict(config)
