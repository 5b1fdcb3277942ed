"""What `mmrec check` says of a sound dataset: its facts, and leaks that were planted on purpose."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from mmrec.cli import main
from mmrec.data.audit import coverage, facts, faults, patterns, suspicions
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest

DAY = 86_400


def ingested(
    folder, rows: list[tuple[str, str, float]], texts: dict[str, str] | None = None, **columns: dict[str, object]
) -> Dataset:
    """A dataset of (user, item, time); ``columns`` are attributes by item."""
    folder.mkdir(parents=True, exist_ok=True)
    users, items, times = zip(*rows, strict=True)
    table = {"user_id": users, "item_id": items, "timestamp": times}
    pl.DataFrame(table).write_csv(folder / "interactions.csv")
    ids = sorted(set(items))
    attributes = {name: [values.get(item) for item in ids] for name, values in columns.items()}
    text = [(texts or {}).get(item, f"thing {item}") for item in ids]
    pl.DataFrame({"item_id": ids, "text": text, **attributes}).write_csv(folder / "items.csv")
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
    assert found["share of all pairs"] == "83.3% (sparsity 16.67%)"
    assert found["events a user"] == "2 to 3, median 2, mean 2.5"
    assert found["time"] == "1970-01-01 to 1970-01-05"
    assert found["events of the top 1% of items"] == "40.0%"
    assert found["the same item again, later"] == "0 events (0.0%)"


def test_coverage_gives_shares_and_sizes_and_patterns_what_items_have_together(tiny_dataset):
    found = {row.modality: row for row in coverage(tiny_dataset)}
    assert (found["audio"].num_items, found["audio"].share) == (8, 8 / 24)
    assert found["audio"].sizes["duration"] == (0.5, 0.5, 0.5, "s")
    assert found["image"].sizes["width"] == (48.0, 48.0, 48.0, "px")
    together = patterns(tiny_dataset)
    assert sum(count for _, count in together) == 24
    assert dict(together)[()] == 1
    assert [count for _, count in together] == sorted((count for _, count in together), reverse=True)


def test_faults_of_one_cause_are_counted_together(tmp_path):
    items = "".join(f"{name},{name}.jpg\n" for name in "abc")
    (tmp_path / "items.csv").write_text("item_id,image\n" + items)
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,3\n")
    (tmp_path / "a.jpg").write_bytes(b"<html>")
    (tmp_path / "b.jpg").write_bytes(b"<html>")
    tables = {name: tmp_path / f"{name}.csv" for name in ("items", "interactions")}
    dataset = Dataset.open(ingest(IngestConfig(**tables, out=tmp_path / "dataset", num_workers=1)))
    counted = {fault.cause: fault.count for fault in faults(dataset) if fault.modality == "image"}
    html = "not a readable image (it looks like HTML or XML): UnidentifiedImageError"
    assert counted == {html: 2, "no such file": 1}


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


# Repetitions


def test_one_act_logged_twice_is_told_apart_from_an_item_taken_again(tmp_path):
    rows = [(user, item, time + 0.0) for user, item, time in honest()]
    twice = [(user, item, time + 0.5) for user, item, time in rows[:7]]
    dataset = ingested(tmp_path, rows + twice)
    (line,) = [line for line in suspicions(dataset) if "repeat" in line]
    assert line.startswith("7 events (0.9%) repeat user, item and time of another")
    assert facts(dataset)["the same item again, later"] == "0 events (0.0%)"
    again = [(user, item, time + 3 * DAY + n) for n, (user, item, time) in enumerate(rows[:80])]
    dataset = ingested(tmp_path / "again", rows + again)
    (line,) = [line for line in suspicions(dataset) if "again" in line or "had before" in line]
    assert line.startswith("in 80 events (9.1%) users take an item that they had before")


def test_times_that_stand_for_unknown_ones_and_times_to_come_are_found(tmp_path):
    rows = [(user, item, time + 10**9) for user, item, time in honest()]
    unknown = [(f"u{n}", str(n), 0) for n in range(8)]
    (line,) = suspicions(ingested(tmp_path / "unknown", [*rows, *unknown]))
    assert line.startswith("8 events (1.0%) have the time 0 (1970) or less, most others are later")
    to_come = [(f"u{n}", "149", 9 * 10**9 + 1000 * n) for n in range(4)]
    lines = list(suspicions(ingested(tmp_path / "future", [*rows, *to_come])))
    assert any(line.startswith("4 events (0.5%) lie in the future") for line in lines)


# The future in what training reads


def test_a_count_of_all_events_is_found_and_honest_numbers_are_not(tmp_path):
    """``sold`` counts test events too; ``price`` is random; ``sold_before`` counts training events alone."""
    generator = np.random.default_rng(3)
    weights = generator.lognormal(0, 1, 150)
    rows = []
    for user in range(300):
        items = generator.choice(150, size=8, replace=False, p=weights / weights.sum())
        start = int(generator.integers(0, 10**8))
        rows += [(f"u{user}", str(item), start + 1000 * n) for n, item in enumerate(items)]
    sold = {str(item): 0 for item in range(150)}
    before = dict(sold)
    for n, (_, item, _) in enumerate(rows):
        sold[item] += 1
        before[item] += n % 8 < 6
    price = {item: round(float(generator.lognormal(3, 1)), 2) for item in sold}
    about = {item: f"rated 4 stars, {1000 + number:,} reviews" for item, number in sold.items()}
    (line,) = suspicions(ingested(tmp_path / "numbers", rows, sold=sold, sold_before=before, price=price))
    assert line.startswith("column 'sold' follows the number of an item's test events (rank correlation 0.")
    (line,) = suspicions(ingested(tmp_path / "texts", rows, about=about))
    assert line.startswith("column 'about' follows the number of an item's test events")


def test_a_text_that_names_a_user_is_found(tmp_path):
    rows = [(f"user-{user}", item, time) for user, item, time in honest()]
    line = next(suspicions(ingested(tmp_path, rows, {"7": "sold to user-u3, who liked it"})))
    assert line.startswith("texts of 1 items hold a user_id (that of item '7': 'user-u3')")
    assert list(suspicions(ingested(tmp_path / "words", rows, {"7": "sold to a user, u3"}))) == []


def with_a_new_item(item_id: str) -> list[tuple[str, str, int]]:
    """Honest events, and one item that two users take last of all."""
    return [*honest(), ("u1", item_id, 2 * 10**7), ("u2", item_id, 2 * 10**7 + 5000)]


@pytest.mark.parametrize(
    "text",
    ["goes well with B00X12 and others", "thing 5, by the makers of the Grand Copper Kettle!"],
)
def test_a_training_text_that_names_an_item_of_the_test_alone_is_found(tmp_path, text):
    texts = {"B00X12": "The Grand Copper Kettle", "5": text}
    (line,) = suspicions(ingested(tmp_path, with_a_new_item("B00X12"), texts))
    assert line.startswith("texts of 1 training items name an item that comes up in the test alone ('5 names B00X12')")


def test_naming_an_item_that_training_knows_or_by_a_common_word_is_no_leak(tmp_path):
    texts = {"B00X12": "Kettle", "5": "a kettle, like 7 and thing 8", "6": "see thing 5"}
    assert list(suspicions(ingested(tmp_path, with_a_new_item("B00X12"), texts))) == []


def test_dates_after_an_items_first_event_are_found_in_texts_and_columns(tmp_path):
    texts = {str(item): f"thing {item}, as seen on 1971-05-0{item}" for item in range(1, 5)}
    (line,) = suspicions(ingested(tmp_path / "texts", honest(), texts))
    assert line.startswith("the text of 4 items (")
    assert "holds a date after the item's first event (1971-05-0" in line
    (line,) = suspicions(ingested(tmp_path / "column", honest(), checked={str(n): "1971-05-01" for n in range(9)}))
    assert line.startswith("column 'checked' of 9 items (")
    before = {item: text.replace("1971", "1969") for item, text in texts.items()}
    assert list(suspicions(ingested(tmp_path / "before", honest(), before))) == []


def test_a_dataset_that_nothing_can_be_asked_of_says_so(tmp_path):
    (line,) = suspicions(ingested(tmp_path, [("a", "1", 0), ("b", "2", 5)]))
    assert "leave_one_out needs users with 3 or more events" in line
