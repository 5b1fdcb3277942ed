"""The code of mmrec/index/elsewhere.md runs as written, and finds what mmrec finds."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import mmrec.index
from mmrec.export_folder import ExportFolder
from mmrec.index import search_by_vector
from mmrec.index.removed import change_removed

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(mmrec.index.__file__).parent / "elsewhere.md").read_text(), re.DOTALL)


@pytest.fixture
def shop(copy_of, tmp_path, monkeypatch) -> Path:
    """An export in exports/shop of the working folder."""
    path = copy_of("none", "exports/shop")
    monkeypatch.chdir(tmp_path)
    return path


@pytest.mark.filterwarnings("ignore:Local mode is not recommended for collections")
def test_qdrant_finds_the_same_neighbours_with_and_without_filters(catalog, shop):
    change_removed(shop, catalog.item_ids[:5].tolist(), remove=True)
    names: dict = {}
    exec(BLOCKS[0], names)
    export = ExportFolder.open("exports/shop")
    for query in [*catalog.queries(3), catalog.vectors[0]]:
        for where in ({}, {"side": ["right"]}, {"rare": ["few", "one"], "side": ["left", "right"]}):
            theirs = names["search"](query, 10, where)
            ours = search_by_vector(export, query, 10, where=where)
            assert [item_id for item_id, _ in theirs] == [hit.item_id for hit in ours]
            np.testing.assert_allclose(
                [score for _, score in theirs], [hit.score for hit in ours], rtol=1e-4, atol=1e-6
            )


def test_the_table_for_pgvector_holds_the_vectors(catalog, shop):
    exec(BLOCKS[1], {})
    with Path("shop.csv").open(newline="") as file:
        rows = [*csv.reader(file)]
    assert [row[0] for row in rows] == catalog.item_ids.tolist()
    vectors = np.array([json.loads(row[2]) for row in rows], dtype=np.float32)
    assert np.array_equal(vectors, catalog.vectors)
