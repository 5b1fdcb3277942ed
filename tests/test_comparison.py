"""`mmrec compare` on results folders: numbers against the records, and what it refuses."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest

from mmrec.cli import main
from mmrec.comparison import compare_results
from mmrec.data.splits import make_split
from mmrec.errors import ConfigError, DataError
from mmrec.evaluator import make_record, score_vectors, write_record


@pytest.fixture(scope="module")
def folders(tiny_dataset, tmp_path_factory):
    """Two runs of noise and one that knows the answers, on one protocol; and one on the validation part."""
    root = tmp_path_factory.mktemp("results")
    split = make_split(tiny_dataset.sequences, tiny_dataset.num_items)
    items = np.eye(24, dtype=np.float32)
    made = {}
    for name, part in (("noise", "test"), ("other", "test"), ("oracle", "test"), ("valid", "valid")):
        queries = split.test if part == "test" else split.valid
        users = np.random.default_rng(len(name)).standard_normal((len(queries), 24)).astype(np.float32)
        if name == "oracle":
            users[np.arange(len(queries)), queries.targets] += 3
        result = score_vectors(split, part, users, items)
        record = make_record(tiny_dataset, split, part, result)
        made[name] = write_record(root / name, record, tiny_dataset, split, part, result), record
    return made


def test_means_and_differences_are_those_of_the_records(folders) -> None:
    paths = [folders[name][0] for name in ("noise", "oracle")]
    found = compare_results(paths, ["ndcg@10", "mrr"])
    for row in found.runs.iter_rows(named=True):
        record = folders[row["run"]][1]
        assert row["mean"] == pytest.approx(record["metrics"][row["metric"]])
        assert [row["low"], row["high"]] == pytest.approx(record["confidence_interval"][row["metric"]])
    pair = found.pairs.row(0, named=True)
    assert pair["pair"] == "noise - oracle"
    difference = folders["noise"][1]["metrics"]["ndcg@10"] - folders["oracle"][1]["metrics"]["ndcg@10"]
    assert pair["difference"] == pytest.approx(difference)
    assert pair["high"] < 0
    assert max(pair["p_permutation"], pair["p_wilcoxon"], pair["p_holm"]) < 0.01
    assert found.num_queries == folders["noise"][1]["num_queries"]


def test_three_runs_are_three_pairs_and_holm_counts_them_all(folders) -> None:
    found = compare_results([folders[name][0] for name in ("noise", "other", "oracle")], ["hr@10"])
    assert found.pairs["pair"].to_list() == ["noise - other", "noise - oracle", "other - oracle"]
    assert (found.pairs["p_holm"] >= found.pairs["p_permutation"]).all()
    assert found.pairs["p_holm"].min() == pytest.approx(3 * found.pairs["p_permutation"].min())


def test_a_slice_is_the_slice_of_the_records(folders) -> None:
    found = compare_results([folders[name][0] for name in ("noise", "oracle")], ["hr@10"], "warm_items")
    expected = [folders[name][1]["slices"]["warm_items"]["metrics"]["hr@10"] for name in ("noise", "oracle")]
    assert found.runs["mean"].to_list() == pytest.approx(expected)


def test_different_protocols_are_refused_by_what_differs(folders) -> None:
    with pytest.raises(DataError, match="different protocols \\(part: test against valid"):
        compare_results([folders["noise"][0], folders["valid"][0]], ["hr@10"])


def test_what_cannot_be_compared_is_an_error(folders, tmp_path) -> None:
    noise, oracle = folders["noise"][0], folders["oracle"][0]
    with pytest.raises(ConfigError, match="needs two or more"):
        compare_results([noise], ["hr@10"])
    with pytest.raises(ConfigError, match="given twice"):
        compare_results([noise, noise], ["hr@10"])
    with pytest.raises(ConfigError, match="perhaps you meant 'ndcg@10'"):
        compare_results([noise, oracle], ["ndgc@10"])
    with pytest.raises(ConfigError, match="unknown slice 'cold_item'; perhaps you meant 'cold_items'"):
        compare_results([noise, oracle], ["hr@10"], "cold_item")
    with pytest.raises(DataError, match=r"holds no metrics\.json"):
        compare_results([noise, tmp_path], ["hr@10"])
    changed = tmp_path / "changed"
    shutil.copytree(oracle, changed)
    ranks = pl.read_parquet(changed / "ranks.parquet")
    ranks.with_columns(cold_item=pl.lit(False)).reverse().write_parquet(changed / "ranks.parquet")
    with pytest.raises(DataError, match="not hold the same queries"):
        compare_results([noise, changed], ["hr@10"])
    for folder in (noise, oracle):
        shutil.copytree(folder, tmp_path / f"warm-{folder.name}")
        path = tmp_path / f"warm-{folder.name}" / "ranks.parquet"
        pl.read_parquet(path).with_columns(cold_item=pl.lit(False)).write_parquet(path)
    with pytest.raises(DataError, match="no target is in the slice 'cold_items'"):
        compare_results([tmp_path / "warm-noise", tmp_path / "warm-oracle"], ["hr@10"], "cold_items")


def test_the_command_prints_both_tables_and_leaves_with_2_where_it_refuses(folders, tmp_path, capsys) -> None:
    noise, oracle, valid = (str(folders[name][0]) for name in ("noise", "oracle", "valid"))
    csv = tmp_path / "pairs.csv"
    assert main(["compare", noise, oracle, "--metric", "ndcg@10", "hr@3", "--csv", str(csv)]) == 0
    printed = capsys.readouterr().out
    assert json.loads((folders["noise"][0] / "metrics.json").read_text())["protocol"]["hash"] in printed
    assert "noise - oracle" in printed
    assert pl.read_csv(csv).height == 2
    assert main(["compare", noise, valid]) == 2
    assert "different protocols" in capsys.readouterr().err
