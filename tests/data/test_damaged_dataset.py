"""A dataset folder whose files are damaged in ways that their sizes do not show: one line, or a masked medium."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import xxhash

from mmrec.cli import main
from mmrec.data.dataset import Dataset
from mmrec.data.faults import FaultBudget
from mmrec.data.shard_reader import OpenFile, ShardReader
from mmrec.data.shards import Location
from mmrec.data.stream import stream_items
from mmrec.errors import DataError, MediaError
from mmrec.item_inputs import CatalogInputs, ItemInputs
from mmrec.modality_encoders import TextConfig
from tests.data.audit.test_problems import change_items, vouch


@pytest.fixture
def copy(tiny_dataset_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dataset_path, tmp_path / "copy"))


def use(path: Path) -> None:
    """Everything that a run does with the tables of a dataset."""
    dataset = Dataset.open(path)
    assert len(dataset.sequences.item_idx) >= 0
    assert dataset.modalities is not None
    dataset.features("vec")
    for modality in ("image", "vec"):
        for item in np.flatnonzero(dataset.present(modality)).tolist():
            with contextlib.suppress(MediaError):
                dataset.read(modality, item)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("items.parquet", r"items.parquet cannot be read as Parquet \(.*\); run `mmrec check`, and ingest the data"),
        ("sequences/sequences.arrow", r"sequences.arrow cannot be read as Arrow \(.*\); run `mmrec check`"),
        ("features/vec.npy", r"vec.npy cannot be read as .npy: it holds something else"),
        ("features/vec.present.npy", r"vec.present.npy cannot be read as .npy"),
    ],
)
def test_a_table_of_other_bytes_and_the_same_size_is_one_line(copy, name, words):
    (copy / name).write_bytes(b"\x11" * (copy / name).stat().st_size)
    with pytest.raises(DataError, match=words) as caught:
        use(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["items.parquet", "sequences/sequences.arrow", "features/vec.npy", "manifest.json"])
def test_damage_at_random_places_is_read_or_one_line(copy, name):
    generator = np.random.default_rng(0)
    whole = (copy / name).read_bytes()
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        # The ends hold what tells the rest: footers, headers, places.
        for place in generator.choice([*range(min(len(data), 400)), *range(-min(len(data), 400), 0)], size=4):
            data[place] ^= 1 << int(generator.integers(8))
        (copy / name).write_bytes(data)
        try:
            use(copy)
        except DataError as error:
            refused += "\n" not in str(error)
    assert refused > 10


def test_a_command_on_a_damaged_table_prints_one_line(copy, capsys):
    (copy / "items.parquet").write_bytes(b"\x11" * (copy / "items.parquet").stat().st_size)
    assert main(["train", "content", "--data", str(copy), "--out", str(copy.parent / "run")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"mmrec train: {copy}/items.parquet cannot be read as Parquet")


def test_a_column_that_is_not_there_is_one_line(copy):
    change_items(copy, lambda items: items.drop("audio.xxh3"))
    with pytest.raises(DataError, match=r"items.parquet lacks the column 'audio.xxh3'"):
        Dataset.open(copy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"files": None}, "manifest.json lacks files"),
        ({"files": [], "name": 3}, "manifest.json lacks name, files"),
        ({"files": {"items.parquet": {"bytes": "many"}}}, "tells no size and sha256 of items.parquet"),
        ({"files": {"items.parquet": 5}}, "tells no size and sha256 of items.parquet"),
    ],
)
def test_a_manifest_that_lacks_what_every_manifest_tells_is_one_line(copy, changes, words):
    manifest = json.loads((copy / "manifest.json").read_text()) | changes
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=words):
        Dataset.open(copy)


def test_vectors_of_fewer_items_or_another_kind_are_one_line(copy):
    for array in (np.zeros((23, 8), np.float32), np.zeros((24, 8), np.int32), np.zeros(24, np.float32)):
        np.save(copy / "features" / "vec.npy", array)
        vouch(copy)
        with pytest.raises(DataError, match=r"vec.npy holds .*, which does not go with 24 items; run `mmrec check`"):
            Dataset.open(copy).features("vec")
    np.save(copy / "features" / "vec.present.npy", np.ones(23, bool))
    vouch(copy)
    with pytest.raises(DataError, match=r"vec.present.npy holds bool of shape \(23,\)"):
        Dataset.open(copy).present("vec")


def test_sequences_without_items_are_one_line(copy):
    file = copy / "sequences" / "sequences.arrow"
    table = pa.ipc.open_file(io.BytesIO(file.read_bytes())).read_all()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.drop(["items"]).schema) as writer:
        writer.write_table(table.drop(["items"]))
    vouch(copy)
    with pytest.raises(DataError, match=r"sequences.arrow cannot be read as Arrow"):
        use(copy)


def change_values(copy: Path, column: str, change) -> None:
    """Let ``change`` edit offsets and values of a list column, as nothing but damage does."""
    file = copy / "sequences" / "sequences.arrow"
    table = pa.ipc.open_file(io.BytesIO(file.read_bytes())).read_all()
    chunk = table[column].chunk(0)
    offsets, values = np.array(chunk.offsets), np.array(chunk.values)
    values = change(offsets, values)
    buffers = [None, pa.py_buffer(offsets)]
    broken = pa.Array.from_buffers(chunk.type, len(chunk), buffers, children=[pa.array(values)])
    arrays = {name: broken if name == column else table[name].chunk(0) for name in table.column_names}
    batch = pa.RecordBatch.from_pydict(arrays)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    vouch(copy)


def test_histories_that_do_not_hang_together_are_one_line(copy, tiny_dataset_path):
    def back(offsets, values):
        offsets[3] = 10_000
        return values

    def shorter(offsets, values):
        offsets[1:] -= 1
        return values[1:]

    for change, column, words in (
        (back, "items", "lists of column 'items' do not hang together"),
        (shorter, "timestamps", "lists of column 'timestamps' are not as long as those of 'items'"),
        (lambda offsets, values: values + 1, "items", "name items outside of 0 to 23"),
        (lambda offsets, values: values - 1, "items", "name items outside of 0 to 23"),
    ):
        shutil.copy(tiny_dataset_path / "sequences" / "sequences.arrow", copy / "sequences" / "sequences.arrow")
        change_values(copy, column, change)
        with pytest.raises(DataError, match=words):
            use(copy)


def test_a_size_in_the_index_that_no_file_has_takes_no_memory(copy, tiny_dataset):
    """A size of an exabyte, or a place behind the end, is a damaged medium; nothing of that size is set aside."""
    item = int(np.flatnonzero(tiny_dataset.present("image"))[0])
    place = tiny_dataset.location("image", item)
    reader = ShardReader(copy)
    for offset, size in ((place.offset, 1 << 60), (place.offset, -1), (-1, place.size), (1 << 62, place.size)):
        with pytest.raises(MediaError, match=r"shard-00000.tar is damaged at byte"):
            reader.read(Location(place.shard, offset, size, place.xxh3))


def test_a_file_gives_all_of_a_range_or_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "file").open("rb") as source:
        import os

        file = OpenFile(os.dup(source.fileno()))
    assert file.read(4, 6) == b"6789"
    assert file.read(4, 7) == b""
    assert file.read(0, 10) == b""


def broken_text(copy: Path, number: int) -> None:
    """The texts of the first ``number`` items that have one are no UTF-8, and every hash is right."""
    dataset = Dataset.open(copy)
    hashes = dataset.attributes["text.xxh3"].to_list()
    for item in np.flatnonzero(dataset.present("text"))[:number].tolist():
        place = dataset.location("text", item)
        data = b"\xff" + dataset.read("text", item).encode()[1:]
        with (copy / "media" / "shard-00000.tar").open("r+b") as file:
            file.seek(place.offset)
            file.write(data)
        hashes[item] = xxhash.xxh3_64_intdigest(data)
    change_items(copy, lambda items: items.with_columns(pl.Series("text.xxh3", hashes, dtype=pl.UInt64)))


def test_a_text_that_is_no_utf8_is_a_fault_both_ways_of_reading(copy):
    broken_text(copy, 1)
    dataset = Dataset.open(copy)
    item = int(np.flatnonzero(dataset.present("text"))[0])
    with pytest.raises(MediaError, match="the stored text is no UTF-8: invalid start byte at byte 0"):
        dataset.read("text", item)
    faults = FaultBudget()
    samples = {sample["item_idx"]: sample for sample in stream_items(dataset, faults=faults)}
    assert (len(samples), faults.num_faults) == (24, 1)
    assert "text" not in samples[item]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.inf, np.nan, 1e30])
def test_a_vector_whose_length_is_no_number_is_a_fault(copy, tiny_dataset, value):
    item = int(np.flatnonzero(tiny_dataset.present("vec"))[0])
    vectors = np.load(copy / "features" / "vec.npy")
    vectors[item, 3] = value
    np.save(copy / "features" / "vec.npy", vectors)
    with pytest.raises(MediaError, match="the vector is damaged: its length is no finite number"):
        Dataset.open(copy).read("vec", item)


class Upper:
    """A preprocessing without a network: text in capital letters, of which one kind makes a thread late."""

    def __init__(self, late: int) -> None:
        self.late = late

    def __call__(self, text: str) -> str:
        import time

        time.sleep(0.01 * (hash(text) % 3 == self.late))
        return text.upper()

    def collate(self, samples: list[str]) -> dict:
        return {}


@pytest.mark.parametrize("num_threads", [1, 8])
def test_ranks_that_read_the_same_media_stop_at_the_same_one_with_the_same_words(copy, num_threads):
    """Whichever thread is first: 12 of 23 texts are damaged, and eleven are one too many."""
    broken_text(copy, 12)
    words = set()
    for late in (0, 1, 2):
        dataset = Dataset.open(copy)
        catalog = CatalogInputs(dataset, ItemInputs({"text": Upper(late)}), num_threads=num_threads)  # pyright: ignore
        with pytest.raises(DataError, match=r"12 of 23 media are damaged") as caught:
            catalog.warm()
        words.add(str(caught.value))
        assert catalog.faults == 12
    assert len(words) == 1


def test_reading_by_offset_and_as_a_stream_find_the_same_faults(copy, tiny_dataset):
    """Nine media of all kinds are damaged: both ways give the same samples, and count the same faults."""
    generator = np.random.default_rng(0)
    victims = {("text", 1), ("text", 5), ("image", 0)}
    for modality in ("image", "audio", "video"):
        items = np.flatnonzero(tiny_dataset.present(modality))
        victims |= {(modality, int(item)) for item in generator.choice(items, size=2, replace=False)}
    with (copy / "media" / "shard-00000.tar").open("r+b") as file:
        for modality, item in list(victims):
            place = tiny_dataset.location(modality, item)
            if place is None:
                victims.discard((modality, item))
                continue
            file.seek(place.offset + place.size // 2)
            byte = file.read(1)
            file.seek(place.offset + place.size // 2)
            file.write(bytes([byte[0] ^ 0x55]))
    dataset, faults = Dataset.open(copy), FaultBudget()
    by_offset, found = {}, set()
    for item in range(24):
        sample: dict = {"item_idx": item, "item_id": str(dataset.item_ids[item])}
        for modality in ("image", "text", "audio", "video"):
            if dataset.present(modality)[item]:
                try:
                    sample[modality] = dataset.read(modality, item)
                except MediaError:
                    found.add((modality, item))
        by_offset[item] = sample
    assert found == victims
    assert {sample["item_idx"]: sample for sample in stream_items(dataset, faults=faults)} == by_offset
    assert faults.num_faults == len(victims) >= 7


def test_a_batch_keeps_its_size_where_media_are_damaged(copy):
    broken_text(copy, 3)
    dataset = Dataset.open(copy)
    preprocessing = TextConfig().fit(dataset, "text", np.arange(24) >= 12)
    catalog = CatalogInputs(dataset, ItemInputs({"text": preprocessing}), num_threads=2)
    batch = catalog.batch(np.arange(24))
    assert len(batch.item_idx) == len(batch.present) == 24
    assert int(batch.present.sum()) == 23 - 3 == int(catalog.present.sum())
    assert catalog.faults == 3


def test_what_learns_from_all_texts_learns_from_those_that_can_be_read(copy):
    """Three damaged texts are left out: the baseline on content has no word of them, the tokenizer no piece."""
    from mmrec.baselines.content_knn import content_vectors
    from mmrec.modality_encoders import TextConfig

    broken_text(copy, 3)
    dataset = Dataset.open(copy)
    lost = np.flatnonzero(dataset.present("text"))[:3].tolist()
    texts = dict(dataset.texts(range(24)))
    assert sorted({*texts, *lost}) == np.flatnonzero(dataset.present("text")).tolist()
    assert not {*texts} & {*lost}
    manifest = json.loads((copy / "manifest.json").read_text()) | {"features": []}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    vectors = np.asarray(content_vectors(Dataset.open(copy)).todense())
    assert not vectors[[*lost, dataset.item_index("i23")]].any()
    assert vectors[sorted(texts)].any()
    assert TextConfig().fit(dataset, "text", np.ones(24, dtype=bool)).tokenizer.get_vocab_size() > 257
