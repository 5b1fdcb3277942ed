"""How much each event counts: from the log to the sequences, through everything that is done to these."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from mmrec.data.audit import facts, problems
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.data.sequences import Sequences, id_array
from mmrec.data.splits import make_split
from mmrec.errors import DataError

ROWS = [("v", "c", 9, 0.25), ("u", "b", 2, 2.0), ("u", "a", 1, 1.0), ("u", "c", 3, 3.0), ("v", "a", 8, 0.5)]


def log(
    path: Path, rows: list[tuple], columns: tuple[str, ...] = ("user_id", "item_id", "timestamp", "weight")
) -> Path:
    pl.DataFrame(rows, schema=list(columns), orient="row").write_csv(path)
    return path


@pytest.fixture
def config(tmp_path) -> IngestConfig:
    return IngestConfig(interactions=log(tmp_path / "log.csv", ROWS), out=tmp_path / "out")


def test_weights_stand_beside_the_events_that_they_were_given_for(config):
    dataset = Dataset.open(ingest(config))
    sequences = dataset.sequences
    assert sequences.weights is not None
    assert sequences.weights.dtype == np.float32
    assert dataset.item_ids[sequences.item_idx].tolist() == ["a", "b", "c", "a", "c"]
    assert sequences.weights.tolist() == [1.0, 2.0, 3.0, 0.5, 0.25]
    assert dataset.manifest["interactions"]["weights"] == {"min": 0.25, "max": 3.0}
    assert facts(dataset)["weight of an event"] == "0.25 to 3, median 1"
    assert problems(dataset.path) == []
    stored = pa.ipc.open_file(str(dataset.path / "sequences" / "sequences.arrow")).read_all()
    assert stored.schema.field("weights").type == pa.large_list(pa.float32())


def test_without_a_column_all_events_count_alike(config, tmp_path):
    log(tmp_path / "log.csv", [row[:3] for row in ROWS], ("user_id", "item_id", "timestamp"))
    dataset = Dataset.open(ingest(config))
    assert dataset.sequences.weights is None
    assert dataset.manifest["interactions"]["weights"] is None
    assert "weight of an event" not in facts(dataset)


@pytest.mark.parametrize("weight", [None, float("nan"), float("inf"), 0.0, -1.0, 1e39, 1e-50])
def test_an_event_whose_weight_is_no_float32_above_zero_is_recorded(config, tmp_path, weight):
    table = pl.DataFrame({"user_id": "u", "item_id": ["a", "b"], "timestamp": [1, 2], "weight": [1.0, weight]})
    table.write_parquet(tmp_path / "log.parquet")
    out = ingest(replace(config, interactions=tmp_path / "log.parquet"))
    errors = pl.read_parquet(out / "errors.parquet").select("item_id", "modality", "error", "message").rows()
    message = "an event whose weight is no number above 0 (user 'u')"
    assert errors == [("b", "interactions", "UnusableWeight", message)]
    assert json.loads((out / "manifest.json").read_text())["interactions"]["left_out"] == {"UnusableWeight": 1}


def test_weights_in_words_are_an_error(config, tmp_path):
    log(tmp_path / "log.csv", [("u", "a", 1, "heavy")])
    with pytest.raises(DataError, match="column 'weight' is of type String; it must be a number above 0"):
        ingest(config)


def test_of_repeated_events_the_first_keeps_its_weight(config, tmp_path):
    log(tmp_path / "log.csv", [("u", "a", 1, 2.0), ("u", "a", 1, 5.0), ("u", "b", 0, 1.0)])
    assert Dataset.open(ingest(config)).sequences.weights.tolist() == [1.0, 2.0]


def test_filters_carry_weights(config, tmp_path):
    rows = [("u", "a", 1, 1.0, 5), ("u", "b", 2, 2.0, 1), ("u", "c", 3, 3.0, 5), ("v", "a", 4, 4.0, 5)]
    log(tmp_path / "log.csv", rows, ("user_id", "item_id", "timestamp", "weight", "rating"))
    found = Dataset.open(ingest(replace(config, min_rating=4.0, min_user_events=2, until="4"))).sequences
    assert found.weights.tolist() == [1.0, 3.0]


def test_appended_events_carry_weights_and_both_versions_have_them_or_neither(config, tmp_path):
    first = ingest(config)
    more = IngestConfig(
        interactions=log(tmp_path / "more.csv", [("u", "b", 1, 7.0)]), append_to=first, out=tmp_path / "two"
    )
    dataset = Dataset.open(ingest(more))
    sequences = dataset.sequences
    events = zip(dataset.item_ids[sequences.item_idx].tolist(), sequences.weights.tolist(), strict=True)
    assert list(events) == [("a", 1.0), ("b", 7.0), ("b", 2.0), ("c", 3.0), ("a", 0.5), ("c", 0.25)]
    assert dataset.manifest["interactions"]["weights"] == {"min": 0.25, "max": 7.0}
    assert problems(dataset.path) == []
    log(tmp_path / "more.csv", [("u", "b", 1)], ("user_id", "item_id", "timestamp"))
    with pytest.raises(DataError, match=r"has items, timestamps of events, .* has items, timestamps, weights; append"):
        ingest(replace(more, out=tmp_path / "three"))


def sequences() -> Sequences:
    """Two users with four and three events; the weight of an event is its item, its time, and its place."""
    return Sequences(
        user_ids=id_array(["u", "v"]),
        offsets=np.array([0, 4, 7]),
        item_idx=np.arange(7, dtype=np.int32),
        timestamps=np.arange(7),
        split=np.array([0, 0, 1, 2, 0, 1, 2], dtype=np.int8),
        order="timestamp",
        weights=np.arange(7, dtype=np.float32),
    )


def test_everything_that_is_done_to_sequences_carries_what_events_have():
    whole = sequences()
    per_event = [field.name for field in fields(Sequences) if len(np.atleast_1d(getattr(whole, field.name))) == 7]
    assert per_event == ["item_idx", "timestamps", "split", "weights"]
    parts = [whole.take(np.array([1, 0])), whole.select(whole.item_idx % 2 == 0)]
    parts.append(whole.gather(np.array([1]), np.array([2]), np.array([4, 6])))
    for split in ("provided", "leave_one_out", "global_time"):
        made = make_split(whole, 7, split, quantile=0.7)
        parts += [made.train, made.valid.history, made.test.history, made.test.take(np.array([0])).history]
    assert sum(len(part.item_idx) > 0 for part in parts) > 12
    for part in parts:
        assert len(part.item_idx) == part.offsets[-1]
        for name in ("timestamps", "weights"):
            assert getattr(part, name).tolist() == part.item_idx.tolist()
        assert part.split.tolist() == whole.split[part.item_idx].tolist()


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1, 2, 3, 0.5, np.nan], "have a weight that is no finite number above 0, for example nan"),
        ([1, 2, 3, 0.5, -0.25], "have a weight that is no finite number above 0, for example -0.25"),
        ([1, 2, 3, 0.5], "the lists of column 'weights' are not as long as those of 'items'"),
        ([1, 2, 3, 0.5, 0.75], r"says weights: .*0.25.*, the folder holds \{'min': 0.5, 'max': 3.0\}"),
        (None, "says weights: .* the folder holds None"),
    ],
)
def test_check_finds_weights_that_are_wrong(config, tmp_path, weights, words):
    path = Path(shutil.copytree(ingest(config), tmp_path / "copy")) / "sequences" / "sequences.arrow"
    table = pa.ipc.open_file(str(path)).read_all().drop_columns("weights")
    if weights is not None:
        ends = [0, 3, len(weights)]
        lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), pa.array(np.array(weights, np.float32)))
        table = table.append_column("weights", lists)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_batch(table.combine_chunks().to_batches()[0])
    assert [line for line in problems(tmp_path / "copy") if re.search(words, line)]
