"""The evaluation record on the tiny dataset: against arithmetic done here, and as files."""

from __future__ import annotations

import io
import json

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from mmrec.data.splits import make_split
from mmrec.errors import ConfigError, DataError
from mmrec.evaluator import make_record, run_baselines, score_vectors, write_record
from mmrec.metrics.slices import item_groups, training_events
from mmrec.report import render_report, summary_rows, summary_table, verdict


@pytest.fixture(scope="module")
def split(tiny_dataset):
    return make_split(tiny_dataset.sequences, tiny_dataset.num_items)


@pytest.fixture(scope="module")
def vectors(tiny_dataset, split):
    generator = np.random.default_rng(0)
    users = generator.standard_normal((len(split.test), 6)).astype(np.float32)
    return users, generator.standard_normal((tiny_dataset.num_items, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def result(split, vectors):
    return score_vectors(split, "test", *vectors)


@pytest.fixture(scope="module")
def baselines(tiny_dataset, split):
    return run_baselines(tiny_dataset, split, "test", progress=False)


@pytest.fixture(scope="module")
def record(tiny_dataset, split, result, baselines):
    return make_record(
        tiny_dataset, split, "test", result,
        baselines=baselines, cost={"seconds": 1.5, "device": "cpu"}, model={"name": "noise", "hash": "0123"},
        category=item_groups(tiny_dataset, "category"), provider=item_groups(tiny_dataset, "category"),
    )  # fmt: skip


def test_the_means_are_those_of_a_loop_over_the_queries(split, vectors, record) -> None:
    users, items = (matrix.astype(np.float64) for matrix in vectors)
    hits, gains, reciprocal = [], [], []
    for query in range(len(split.test)):
        scores, target = users[query] @ items.T, split.test.targets[query]
        scores[[v for v in split.test.history.items_of(query) if v != target]] = -np.inf
        rank = int((scores > scores[target]).sum())
        hits.append(rank < 10)
        gains.append(1 / np.log2(rank + 2) if rank < 10 else 0)
        reciprocal.append(1 / (rank + 1))
    assert record["metrics"]["hr@10"] == pytest.approx(np.mean(hits))
    assert record["metrics"]["ndcg@10"] == pytest.approx(np.mean(gains))
    assert record["metrics"]["mrr"] == pytest.approx(np.mean(reciprocal))
    low, high = record["confidence_interval"]["ndcg@10"]
    assert low < record["metrics"]["ndcg@10"] < high


def test_complementary_slices_average_to_the_whole(record) -> None:
    slices = record["slices"]
    parts = [["warm_items", "cold_items"], ["has_image", "missing_image"], ["has_vec", "missing_vec"]]
    groups = [[slices[name] for name in names if name in slices] for names in parts]
    named = ("history_length", "popularity", "popularity_decile", "modalities", "time", "category")
    groups += [list(slices[group].values()) for group in named]
    for group in groups:
        sizes = [part["num_targets"] for part in group]
        assert sum(sizes) == record["num_targets"]
        for name, whole in record["metrics"].items():
            assert np.average([part["metrics"][name] for part in group], weights=sizes) == pytest.approx(whole)


def test_every_baseline_is_measured_on_the_same_queries_and_on_new_items(record) -> None:
    baselines = record["baselines"]
    assert {"random", "popularity", "item_knn", "sequential_rules", "best_mixture", "content_knn"} <= set(baselines)
    for name, measured in baselines.items():
        assert measured["num_queries"] == record["num_queries"], name
        assert set(measured["metrics"]) == set(record["metrics"]), name
        for slice_name in ("cold_items", "warm_items"):
            assert (slice_name in measured["slices"]) == (slice_name in record["slices"]), name
        assert "confidence_interval" in measured or name == "random"
    assert baselines["random"]["metrics"]["hr@50"] == 1, "the catalogue has fewer than 50 items"


def test_settings_of_baselines_do_not_depend_on_the_test_part(tiny_dataset, split, baselines) -> None:
    on_valid = run_baselines(tiny_dataset, split, "valid", progress=False)
    for name, measured in baselines.items():
        assert measured.get("settings") == on_valid[name].get("settings"), name


def test_the_hash_of_the_protocol_tells_part_and_split_apart_and_nothing_else(
    tiny_dataset, split, vectors, record
) -> None:
    other = score_vectors(split, "test", -vectors[0], vectors[1])
    again = make_record(tiny_dataset, split, "test", other)
    valid = make_record(tiny_dataset, split, "valid", score_vectors(split, "valid", *vectors))
    by_time = make_split(tiny_dataset.sequences, tiny_dataset.num_items, "global_time")
    users = np.ones((len(by_time.test), 6), dtype=np.float32)
    timed = make_record(tiny_dataset, by_time, "test", score_vectors(by_time, "test", users, vectors[1]))
    assert again["protocol"]["hash"] == record["protocol"]["hash"]
    assert len({one["protocol"]["hash"] for one in (record, valid, timed)}) == 3
    assert again["metrics"] != record["metrics"]


def test_vectors_that_say_nothing_earn_what_chance_earns_at_most(tiny_dataset, split) -> None:
    users = np.zeros((len(split.test), 4), dtype=np.float32)
    flat = make_record(tiny_dataset, split, "test", score_vectors(split, "test", users, np.ones((24, 4), np.float32)))
    for name in ("hr@1", "hr@5", "ndcg@5", "mrr"):
        assert flat["metrics"][name] <= flat["baselines"]["random"]["metrics"][name], name


def test_new_items_are_ranked_and_counted(record, split, tiny_dataset) -> None:
    cold = training_events(split)[split.test.targets] == 0
    assert record["slices"].get("cold_items", {}).get("num_targets", 0) == cold.sum()
    assert record["data"]["cold_items"] == int((training_events(split) == 0).sum())
    assert 0 < record["beyond_accuracy"]["coverage@10"] <= 1
    assert {"gini@10", "novelty@10", "diversity@10", "popularity_lift@10", "miscalibration@10"} <= set(
        record["beyond_accuracy"]
    )


def test_exposure_is_told_by_popularity_by_what_items_have_and_by_provider(record, tiny_dataset) -> None:
    exposure = record["exposure"]
    assert set(exposure) == {"popularity_decile", "modalities", "provider"}
    assert set(exposure["provider"]) == {"red", "green", "blue", "grey"}
    for groups in exposure.values():
        assert sum(group["items"] for group in groups.values()) == tiny_dataset.num_items
        assert sum(group["exposure"] for group in groups.values()) == pytest.approx(1)
        assert sum(group["merit"] for group in groups.values()) == pytest.approx(1)


def test_a_column_that_is_not_there_or_tells_all_items_apart_is_an_error(tiny_dataset) -> None:
    with pytest.raises(ConfigError, match="perhaps you meant 'category'"):
        item_groups(tiny_dataset, "categories")
    with pytest.raises(ConfigError, match="groups nothing"):
        item_groups(tiny_dataset, "title")


def test_the_wrong_number_of_vectors_is_an_error(split, vectors) -> None:
    with pytest.raises(DataError, match="user vectors"):
        score_vectors(split, "test", vectors[0][1:], vectors[1])
    with pytest.raises(DataError, match="item vectors"):
        score_vectors(split, "test", vectors[0], vectors[1][1:])


def test_the_folder_holds_the_record_the_ranks_and_the_report(tiny_dataset, split, result, record, tmp_path) -> None:
    out = write_record(tmp_path / "a/b", record, tiny_dataset, split, "test", result)
    assert json.loads((out / "metrics.json").read_text()) == record
    ranks = pl.read_parquet(out / "ranks.parquet")
    assert ranks["rank"].to_list() == result.ranks.tolist()
    assert ranks["item_id"].to_list() == tiny_dataset.item_ids[split.test.targets].tolist()
    assert ranks["user_id"].to_list() == tiny_dataset.sequences.user_ids[split.test.user].tolist()
    assert (ranks["rank"] < 10).mean() == pytest.approx(record["metrics"]["hr@10"]), "one target a query here"
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "ranks.parquet", "report.html"]
    assert [path.name for path in out.parent.iterdir()] == ["b"], "nothing temporary is left"


def test_results_are_not_replaced_unless_asked(tiny_dataset, split, result, record, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="exists already"):
        write_record(out, record, tiny_dataset, split, "test", result)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    write_record(out, record, tiny_dataset, split, "test", result, overwrite=True)
    assert not (out / "mine.txt").exists()
    assert (out / "metrics.json").exists()


def test_the_report_loads_nothing_and_escapes_names(record) -> None:
    page = render_report(record | {"model": {"name": "<b>&noise"}})
    assert "&lt;b&gt;&amp;noise" in page
    assert "<b>&noise" not in page.replace("&lt;b&gt;&amp;noise", "")
    for loads in ("<script", "<link", "@import", 'src="', "url(http"):
        assert loads not in page
    assert f"{record['metrics']['ndcg@10']:.4f}" in page
    assert "<svg" in page
    assert record["protocol"]["hash"] in page


def test_a_record_read_back_from_its_file_gives_the_same_report_and_table(record) -> None:
    read = json.loads(json.dumps(record))
    assert summary_rows(read) == summary_rows(record)
    # Ids inside the drawings are random.
    assert len(render_report(read)) == pytest.approx(len(render_report(record)), rel=0.01)
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(summary_table(read))
    text = captured.get()
    assert "noise" in text
    assert all(name in text for name in record["baselines"])


def test_a_run_that_loses_to_a_baseline_says_so_first(record) -> None:
    lost = {**record, "metrics": dict.fromkeys(record["metrics"], 0.0)}
    assert verdict(lost).startswith(
        f"Loses to {len(record['baselines']) - 1} of {len(record['baselines']) - 1} baselines."
    )
    assert render_report(lost).index("Loses to ") < render_report(lost).index("<h2>")
    won = {**record, "metrics": dict.fromkeys(record["metrics"], 1.0)}
    assert verdict(won).startswith("NDCG@10 is 1.0000, above the best baseline")


def test_a_record_without_baselines_still_has_chance_and_a_report(tiny_dataset, split, result) -> None:
    alone = make_record(tiny_dataset, split, "test", result)
    assert list(alone["baselines"]) == ["random"]
    assert "No baselines were run" in render_report(alone)
