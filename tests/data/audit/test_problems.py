"""What `mmrec check` calls wrong: each fault is planted in a copy of the tiny dataset and must give just its line.

The copy's manifest is brought up to date with the changed files, so that the checksums hold and the fault itself has
to be seen.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import xxhash

from mmrec.cli import main
from mmrec.data.audit import problems
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.data.synthetic import make_world


@pytest.fixture
def copy(tiny_dataset_path, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_dataset_path, tmp_path / "copy"))


def vouch(folder: Path, **changes: object) -> None:
    """Put the present sizes and hashes of all files, and ``changes``, into the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        if (folder / name).is_file():
            facts.update(
                bytes=(folder / name).stat().st_size, sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest()
            )
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def change_items(folder: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    change(pl.read_parquet(folder / "items.parquet")).write_parquet(folder / "items.parquet")
    vouch(folder)


def set_cell(folder: Path, item_id: str, column: str, value: object) -> None:
    changed = pl.when(pl.col("item_id") == item_id).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)
    change_items(folder, lambda items: items.with_columns(changed.cast(items.schema[column])))


def change_histories(folder: Path, change: Callable[[dict[str, list]], None]) -> None:
    """Let ``change`` edit the columns of sequences.arrow, lists a user."""
    file = folder / "sequences" / "sequences.arrow"
    columns = pa.ipc.open_file(io.BytesIO(file.read_bytes())).read_all().to_pydict()
    change(columns)
    kinds = {"items": pa.int32(), "timestamps": pa.int64(), "positions": pa.int64(), "split": pa.int8()}
    arrays = {
        name: pa.array(values, pa.large_list(kinds[name]) if name in kinds else pa.string())
        for name, values in columns.items()
    }
    batch = pa.RecordBatch.from_pydict(arrays)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    vouch(folder)


def place(folder: Path, item_id: str, modality: str) -> tuple[int, int]:
    """Offset and size of a medium of the only shard."""
    row = pl.read_parquet(folder / "items.parquet").row(by_predicate=pl.col("item_id") == item_id, named=True)
    return row[f"{modality}.offset"], row[f"{modality}.size"]


