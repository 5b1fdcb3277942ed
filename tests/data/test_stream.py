"""A dataset folder read in the order of its shards, whole or damaged."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import webdataset
import xxhash

from mmrec.data.dataset import Dataset
from mmrec.data.faults import FaultBudget
from mmrec.data.shards import shard_name
from mmrec.data.stream import stream_items
from mmrec.errors import ConfigError, DataError
from mmrec.item_inputs import CatalogInputs, ItemInputs

MEDIA = ("image", "text", "audio", "video")


def by_offset(dataset: Dataset, item: int) -> dict[str, Any]:
    """What the stream has to give of an item."""
    media = {name: dataset.read(name, item) for name in MEDIA if dataset.present(name)[item]}
    return {"item_idx": item, "item_id": str(dataset.item_ids[item]), **media}


def assert_whole(dataset: Dataset, samples: list[dict[str, Any]]) -> None:
    assert sorted(sample["item_idx"] for sample in samples) == list(range(dataset.num_items))
    for sample in samples:
        assert sample == by_offset(dataset, sample["item_idx"])


def write_manifest(path: Path) -> None:
    """Let the manifest agree with the files again."""
    manifest = json.loads((path / "manifest.json").read_text())
    names = {name for name in manifest["files"] if not name.startswith("media/")}
    names |= {str(file.relative_to(path)) for file in (path / "media").glob("*.tar")}
    manifest["files"] = {
        name: {
            "bytes": (path / name).stat().st_size,
            "n": 0,
            "sha256": hashlib.sha256((path / name).read_bytes()).hexdigest(),
        }
        for name in sorted(names)
    }
    (path / "manifest.json").write_text(json.dumps(manifest))


def stored_once(source: Path, out: Path, items_per_shard: int = 5) -> Path:
    """The dataset ``source`` with keys in the reverse order of item_idx, and media stored with one item for several.

    Items i with i % 4 == 0 have the picture of item 20 (if that has one), i % 4 == 1 the sound of the last that has
    one; item 3 has all that item 2 has, and its key; item 7 has all that item 22 has, and no key.
    """
    shutil.copytree(source, out)
    items = pl.read_parquet(out / "items.parquet").to_dicts()
    with_image = next(row for row in reversed(items) if row["image.shard"] is not None)
    with_audio = next(row for row in reversed(items) if row["audio.shard"] is not None)
    dataset = Dataset.open(source)
    media = [{name: dataset.read(name, i) for name in MEDIA if dataset.present(name)[i]} for i in range(len(items))]
    media = [{name: data.encode() if isinstance(data, str) else data for name, data in m.items()} for m in media]
    for i in range(len(items)):
        if i % 4 == 0:
            media[i]["image"] = media[with_image["item_idx"]]["image"]
        if i % 4 == 1:
            media[i]["audio"] = media[with_audio["item_idx"]]["audio"]
    media[3], media[7] = media[2], media[22]
    keys: list[int | None] = [100 + len(items) - i for i in range(len(items))]
    keys[3], keys[7] = keys[2], None
    stored: dict[bytes, dict[str, int]] = {}
    tar, number = None, 0
    shutil.rmtree(out / "media")
    (out / "media").mkdir()
    for place, i in enumerate(sorted(range(len(items)), key=lambda i: (keys[i] is None, keys[i]))):
        if place % items_per_shard == 0:
            if tar is not None:
                tar.close()
            number = place // items_per_shard
            tar = tarfile.TarFile(out / shard_name(number), "w", format=tarfile.USTAR_FORMAT)
        assert tar is not None
        for name in MEDIA:
            data = media[i].get(name)
            if data is not None and data not in stored:
                info = tarfile.TarInfo(f"{keys[i]:09d}.{name}.{items[i][name + '.ext'] or 'bin'}")
                info.size = len(data)
                where = {"shard": number, "offset": tar.offset + 512, "size": len(data)}
                stored[data] = where | {"xxh3": xxhash.xxh3_64_intdigest(data)}
                tar.addfile(info, io.BytesIO(data))
            none = dict.fromkeys(("shard", "offset", "size", "xxh3"))
            items[i] |= {f"{name}.{field}": v for field, v in (none if data is None else stored[data]).items()}
        items[i]["media_key"] = keys[i]
    assert tar is not None
    tar.close()
    schema = pl.read_parquet_schema(source / "items.parquet") | {"media_key": pl.Int64}
    pl.DataFrame(items, schema=schema).write_parquet(out / "items.parquet")
    write_manifest(out)
    return out


@pytest.fixture
def copy(tiny_dataset_path: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_dataset_path, tmp_path / "copy")


@pytest.fixture(scope="module")
def shared_media(tiny_dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored_once(tiny_dataset_path, tmp_path_factory.mktemp("once") / "dataset")


def damage(dataset: Path, shard: int, place: int) -> None:
    with (dataset / shard_name(shard)).open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 0x10]))


def test_plain_webdataset_iterates_the_shards_in_order_without_mmrec(tiny_dataset_path, tiny_dataset):
    shards = sorted(str(path) for path in (tiny_dataset_path / "media").glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    with_media = [item for item in range(24) if len(by_offset(tiny_dataset, item)) > 2]
    assert [sample["__key__"] for sample in samples] == [f"{item:09d}" for item in with_media]
    for item, sample in zip(with_media, samples, strict=True):
        expected = by_offset(tiny_dataset, item)
        assert sample["text.txt"].decode() == expected["text"]
        assert sample.get("image.jpg") == expected.get("image")


def test_the_stream_equals_reading_by_offset_for_every_item_in_order_of_storage(tiny_dataset):
    samples = list(stream_items(tiny_dataset))
    assert_whole(tiny_dataset, samples)
    lonely = tiny_dataset.item_index("i23")
    assert [sample["item_idx"] for sample in samples] == [i for i in range(24) if i != lonely] + [lonely]
    assert samples[-1] == {"item_idx": lonely, "item_id": "i23"}


def test_a_whole_dataset_has_no_fault_and_no_warning(tiny_dataset, caplog):
    faults = FaultBudget()
    samples = list(stream_items(tiny_dataset, faults=faults))
    assert (faults.num_faults, caplog.text) == (0, "")
    assert faults.num_read == sum(len(sample) - 2 for sample in samples)


def test_media_that_are_stored_once_reach_each_of_their_items(shared_media, caplog):
    dataset = Dataset.open(shared_media)
    assert len(list((shared_media / "media").glob("*.tar"))) == 5
    assert len({dataset.location("image", item).offset for item in range(0, 24, 4)}) == 1, "one member, six items"
    samples = list(stream_items(dataset))
    assert_whole(dataset, samples)
    assert caplog.text == ""
    found = {sample["item_idx"]: sample for sample in samples}
    for one, other in ((2, 3), (22, 7)):
        assert {name: found[one].get(name) for name in MEDIA} == {name: found[other].get(name) for name in MEDIA}


def test_parts_of_a_stream_together_give_each_item_once(shared_media):
    dataset = Dataset.open(shared_media)
    for num_parts in (2, 3, 50):
        parts = [list(stream_items(dataset, part=part, num_parts=num_parts)) for part in range(num_parts)]
        assert_whole(dataset, [sample for part in parts for sample in part])
        assert sum(bool(part) for part in parts) == min(num_parts, 5), "five shards, and every item has a medium"
    with pytest.raises(ConfigError, match="part is 2 of 2; it must be 0 to 1"):
        next(stream_items(dataset, part=2, num_parts=2))


def test_most_media_come_from_the_stream_not_by_offset(shared_media, monkeypatch):
    """Only what lies under another item's key is read by offset."""
    dataset = Dataset.open(shared_media)
    shards = sorted(str(path) for path in (shared_media / "media").glob("*.tar"))
    members = sum(len(sample) - 3 for sample in webdataset.WebDataset(shards, shardshuffle=False))
    asked = []
    read = dataset.read
    monkeypatch.setattr(dataset, "read", lambda *given: asked.append(given) or read(*given))
    num_media = sum(len(sample) - 2 for sample in stream_items(dataset))
    own_key_shared = 2  # item 3 stands under the key of item 2, so that both come from the stream
    assert len(asked) <= num_media - members - own_key_shared + 1
    assert len(asked) >= 10


