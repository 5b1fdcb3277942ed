"""Which events become histories: filters against slow references, whatever the form of the table."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.data.interactions import EventFilters, build_histories
from mmrec.data.tables import read_interactions, scan_table
from mmrec.errors import ConfigError, DataError


def random_log(path: Path, rows: int = 600, users: int = 60, items: int = 40) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in draw.integers(users, size=rows) ** 2 // users],
            "item_id": [f"i{n}" for n in draw.integers(items, size=rows) ** 2 // items],
            "timestamp": draw.integers(1_600_000_000, 1_600_000_400, rows),
        }
    )
    table.write_csv(path)
    return table


def events_of(path: Path, filters: EventFilters | None = None) -> list[tuple]:
    """User, item and time of every event, in order."""
    ids = pl.Series([f"i{n}" for n in range(40)])
    found = build_histories(
        read_interactions(scan_table(path, ("user_id", "item_id"))),
        ids,
        str(path),
        filters=filters or EventFilters(),
        unknown_items="error",
    )
    users = np.repeat(found.user_ids.to_numpy(), found.lengths)
    events = zip(users.tolist(), found.columns["items"].tolist(), found.columns["timestamps"].tolist(), strict=True)
    return [(user, f"i{item}", time) for user, item, time in events]


def test_events_are_sorted_by_user_and_time_and_repetitions_count_once(tmp_path):
    table = random_log(tmp_path / "log.csv")
    distinct = table.unique(maintain_order=True)
    assert distinct.height < table.height
    assert events_of(tmp_path / "log.csv") == distinct.sort("user_id", "timestamp", maintain_order=True).rows()


def test_a_csv_a_compressed_csv_and_a_parquet_table_say_the_same(tmp_path):
    table = random_log(tmp_path / "log.csv")
    table.write_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress((tmp_path / "log.csv").read_bytes()))
    expected = events_of(tmp_path / "log.csv")
    assert events_of(tmp_path / "log.parquet") == expected
    assert events_of(tmp_path / "log.csv.gz") == expected


def test_a_type_that_only_a_late_row_tells_is_seen(tmp_path):
    rows = [("u", "i0", str(n)) for n in range(20_000)] + [("u", "i1", "20000.5")]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "log.csv")
    assert events_of(tmp_path / "log.csv")[-1] == ("u", "i1", 20_000)


@pytest.mark.parametrize(("of_user", "of_item"), [(8, 0), (0, 9), (8, 9), (10, 14)])
def test_the_core_is_that_of_leaving_out_one_by_one(tmp_path, of_user, of_item):
    events = random_log(tmp_path / "log.csv").unique(maintain_order=True)
    events.write_csv(tmp_path / "log.csv")
    left = events.sort("user_id", "timestamp", maintain_order=True).rows()
    while True:
        users, items = ([event[column] for event in left] for column in (0, 1))
        weak = [e for e in left if users.count(e[0]) < of_user or items.count(e[1]) < of_item]
        if not weak:
            break
        left = [event for event in left if event[0] != weak[0][0]] if users.count(weak[0][0]) < of_user else (
            [event for event in left if event[1] != weak[0][1]]
        )  # fmt: skip
    assert 0 < len(left) < events.height
    assert events_of(tmp_path / "log.csv", EventFilters(min_user_events=of_user, min_item_events=of_item)) == left


def test_a_window_of_time_holds_its_first_moment_and_not_its_last(tmp_path):
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u,i{n},{n * 86_400}\n" for n in range(6))
    )
    for since, until in (("1970-01-03", "1970-01-05"), ("172800", "345600"), ("1970-01-03T00:00:00Z", "1970-01-05")):
        found = events_of(tmp_path / "log.csv", EventFilters(since=since, until=until))
        assert [item for _, item, _ in found] == ["i2", "i3"]


def test_filters_are_counted_in_the_manifest_and_items_stay(tmp_path):
    random_log(tmp_path / "log.csv")
    pl.DataFrame({"item_id": [f"i{n}" for n in range(40)], "text": "x"}).write_csv(tmp_path / "items.csv")
    config = IngestConfig(items=tmp_path / "items.csv", interactions=tmp_path / "log.csv", out=tmp_path / "out")
    dataset = Dataset.open(ingest(replace(config, min_user_events=10, min_item_events=14, since="1600000010")))
    told = dataset.manifest["interactions"]
    assert dataset.num_items == 40
    assert told["left_out"].keys() == {"before_since", "outside_k_core", "RepeatedEvent"}
    assert told["given"] == told["kept"] + sum(told["left_out"].values())
    assert dataset.manifest["build"]["min_item_events"] == 14


def test_filters_that_cannot_be_applied_are_an_error(tmp_path):
    random_log(tmp_path / "log.csv")
    config = IngestConfig(interactions=tmp_path / "log.csv", out=tmp_path / "out")
    with pytest.raises(DataError, match=r"no event is left of 600 \(RepeatedEvent: 1, outside_k_core: 599"):
        ingest(replace(config, min_user_events=500))
    with pytest.raises(ConfigError, match="since is 'yesterday'; give a date"):
        replace(config, since="yesterday")
    with pytest.raises(ConfigError, match="min_user_events is -1"):
        replace(config, min_user_events=-1)
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,i1\n")
    with pytest.raises(DataError, match="no column 'timestamp'; add it, or leave --since"):
        ingest(replace(config, since="2020-01-01"))