def overwrite(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as handle:
        handle.seek(offset)
        handle.write(data)


def the_line(folder: Path) -> str:
    (line,) = problems(folder)
    return line


def test_a_clean_dataset_has_no_problems(tiny_dataset_path):
    assert problems(tiny_dataset_path) == []


def test_the_world_of_the_demo_has_no_problems(tmp_path):
    make_world(tmp_path / "world", num_items=40, num_users=30)
    tables = {name: tmp_path / "world" / f"{name}.csv" for name in ("items", "interactions")}
    config = IngestConfig(**tables, text_columns=("title", "description"), out=tmp_path / "dataset", num_workers=1)
    assert problems(ingest(config)) == []


# Files


def test_a_folder_that_is_no_dataset_is_one_problem(tmp_path):
    assert "no dataset folder" in the_line(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text('{"schema": "mmrec.dataset", "schema_version": 2}')
    assert "lacks name, counts, files" in the_line(tmp_path)


def test_a_file_that_is_missing_is_named(copy):
    (copy / "errors.parquet").unlink()
    assert the_line(copy) == f"{copy / 'errors.parquet'} is missing; ingest the data again"


def test_a_file_that_its_hash_does_not_vouch_for_is_named(copy):
    overwrite(copy / "errors.parquet", 6, b"\xff")
    assert "errors.parquet is damaged: its sha256" in problems(copy)[0]


def test_a_shard_of_nobody_is_found(copy):
    shutil.copy(copy / "media" / "shard-00000.tar", copy / "media" / "shard-00001.tar")
    assert the_line(copy).endswith("shard-00001.tar is not in the manifest; remove it")


@pytest.mark.parametrize("name", ["items.parquet", "sequences/sequences.arrow", "features/vec.npy"])
def test_a_table_that_cannot_be_read_is_named_and_the_rest_is_judged(copy, name):
    (copy / name).write_bytes(b"nothing that anybody reads" * 10)
    vouch(copy)
    assert f"{name} cannot be read as" in the_line(copy)


@pytest.mark.parametrize("what", ["items", "users", "events", "errors"])
def test_a_wrong_count_in_the_manifest_is_found(copy, what):
    counts = manifest_of(copy)["counts"]
    vouch(copy, counts=counts | {what: counts[what] + 1})
    assert f"manifest.json says {what}: {counts[what] + 1}, the folder holds {counts[what]}" in the_line(copy)


def test_a_wrong_count_of_media_is_found(copy):
    counts = manifest_of(copy)["counts"]
    vouch(copy, counts=counts | {"media": counts["media"] | {"image": {"ok": 24}}})
    assert "says items by status of their image: {'ok': 24}" in the_line(copy)


def test_a_wrong_number_of_rows_in_a_file_is_found(copy):
    files = manifest_of(copy)["files"]
    files["media/shard-00000.tar"]["n"] = 7
    vouch(copy, files=files)
    assert the_line(copy).startswith("manifest.json says n of media/shard-00000.tar: 7, the shard holds 23 keys")


# Items


def test_a_missing_column_is_found(copy):
    change_items(copy, lambda items: items.drop("audio.sample_rate"))
    assert the_line(copy).startswith("items.parquet lacks the columns 'audio.sample_rate'")


def test_rows_out_of_the_order_of_item_idx_are_found(copy):
    change_items(copy, lambda items: items.with_columns(pl.col("item_idx").reverse()))
    assert the_line(copy).startswith("items.parquet: item_idx is not 0 to 23 in order")


def test_an_id_that_is_there_twice_is_found(copy):
    set_cell(copy, "i07", "item_id", "i05")
    assert the_line(copy).startswith("items.parquet: item_id 'i05' on more than one row")


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_empty_id_is_found(copy, empty):
    set_cell(copy, "i07", "item_id", empty)
    assert the_line(copy).startswith("items.parquet: 1 items have an empty item_id")


def test_a_place_without_a_size_is_found(copy):
    set_cell(copy, "i00", "image.size", None)
    assert the_line(copy).startswith("items.parquet: the image of item 'i00' has a place without offset, size")


def test_a_status_that_contradicts_the_place_is_found(copy):
    counts = manifest_of(copy)["counts"]
    set_cell(copy, "i04", "image.status", "ok")
    number = counts["media"]["image"]
    found = {"error": number["error"], "missing": number["missing"] - 1, "ok": number["ok"] + 1}
    vouch(copy, counts=counts | {"media": counts["media"] | {"image": found}})
    assert the_line(copy).startswith("items.parquet: the image of item 'i04' is marked as stored without a place")


def test_a_medium_that_could_not_be_used_without_a_row_that_says_why_is_found(copy):
    """Item 2's picture is cut off; without its row it would be gone in silence."""
    errors = pl.read_parquet(copy / "errors.parquet")
    errors.filter(pl.col("modality") != "image").write_parquet(copy / "errors.parquet")
    counts, files = manifest_of(copy)["counts"], manifest_of(copy)["files"]
    files["errors.parquet"]["n"] = 1
    vouch(copy, files=files, counts=counts | {"errors": 1})
    vouch(copy)
    assert the_line(copy).startswith("errors.parquet does not say why the image of item 'i02' cannot be used")


def test_a_column_that_errors_lack_is_found(copy):
    pl.read_parquet(copy / "errors.parquet").drop("message").write_parquet(copy / "errors.parquet")
    vouch(copy)
    assert the_line(copy).startswith("errors.parquet lacks the columns 'message'")


def test_events_that_are_neither_kept_nor_left_out_for_a_reason_are_found(copy):
    interactions = manifest_of(copy)["interactions"]
    vouch(copy, interactions=interactions | {"given": interactions["given"] + 7})
    assert f"{interactions['kept']:,} are kept and 0 left out for a reason" in the_line(copy)
    vouch(copy, interactions={name: value for name, value in interactions.items() if name != "left_out"})
    assert "does not count the events given, kept and left out" in the_line(copy)


# Media


def test_a_flipped_bit_in_a_medium_is_found_in_the_file_and_at_its_item(copy):
    offset, size = place(copy, "i05", "image")
    data = (copy / "media" / "shard-00000.tar").read_bytes()[offset + size // 2]
    overwrite(copy / "media" / "shard-00000.tar", offset + size // 2, bytes([data ^ 1]))
    in_file, at_item = problems(copy)
    assert "shard-00000.tar is damaged: its sha256" in in_file
    assert at_item.startswith(
        "media/shard-00000.tar: the image of item 'i05' is damaged: its XXH3 is not that of items"
    )


def test_a_place_between_the_members_is_found(copy):
    offset, size = place(copy, "i00", "audio")
    data = (copy / "media" / "shard-00000.tar").read_bytes()[offset + 512 : offset + 512 + size]
    set_cell(copy, "i00", "audio.xxh3", xxhash.xxh3_64_intdigest(data))
    set_cell(copy, "i00", "audio.offset", offset + 512)
    lines = problems(copy)
    assert any("the audio of item 'i00' does not begin where a member of the tar file begins" in line for line in lines)
    assert any("no item points to member" in line for line in lines)
    assert len(lines) == 2


def test_a_place_outside_of_the_shard_is_found(copy):
    set_cell(copy, "i00", "audio.offset", 10**9)
    assert any("the audio of item 'i00' is said to lie outside of the file's" in line for line in problems(copy))


def test_a_shard_that_is_not_there_is_found(copy):
    set_cell(copy, "i00", "audio.shard", 3)
    assert any("the audio of item 'i00' is said to lie in media/shard-00003.tar" in line for line in problems(copy))


def test_a_size_other_than_the_members_is_found(copy):
    offset, size = place(copy, "i00", "audio")
    data = (copy / "media" / "shard-00000.tar").read_bytes()[offset : offset + size - 1]
    set_cell(copy, "i00", "audio.xxh3", xxhash.xxh3_64_intdigest(data))
    set_cell(copy, "i00", "audio.size", size - 1)
    assert "the audio of item 'i00' has another size in the tar file" in the_line(copy)


def test_two_items_with_each_others_media_are_found(copy):
    """Every hash is right, and yet each picture is that of the other."""
    fields = [f"image.{name}" for name in ("offset", "size", "xxh3")]

    def swap(items: pl.DataFrame) -> pl.DataFrame:
        rows = {row["item_id"]: row for row in items.iter_rows(named=True)}
        rows["i00"], rows["i01"] = (
            rows["i00"] | {name: rows["i01"][name] for name in fields},
            rows["i01"] | {name: rows["i00"][name] for name in fields},
        )
        return pl.DataFrame(list(rows.values()), schema=items.schema)

    change_items(copy, swap)
    line = the_line(copy)
    assert "the image of 2 items ('i0" in line
    assert "lies in a member that is named for another item, modality or extension" in line


def rewrite_shard(folder: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> None:
    """Write the shard's members anew as ``change`` gives them, and their new offsets by name into items.parquet."""
    file = folder / "media" / "shard-00000.tar"
    with tarfile.open(file) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    offsets = {}
    with tarfile.TarFile(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in change(members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            offsets[name] = tar.offset + 512
            tar.addfile(info, io.BytesIO(data))

    def moved(items: pl.DataFrame) -> pl.DataFrame:
        for modality in ("image", "text", "audio", "video"):
            names = [
                f"{idx:09d}.{modality}.{ext}" for idx, ext in items.select("item_idx", f"{modality}.ext").iter_rows()
            ]
            places = pl.Series(f"{modality}.offset", [offsets.get(name) for name in names], dtype=pl.Int64)
            items = items.with_columns(places)
        return items

    change_items(folder, moved)


def test_members_of_one_key_that_stand_apart_are_found(copy):
    rewrite_shard(copy, lambda members: [*members[1:], members[0]])
    assert "do not stand together, so WebDataset readers split the item" in the_line(copy)


def test_a_member_that_is_there_twice_is_found(copy):
    rewrite_shard(copy, lambda members: [members[0], *members])
    lines = problems(copy)
    assert any("more than once, which WebDataset readers refuse" in line for line in lines)


def test_equal_media_may_be_stored_once_for_several_items(tmp_path):
    """The item whose key the member bears, and others that point to it."""
    rows = {"item_id": ["a", "b", "c"], "text": ["the same", "the same", "another"]}
    pl.DataFrame(rows).write_csv(tmp_path / "items.csv")
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,c,3\n")
    tables = {name: tmp_path / f"{name}.csv" for name in ("items", "interactions")}
    folder = ingest(IngestConfig(**tables, out=tmp_path / "dataset", num_workers=1))
    offset, _ = place(folder, "a", "text")
    if place(folder, "b", "text")[0] != offset:
        second = Dataset.open(folder).item_index("b")
        rewrite_shard(folder, lambda members: [one for one in members if one[0] != f"{second:09d}.text.txt"])
        set_cell(folder, "b", "text.offset", place(folder, "a", "text")[0])
        files = manifest_of(folder)["files"]
        files["media/shard-00000.tar"]["n"] = 2
        vouch(folder, files=files)
    assert problems(folder) == []
    assert Dataset.open(folder).read("text", Dataset.open(folder).item_index("b")) == "the same"


def test_a_column_of_keys_takes_the_place_of_the_index(copy):
    change_items(copy, lambda items: items.with_columns(pl.col("item_idx").cast(pl.Int64).alias("media_key")))
    assert problems(copy) == []
    change_items(copy, lambda items: items.with_columns(pl.col("media_key") + 100))
    assert all("is named for another item" in line for line in problems(copy))
    assert len(problems(copy)) == 4


# Histories


def test_times_that_descend_are_found(copy):
    def swap(columns):
        columns["timestamps"][2][:2] = columns["timestamps"][2][1::-1]

    change_histories(copy, swap)
    assert the_line(copy).startswith("sequences/sequences.arrow: the timestamps of user 'u02' do not ascend")


@pytest.mark.parametrize("item", [-1, 24])
def test_an_item_out_of_range_is_found(copy, item):
    def rename(columns):
        columns["items"][3][0] = item

    change_histories(copy, rename)
    assert f"1 events of user 'u03' name an item outside of 0 to 23, for example {item}" in the_line(copy)


def test_a_user_that_is_there_twice_and_an_empty_one_are_found(copy):
    def rename(columns):
        columns["user_id"][1], columns["user_id"][2] = "u00", ""

    change_histories(copy, rename)
    empty, doubled = problems(copy)
    assert "1 users have an empty user_id" in empty
    assert "user 'u00' on more than one row" in doubled


def test_an_order_without_its_column_is_found(copy):
    vouch(copy, interactions=manifest_of(copy)["interactions"] | {"order": "position"})
    assert "order 'position' needs ['positions'], there is ['timestamps']" in the_line(copy)
    vouch(copy, interactions=manifest_of(copy)["interactions"] | {"order": "by heart"})
    assert "the order is 'by heart', it must be one of timestamp, position, none" in the_line(copy)


def with_split(folder: Path, of: Callable[[int], list[int]]) -> None:
    change_histories(folder, lambda columns: columns.update(split=[of(len(items)) for items in columns["items"]]))


def test_a_split_in_order_is_no_problem(copy):
    with_split(copy, lambda length: sorted([2, 1, *[0] * length][:length]))
    assert problems(copy) == []


def test_a_training_event_after_the_test_is_found(copy):
    with_split(copy, lambda length: [2] + [0] * (length - 1))
    line = the_line(copy)
    assert "test events of 29 users ('u00', 'u01', 'u02', ...) come before train events" in line


def test_events_of_one_moment_have_no_order_that_a_split_could_break(copy):
    with_split(copy, lambda length: [2] + [0] * (length - 1))
    change_histories(copy, lambda columns: columns.update(timestamps=[[5] * len(t) for t in columns["timestamps"]]))
    assert problems(copy) == []


def test_a_split_of_no_name_is_found(copy):
    with_split(copy, lambda length: [3] * length)
    assert "have split 3, but 0 (train), 1 (valid) and 2 (test) are all" in the_line(copy)


def test_lists_of_other_lengths_are_found(copy):
    change_histories(copy, lambda columns: columns["timestamps"][0].append(2_000_000_000))
    assert "the lists of column 'timestamps' are not as long as those of 'items'" in problems(copy)[0]


# Vectors


@pytest.mark.parametrize(
    ("item_id", "value", "what"),
    [
        ("i06", 1.0, "is marked as absent but is not zero"),
        ("i05", 0.0, "is marked as present but is zero"),
        ("i05", np.nan, "is marked as present but is not finite"),
    ],
)
def test_a_vector_that_contradicts_its_flag_is_found(copy, tiny_dataset, item_id, value, what):
    vectors = np.load(copy / "features" / "vec.npy")
    vectors[tiny_dataset.item_index(item_id)] = value
    np.save(copy / "features" / "vec.npy", vectors)
    vouch(copy)
    assert the_line(copy) == f"features/vec.npy: the vector of item {item_id!r} {what}; ingest the data again"


def test_vectors_of_another_shape_are_found(copy):
    np.save(copy / "features" / "vec.npy", np.zeros((23, 8), np.float32))
    vouch(copy)
    assert "features/vec.npy holds float32 (23, 8), it must be float32 or float16 (24, dim)" in the_line(copy)


# The command


def test_the_command_prints_each_problem_and_says_so_by_its_exit_code(copy, capsys, tmp_path):
    set_cell(copy, "i07", "item_id", "i05")
    assert main(["check", str(copy), "--html", str(tmp_path / "page.html")]) == 2
    printed = capsys.readouterr()
    assert "items.parquet: item_id 'i05' on more than one row" in printed.out
    assert printed.err.strip() == f"1 problem in {copy}"
    assert "on more than one row" in (tmp_path / "page.html").read_text()