def test_a_damaged_member_is_absent_and_counted(copy, caplog):
    dataset = Dataset.open(copy)
    where = dataset.location("image", 1) or dataset.location("image", 2)
    damage(copy, where.shard, where.offset + where.size // 2)
    faults = FaultBudget()
    samples = {sample["item_idx"]: sample for sample in stream_items(dataset, faults=faults)}
    assert len(samples) == 24
    assert faults.num_faults == 1
    victim = next(i for i in range(24) if dataset.location("image", i) == where)
    assert "image" not in samples[victim]
    assert samples[victim]["text"] == dataset.read("text", victim)
    assert f"image of item {dataset.item_ids[victim]}" in caplog.text


def test_a_flipped_byte_of_a_header_loses_plain_webdataset_the_shard_and_the_stream_nothing(copy, caplog):
    dataset = Dataset.open(copy)
    where = dataset.location("text", 8)
    damage(copy, 0, where.offset - 512 + 3)  # in the name of the member
    plain = list(webdataset.WebDataset([str(copy / shard_name(0))], shardshuffle=False))
    assert len(plain) < 12, "the rest of the shard is lost without a word"
    faults = FaultBudget()
    assert_whole(dataset, list(stream_items(dataset, faults=faults)))
    assert faults.num_faults == 0, "the bytes of the media are what they were"
    assert "shard-00000.tar: a tar reader finds" in caplog.text


def test_every_flipped_byte_of_one_header_keeps_the_stream_whole(copy):
    """The first member's header too: without it a tar reader opens nothing."""
    dataset = Dataset.open(copy)
    tar = copy / shard_name(0)
    whole = tar.read_bytes()
    starts = [0, dataset.location("text", 5).offset - 512]
    for place in [start + step for start in starts for step in range(0, 512, 37)]:
        damage(copy, 0, place)
        assert_whole(dataset, list(stream_items(dataset)))
        tar.write_bytes(whole)


def sparse_member(name: bytes, size: int) -> bytes:
    """The header of a GNU sparse member: nothing is stored, and a reader fills ``size`` bytes with zeros."""
    info = tarfile.TarInfo(name.decode())
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = b"%011o\0" % (size - 1)  # the only piece: nothing, at the end
    header[398:410] = b"%011o\0" % 0
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


READ_BOUNDED = """
import resource, sys
from mmrec.data.dataset import Dataset
from mmrec.data.faults import FaultBudget
from mmrec.data.stream import stream_items
import webdataset
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
faults = FaultBudget()
samples = list(stream_items(Dataset.open(sys.argv[1]), faults=faults))
print(len(samples), sum(len(sample) - 2 for sample in samples), faults.num_faults)
"""


@pytest.mark.parametrize("kind", ["sparse", "gzip"])
def test_a_shard_that_unpacks_to_gigabytes_is_read_by_offset(copy, kind):
    """A member of 4 GB without a byte, and a file that is a gzip of zeros: tar readers would take memory for them."""
    tar = copy / shard_name(0)
    whole = tar.read_bytes()
    dataset = Dataset.open(copy)
    num_media = sum(int(dataset.present(name).sum()) for name in MEDIA)
    if kind == "sparse":
        bomb = sparse_member(b"000000000.image.jpg", 4 << 30)
        tar.write_bytes(bomb + whole[512:])
        lost = 0
    else:
        squeezer = zlib.compressobj(9, wbits=31)
        head = tarfile.TarInfo("000000000.image.jpg")
        head.size = 4 << 30
        bomb = squeezer.compress(head.tobuf(tarfile.GNU_FORMAT))
        bomb += b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(4)) + squeezer.flush()
        assert len(bomb) < len(whole)
        tar.write_bytes(bomb + whole[len(bomb) :])
        lost = sum(
            place.offset < len(bomb)
            for name in MEDIA
            for item in np.flatnonzero(dataset.present(name)).tolist()
            if (place := dataset.location(name, item)) is not None
        )
    done = subprocess.run([sys.executable, "-c", READ_BOUNDED, str(copy)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["24", str(num_media - lost), str(lost)], done.stderr


def test_a_shard_that_is_cut_off_loses_only_what_is_gone(copy):
    dataset = Dataset.open(copy)
    tar = copy / shard_name(0)
    places = [(dataset.location(name, i), name, i) for name in MEDIA for i in range(24)]
    last = max((place for place in places if place[0] is not None), key=lambda place: place[0].offset)
    tar.write_bytes(tar.read_bytes()[: last[0].offset + last[0].size - 1])
    faults = FaultBudget()
    samples = {sample["item_idx"]: sample for sample in stream_items(dataset, faults=faults)}
    assert (len(samples), faults.num_faults) == (24, 1)
    assert last[1] not in samples[last[2]]


def test_too_many_faults_stop_the_stream_and_name_the_first(copy):
    dataset = Dataset.open(copy)
    tar = copy / shard_name(0)
    tar.write_bytes(tar.read_bytes()[:512] + bytes(tar.stat().st_size - 512))
    with pytest.raises(DataError, match=r"11 of 1\d media are damaged, more than the 1.0% .*: \w+ of item i\d\d: .*;"):
        list(stream_items(dataset))
    everything = FaultBudget(max_faults=1.0)
    assert len(list(stream_items(dataset, faults=everything))) == 24
    assert everything.num_faults == everything.num_read


def test_a_budget_allows_ten_faults_and_then_its_share(caplog):
    budget = FaultBudget(max_faults=0.1)
    for number in range(10):
        budget.tally(1, [f"medium {number}"])
    assert [record.args for record in caplog.records if record.args] == [(f"medium {n}",) for n in range(5)]
    budget.tally(101, ["the eleventh of 111"])
    with pytest.raises(DataError, match=r"^12 of 112 media are damaged, more than the 10.0% .*: medium 0; medium 1; "):
        budget.tally(1, ["the twelfth"])


def test_training_on_a_dataset_full_of_damage_stops(copy):
    """Not only the stream: what reads by offset for training has the same budget."""
    from mmrec.modality_encoders import TextConfig

    dataset = Dataset.open(copy)
    preprocessing = TextConfig().fit(dataset, "text", dataset.present("text"))
    items = np.flatnonzero(dataset.present("text"))
    for item in items[:11]:
        where = dataset.location("text", int(item))
        damage(copy, where.shard, where.offset)
    catalog = CatalogInputs(dataset, ItemInputs({"text": preprocessing}), num_threads=1)
    catalog.batch(items[:10])
    assert (catalog.faults, catalog.present.sum()) == (10, len(items) - 10)
    with pytest.raises(DataError, match=r"11 of \d+ media are damaged, .* text of item"):
        catalog.batch(items[10:])
