"""Search in an export: exact, the same with and without FAISS, quick to start, and wary of damaged files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmrec.cli import main
from mmrec.cli_search import _json_hits
from mmrec.errors import ConfigError, DataError
from mmrec.export_folder import ExportFolder
from mmrec.index import search_by_vector
from mmrec.index.build import IndexConfig
from mmrec.index.opened import open_index
from mmrec.index.removed import change_removed
from mmrec.index.tuning import draw_sample
from tests.asking import search_by_item
from tests.exporting.test_users import mean_of


@pytest.fixture
def plain(run_export, encoder, tmp_path: Path) -> ExportFolder:
    return ExportFolder.open(run_export(encoder(), tmp_path / "plain").path)


@pytest.fixture
def indexed(run_export, encoder, tmp_path: Path) -> ExportFolder:
    return ExportFolder.open(run_export(encoder(), tmp_path / "indexed", index=True).path)


def query(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(6).astype(np.float32)


def change_manifest(path: Path, **values) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | values))


@pytest.mark.parametrize("seed", range(5))
def test_search_is_a_sort_of_all_inner_products(plain, seed):
    scores = plain.vectors.astype(np.float64) @ query(seed).astype(np.float64)
    best = np.argsort(-scores)[:4]
    hits = search_by_vector(plain, query(seed), 4)
    assert [hit.item_id for hit in hits] == plain.item_ids[best].tolist()
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    np.testing.assert_allclose([hit.score for hit in hits], scores[best], rtol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 24, 100])
def test_search_answers_alike_with_and_without_an_index(plain, indexed, k):
    for seed in range(5):
        assert search_by_vector(indexed, query(seed), k) == search_by_vector(plain, query(seed), k)
    assert search_by_item(indexed, "i04", k) == search_by_item(plain, "i04", k)


def test_search_with_an_index_does_not_read_the_parts(indexed):
    for path in (indexed.path / "embeddings").iterdir():
        path.unlink()
    assert len(search_by_item(indexed, "i04", 3)) == 3


def test_an_item_is_not_near_itself_and_titles_come_along(plain, tiny_dataset):
    hits = search_by_item(plain, "i04", 100)
    assert len(hits) == 23
    assert "i04" not in {hit.item_id for hit in hits}
    for hit in hits:
        assert hit.title == tiny_dataset.titles[tiny_dataset.item_index(hit.item_id)]


def test_a_hit_names_the_modalities_that_made_its_vector(plain, indexed, tiny_dataset):
    for export in (plain, indexed):
        for hit in search_by_item(export, "i04", 100):
            row = tiny_dataset.item_index(hit.item_id)
            assert hit.modalities == tuple(name for name in tiny_dataset.modalities if tiny_dataset.present(name)[row])


def test_equal_scores_stand_in_the_order_of_the_export(run_export, tmp_path):
    def two_directions(item_idx: np.ndarray) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[item_idx % 2]

    for index in (False, True):
        export = ExportFolder.open(run_export(two_directions, tmp_path / str(index), index=index).path)
        hits = search_by_vector(export, np.array([1.0, 0.0]), 24)
        assert [hit.item_id for hit in hits] == [*export.item_ids[0::2], *export.item_ids[1::2]]


def test_recommendations_leave_out_what_the_user_has(plain):
    first = search_by_vector(plain, query(0), 2)
    rest = search_by_vector(plain, query(0), 2, exclude=[hit.item_id for hit in first])
    assert [hit.item_id for hit in rest] == [hit.item_id for hit in search_by_vector(plain, query(0), 4)[2:]]
    assert rest[0].rank == 1


def test_the_json_form_holds_what_the_hits_hold(plain):
    hits = search_by_item(plain, "i04", 2)
    found = json.loads(json.dumps(_json_hits(hits, None)))
    assert found == [vars(hit) | {"modalities": list(hit.modalities)} for hit in hits]


def test_vectors_come_in_any_order_asked_for(plain, encoder):
    ids = plain.item_ids[[5, 0, 17]]
    assert np.array_equal(plain.vectors_of(ids), encoder()(np.array([5, 0, 17])))
    with pytest.raises(DataError, match="no vectors for 1 of 2 items, for example 'nobody'"):
        plain.vectors_of(["i04", "nobody"])


def test_bad_queries_are_refused_with_one_line(plain):
    with pytest.raises(DataError, match="unknown item_id 'i4'; perhaps you meant 'i"):
        search_by_item(plain, "i4", 3)
    with pytest.raises(ConfigError, match="k is 0"):
        search_by_item(plain, "i04", 0)
    with pytest.raises(DataError, match=r"shape \(5,\)"):
        search_by_vector(plain, np.ones(5), 3)
    with pytest.raises(DataError, match="NaN"):
        search_by_vector(plain, np.full(6, np.nan), 3)


def test_a_repeated_export_keeps_its_index_and_what_was_removed_and_restores_what_was_damaged(
    run_export, encoder, tmp_path
):
    asked = IndexConfig(kind="ivf", recall=0.5)
    out = run_export(encoder(), tmp_path / "out", index=asked).path
    change_removed(out, ["i04", "i05"], remove=True)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for again in (False, asked):
        run_export(encoder(), out, index=again)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "index.faiss").write_bytes(b"damaged")
    run_export(encoder(), out)
    assert (out / "index.faiss").read_bytes() == before[out / "index.faiss"]
    export = ExportFolder.open(out, verify=True)
    assert (export.manifest["index"]["kind"], export.manifest["removed"]["items"]) == ("ivf", 2)
    assert len(search_by_vector(export, query(0), 24)) == 22


def test_an_index_is_tuned_on_the_users_of_the_export_too(run_export, encoder, tmp_path):
    asked = IndexConfig(kind="ivf", recall=0.5)
    run_export(encoder(), tmp_path / "out", encode_users=mean_of, users=True, index=asked)
    export = ExportFolder.open(tmp_path / "out")
    queries = draw_sample(export, open_index(export), None, seed=0).queries
    users = {vector.tobytes() for vector in export.users.vectors}
    asked_for = [query.tobytes() in users for query in queries]
    assert (len(queries), sum(asked_for)) in {(1000, 7), (1000, 2)}, "the users of one part, the rest near items"
    assert export.manifest["index"]["recall"]["measured"] >= 0.5


def test_a_recall_without_an_index_is_refused(capsys):
    assert main(["export", "run", "--data", "data", "--out", "out", "--recall", "0.9"]) == 2
    assert capsys.readouterr().err == "mmrec export: --recall is of an index; give --index too\n"


@pytest.mark.parametrize("name", ["embeddings/part-00001.parquet", "items.parquet", "model/config.json"])
def test_a_damaged_file_is_named(plain, name):
    path = plain.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=f"{name} is damaged: its sha256"):
        ExportFolder.open(plain.path, verify=True)
    path.write_bytes(bytes(data)[:-1])
    with pytest.raises(DataError, match=f"{name} is damaged: .* bytes, the manifest says"):
        ExportFolder.open(plain.path)
    path.unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        ExportFolder.open(plain.path)


def test_a_damaged_part_or_index_is_noticed_when_it_is_read(plain, indexed):
    for export, name in ((plain, "embeddings/part-00001.parquet"), (indexed, "index.faiss")):
        path = export.path / name
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(DataError, match=f"{name} is damaged"):
            search_by_item(export, "i04", 3)


def test_exports_of_another_version_and_other_folders_are_refused(plain, tmp_path):
    change_manifest(plain.path, schema_version=1)
    with pytest.raises(DataError, match="has version 1 of the export format; this mmrec reads version 2"):
        ExportFolder.open(plain.path)
    change_manifest(plain.path, schema="mmrec.dataset")
    with pytest.raises(DataError, match=r"has schema 'mmrec.dataset', not 'mmrec.export'"):
        ExportFolder.open(plain.path)
    (plain.path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        ExportFolder.open(plain.path)
    with pytest.raises(DataError, match="is no export folder"):
        ExportFolder.open(tmp_path)


def test_a_wrong_count_is_refused(plain):
    change_manifest(plain.path, num_items=25)
    with pytest.raises(DataError, match="lists 24 rows in its parts but 25 items"):
        ExportFolder.open(plain.path)


def test_search_loads_neither_torch_nor_other_slow_packages(indexed):
    program = (
        "import sys, mmrec; from mmrec.engine import Query; mmrec.load(sys.argv[1]).search(Query(items=['i04']), 3);"
        "print([name for name in ('torch', 'transformers', 'polars', 'pandas', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(indexed.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
