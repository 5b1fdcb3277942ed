"""Deletions and additions: every search after them is an exact search over what is left."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from eval.benchmarks.generated_export import clustered_vectors, write_export
from mmrec.cli import main
from mmrec.engine import Engine, Query
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.index import search_by_vector, search_by_vectors, vectors_at
from mmrec.index.build import IndexConfig, rebuild
from mmrec.index.removed import change_removed
from mmrec.index.update import update_index
from tests.asking import search_by_item

from .conftest import KINDS, Catalog, make_catalog

INDEXED = ("exact", "ivf", "hnsw", "sq8")


def ids_file(tmp_path, item_ids) -> str:
    (tmp_path / "ids.txt").write_text("".join(f"{item_id}\n" for item_id in item_ids) + "\n")
    return str(tmp_path / "ids.txt")


def recall_of(catalog: Catalog, export: ExportFolder, allowed: np.ndarray | None = None) -> float:
    queries = catalog.queries(40)
    answers = [{hit.item_id for hit in hits} for hits in search_by_vectors(export, queries, 10)]
    exact = [catalog.exact(query, 10, allowed) for query in queries]
    return float(np.mean([len(found & set(right)) / 10 for found, right in zip(answers, exact, strict=True)]))


@pytest.mark.parametrize("kind", KINDS)
def test_removed_items_are_in_no_answer_and_the_rest_is_found_as_before(catalog, copy_of, kind):
    path = copy_of(kind)
    gone = np.random.default_rng(0).random(len(catalog.item_ids)) < 0.3
    assert change_removed(path, catalog.item_ids[gone].tolist(), remove=True) == gone.sum()
    export = ExportFolder.open(path, verify=True)
    assert export.manifest["removed"]["items"] == gone.sum()
    assert recall_of(catalog, export, ~gone) >= (1 if kind in ("none", "exact") else 0.96)
    everything = search_by_vector(export, catalog.queries(1)[0], 4000)
    assert [hit.item_id for hit in everything] == catalog.exact(catalog.queries(1)[0], 4000, ~gone)
    right = ~gone & (np.array(catalog.attributes["side"]) == "right")
    for query in catalog.queries(5):
        hits = search_by_vector(export, query, 10, where={"side": ["right"]})
        assert [hit.item_id for hit in hits] == catalog.exact(query, 10, right)


@pytest.mark.parametrize("kind", KINDS)
def test_where_all_neighbours_are_removed_those_further_away_are_found(catalog, copy_of, kind):
    path = copy_of(kind)
    near = search_by_item(ExportFolder.open(path), str(catalog.item_ids[0]), 300)
    gone = np.isin(catalog.item_ids, [hit.item_id for hit in near])
    change_removed(path, catalog.item_ids[gone].tolist(), remove=True)
    hits = search_by_vector(ExportFolder.open(path), catalog.vectors[0], 10)
    assert len(hits) == 10
    assert not {hit.item_id for hit in hits} & set(catalog.item_ids[gone])
    if kind in ("none", "exact"):
        assert [hit.item_id for hit in hits] == catalog.exact(catalog.vectors[0], 10, ~gone)


def test_removing_and_restoring_from_the_command_line(copy_of, tmp_path, capsys):
    path = copy_of("ivf")
    before = search_by_item(ExportFolder.open(path), "p00001", 5)
    taken = [before[0].item_id, before[2].item_id]
    assert main(["index", str(path), "--remove", ids_file(tmp_path, taken)]) == 0
    assert capsys.readouterr().out == f"removed: 2 items; 2 are in no answer of {path}\n"
    assert main(["index", str(path), "--remove", ids_file(tmp_path, taken[:1])]) == 0
    assert capsys.readouterr().out == f"removed: 1 items; 2 are in no answer of {path}\n"
    left = [hit.item_id for hit in search_by_item(ExportFolder.open(path), "p00001", 3)]
    assert left == [hit.item_id for hit in before if hit.item_id not in taken]
    assert main(["index", str(path), "--restore", ids_file(tmp_path, taken)]) == 0
    assert search_by_item(ExportFolder.open(path, verify=True), "p00001", 5) == before
    assert not [*path.glob("removed_ids-*")]


def test_a_removed_item_is_no_query_but_stays_in_histories(catalog, copy_of):
    path = copy_of("exact")
    change_removed(path, ["p00001"], remove=True)
    export = ExportFolder.open(path)
    with pytest.raises(
        DataError, match=r"item 'p00001' was removed from .*; `mmrec index .* --restore` brings it back"
    ):
        search_by_item(export, "p00001", 3)
    with pytest.raises(DataError, match="item 'p00001' was removed"):
        Engine.open(path).search(Query(items=["p00002", "p00001"]))
    row = export.item_index("p00001")
    assert np.array_equal(vectors_at(export, np.array([row]))[0], catalog.vectors[row])
    assert len(search_by_vector(export, catalog.vectors[row], 3, exclude=["p00001"])) == 3


def test_an_index_that_is_built_again_keeps_what_was_removed(copy_of):
    path = copy_of("exact")
    change_removed(path, ["p00001", "p00002"], remove=True)
    export = rebuild(path, IndexConfig(kind="ivf"))
    assert export.manifest["removed"]["items"] == 2
    assert len(search_by_vector(export, np.ones(16), 4000)) == 3998


def test_ids_that_cannot_be_removed_change_nothing(catalog, copy_of, tmp_path):
    path = copy_of("exact")
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(DataError, match="unknown item_id 'nobody'"):
        change_removed(path, ["p00001", "nobody"], remove=True)
    with pytest.raises(DataError, match="would be left without an item to find"):
        change_removed(path, catalog.item_ids.tolist(), remove=True)
    assert (path / "manifest.json").read_bytes() == before
    empty = ids_file(tmp_path, [])
    for given, message in ((tmp_path / "nowhere.txt", "is no file"), (empty, "names no item")):
        assert main(["index", str(path), "--remove", str(given)]) == 2, message


def test_one_command_changes_one_thing(copy_of, tmp_path, capsys):
    ids = ids_file(tmp_path, ["p00001"])
    assert main(["index", str(copy_of("exact")), "--remove", ids, "--recall", "0.9"]) == 2
    assert "--remove does one thing alone; give --recall in a command of its own" in capsys.readouterr().err


@pytest.fixture(scope="module")
def newer(catalog, tmp_path_factory) -> Catalog:
    """The catalogue a day later: 300 items gone, 100 with other vectors, 400 new ones, all in another order."""
    generator = np.random.default_rng(5)
    kept = generator.permutation(4000)[:3700]
    vectors = catalog.vectors[kept].copy()
    vectors[:100] = np.concatenate([*clustered_vectors(100, 16, seed=9)])
    fresh = np.concatenate([*clustered_vectors(400, 16, seed=8)])
    made = make_catalog(tmp_path_factory.mktemp("newer") / "source", np.concatenate([vectors, fresh]))
    ids = np.concatenate([catalog.item_ids[kept], [f"q{n:03d}" for n in range(400)]])
    order = generator.permutation(len(ids))
    path = tmp_path_factory.mktemp("newer") / "export"
    write_export(path, [made.vectors[order][:2000], made.vectors[order][2000:]], item_ids=ids[order])
    return Catalog(path, made.vectors[order], ids[order], {})


@pytest.fixture
def newer_copy(newer, tmp_path):
    return shutil.copytree(newer.path, tmp_path / "newer")


@pytest.mark.parametrize("kind", INDEXED)
def test_a_newer_export_takes_over_the_index_and_every_item_is_found(newer, newer_copy, built, kind):
    done = update_index(newer_copy, built(kind).path)
    assert (done.kept, done.added, done.dropped) == (3600, 500, 400)
    assert done.anew == (kind == "exact")
    export = ExportFolder.open(newer_copy, verify=True)
    assert recall_of(newer, export) >= (1 if kind == "exact" else 0.96)
    query = newer.queries(1)[0]
    assert [hit.item_id for hit in search_by_vector(export, query, 5000)] == newer.exact(query, 5000)
    rows = np.arange(0, 4100, 7)
    assert np.array_equal(vectors_at(export, rows), newer.vectors[rows])
    if not done.anew:
        assert export.manifest["index"]["positions"] == 4500
        assert export.manifest["index"]["recall"]["measured"] >= 0.98


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_filters_and_removals_hold_in_an_index_that_was_taken_over(newer, newer_copy, copy_of, kind):
    old = copy_of(kind)
    still = [item_id for item_id in newer.item_ids[:50].tolist() if item_id.startswith("p")]
    change_removed(old, still, remove=True)
    update_index(newer_copy, old)
    export = ExportFolder.open(newer_copy)
    assert export.manifest["removed"]["items"] == len(still), "what was taken down stays so"
    allowed = ~np.isin(newer.item_ids, still)
    query = newer.queries(1)[0]
    assert [hit.item_id for hit in search_by_vector(export, query, 5000)] == newer.exact(query, 5000, allowed)


def test_one_day_after_the_other(newer, newer_copy, built, catalog, tmp_path, capsys):
    assert main(["index", str(newer_copy), "--update-from", str(built("ivf").path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "kept: 3,600 items as they were, 500 new or changed, 400 gone"
    assert second.startswith(f"indexed: {newer_copy}  (ivf, nlist 100, nprobe ")
    third = shutil.copytree(catalog.path, tmp_path / "third")
    done = update_index(third, newer_copy)  # back to the first catalogue
    assert (done.kept, done.added, done.anew) == (3600, 400, False)
    export = ExportFolder.open(third)
    query = catalog.queries(1)[0]
    assert [hit.item_id for hit in search_by_vector(export, query, 5000)] == catalog.exact(query, 5000)


def test_an_index_of_which_too_much_has_changed_is_built_anew(catalog, newer_copy, built, tmp_path):
    half = make_catalog(tmp_path / "half", catalog.vectors[:2000])
    done = update_index(half.path, built("ivf").path)
    assert done.anew
    assert ExportFolder.open(half.path).manifest["index"]["positions"] == 2000


def test_what_cannot_be_taken_over_is_refused(newer_copy, copy_of):
    old = copy_of("ivf")
    with pytest.raises(ConfigError, match="would be updated from itself"):
        update_index(old, old)
    with pytest.raises(DataError, match="has no index to start from"):
        update_index(old, newer_copy)
    manifest = json.loads((old / "manifest.json").read_text())
    (old / "manifest.json").write_text(json.dumps(manifest | {"model_hash": "b" * 64}))
    with pytest.raises(DataError, match=r"is of model bbbbbbbbbbbb, .*: their vectors do not compare"):
        update_index(newer_copy, old)
    assert main(["index", str(newer_copy), "--update-from", str(old)]) == 2
