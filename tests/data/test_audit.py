"""What `mmrec check` says of a dataset: its facts, and leaks that were planted on purpose."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mmrec.cli import main
from mmrec.data.audit import facts, suspicions
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest

DAY = 86_400


def ingested(folder, rows: list[tuple[str, str, int]], texts: dict[str, str] | None = None) -> Dataset:
    """A dataset of (user, item, time)."""
    folder.mkdir(parents=True, exist_ok=True)
    users, items, times = zip(*rows, strict=True)
    table = {"user_id": users, "item_id": items, "timestamp": times}
    pl.DataFrame(table).write_csv(folder / "interactions.csv")
    ids = sorted(set(items))
    pl.DataFrame({"item_id": ids, "text": [(texts or {}).get(i, f"thing {i}") for i in ids]}).write_csv(
        folder / "items.csv"
    )
    tables = {"items": folder / "items.csv", "interactions": folder / "interactions.csv"}
    return Dataset.open(ingest(IngestConfig(**tables, out=folder / "dataset", num_workers=1)))


def honest(num_users: int = 40, num_items: int = 150) -> list[tuple[str, str, int]]:
    """Random items at times of their own."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(num_users):
        items = generator.choice(num_items, size=20, replace=False)
        times = np.sort(generator.choice(10_000, size=20, replace=False)) * 1000
        rows += [(f"u{user}", str(item), int(time)) for item, time in zip(items, times, strict=True)]
    return rows


def test_an_honest_log_raises_no_suspicion(tmp_path):
    assert list(suspicions(ingested(tmp_path, honest()))) == []


def test_the_facts_are_those_of_the_tables(tmp_path):
    rows = [("a", "1", 0), ("a", "2", DAY), ("b", "1", 2 * DAY), ("b", "2", 3 * DAY), ("b", "3", 4 * DAY)]
    found = facts(ingested(tmp_path, rows))
    assert found["items"] == "3 (0 without an event)"
    assert found["interactions (order: timestamp)"] == "5"
    assert found["share of all pairs"] == "8.33e-01"
    assert found["events a user"] == "2 to 3, median 2, mean 2.5"
    assert found["time"] == "1970-01-01 to 1970-01-05"
    assert found["items with text"] == "3 (100.0%)"


def test_ties_in_time_and_a_file_sorted_by_id_within_them_are_found(tmp_path):
    rows = [(user, item, time // 1_000_000 * 1_000_000) for user, item, time in honest()]
    rows.sort(key=lambda row: (row[0], row[2], int(row[1])))
    lines = list(suspicions(ingested(tmp_path, rows)))
    assert any("of neighbouring events have the same time" in line for line in lines)
    assert any("item ids ascend in 100% of the pairs" in line for line in lines)
    generator = np.random.default_rng(1)
    shuffled = [rows[place] for place in generator.permutation(len(rows))]
    lines = list(suspicions(ingested(tmp_path / "shuffled", shuffled)))
    assert not any("item ids ascend" in line for line in lines)


def test_indices_in_the_order_of_time_are_found(tmp_path, monkeypatch):
    """A dataset made without the random permutation of items: the index tells when an item came up."""
    dataset = ingested(tmp_path, honest())
    sequences = dataset.sequences
    order = np.argsort(sequences.timestamps, kind="stable")
    _, first = np.unique(sequences.item_idx[order], return_index=True)
    renamed = np.argsort(np.argsort(first))
    leaky = type(sequences)(**{**vars(sequences), "item_idx": renamed[sequences.item_idx].astype(np.int32)})
    monkeypatch.setitem(vars(dataset), "sequences", leaky)
    (line,) = suspicions(dataset)
    assert "item indices follow the time of an item's first event (rank correlation 1.00)" in line


def test_equal_media_of_several_items_are_found(tmp_path):
    dataset = ingested(tmp_path, honest(), dict.fromkeys(("1", "2", "3"), "no description"))
    (line,) = suspicions(dataset)
    assert line.startswith("3 items share their text with another, byte for byte (1 different ones")


@pytest.mark.parametrize("equal", [False, True])
def test_check_prints_facts_and_suspicions_and_still_succeeds(tmp_path, capsys, equal):
    dataset = ingested(tmp_path, honest(), dict.fromkeys(("1", "2"), "no description") if equal else None)
    assert main(["check", str(dataset.path)]) == 0
    printed = capsys.readouterr().out
    assert "events an item" in printed
    assert ("suspicious: 2 items share their text" in printed) == equal
