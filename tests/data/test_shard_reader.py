"""Media read by offset."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xxhash

from mmrec.data.shard_reader import MAX_OPEN_FILES, ShardReader
from mmrec.data.shards import Location, shard_name
from mmrec.errors import DataError, MediaError

NUM_SHARDS = 2_000


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Location]]:
    """A folder of 2,000 shards with one member of 40 to 60 bytes each, and where the members lie."""
    root = tmp_path_factory.mktemp("many")
    (root / "media").mkdir()
    locations = []
    for shard in range(NUM_SHARDS):
        data = f"the text of item {shard} ".encode().ljust(40 + shard % 21, b".")
        info = tarfile.TarInfo(f"{shard:09d}.text.txt")
        info.size = len(data)
        (root / shard_name(shard)).write_bytes(info.tobuf() + data.ljust(512, b"\0") + bytes(1024))
        locations.append(Location(shard, 512, len(data), xxhash.xxh3_64_intdigest(data)))
    return root, locations


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_thousands_of_shards_are_read_with_a_bounded_number_of_open_files(many_shards):
    root, locations = many_shards
    before = open_files()
    reader = ShardReader(root)
    for location in locations:
        assert reader.read(location).startswith(f"the text of item {location.shard} ".encode())
    assert MAX_OPEN_FILES - 1 <= open_files() - before <= MAX_OPEN_FILES
    del reader
    assert open_files() <= before


def test_a_process_that_may_open_few_files_reads_them_from_many_threads(many_shards, tmp_path):
    """256 files, 2,000 shards, 16 threads in other orders: a handle that is closed in use would give wrong bytes."""
    (tmp_path / "reader.pickle").write_bytes(pickle.dumps((ShardReader(many_shards[0]), many_shards[1])))
    program = (
        "import pickle, random, resource, sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "reader, locations = pickle.load(open(sys.argv[1], 'rb'))\n"
        "def read(seed):\n"
        "    order = random.Random(seed).sample(locations, len(locations))\n"
        "    return sum(len(reader.read(location)) for location in order)\n"
        "with ThreadPoolExecutor(16) as pool:\n"
        "    print(set(pool.map(read, range(16))))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "reader.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == str({sum(location.size for location in many_shards[1])})


def test_the_reader_pickles_without_its_open_files(many_shards):
    root, locations = many_shards
    reader = ShardReader(root)
    fresh = len(pickle.dumps(reader))
    for location in locations[:50]:
        reader.read(location)
    assert len(pickle.dumps(reader)) == fresh
    assert pickle.loads(pickle.dumps(reader)).read(locations[7]) == reader.read(locations[7])


def test_a_forked_process_and_its_parent_read_at_once(many_shards):
    root, locations = many_shards
    reader = ShardReader(root)
    reader.read(locations[0])
    child = os.fork()
    if child == 0:
        ok = all(len(reader.read(location)) == location.size for location in locations)
        os._exit(0 if ok else 1)
    assert all(len(reader.read(location)) == location.size for location in reversed(locations))
    assert os.waitpid(child, 0)[1] == 0


def test_a_missing_shard_and_wrong_bytes_name_the_file_and_the_place(many_shards):
    root, locations = many_shards
    where = locations[3]
    reader = ShardReader(root)
    with pytest.raises(DataError, match=r"shard-02000.tar cannot be opened: No such file"):
        reader.read(Location(NUM_SHARDS, 512, 40, 0))
    for wrong in (
        Location(3, 512, where.size, where.xxh3 ^ 1),
        Location(3, 513, where.size, where.xxh3),
        Location(3, 512, 1 << 20, where.xxh3),
    ):
        with pytest.raises(MediaError, match=r"shard-00003.tar is damaged at byte 51[23]"):
            reader.read(wrong)


def test_items_are_asked_for_by_any_kind_of_integer(tiny_dataset):
    item = int(np.flatnonzero(tiny_dataset.present("image"))[0])
    assert tiny_dataset.read("image", np.int32(item)) == tiny_dataset.read("image", np.int64(item))
    location = tiny_dataset.location("image", np.int64(item))
    assert {type(value) for value in vars(location).values()} == {int}
    lacking = int(np.flatnonzero(~tiny_dataset.present("image"))[0])
    assert tiny_dataset.location("image", lacking) is None


def test_more_than_twenty_thousand_small_members_a_second_are_read_and_checked(tiny_dataset):
    """Seconds of the processor, of which eval/benchmarks/reading.py shows a fifth: a busy machine does not fail it."""
    items = np.flatnonzero(tiny_dataset.present("text"))
    order = random.Random(0).choices(items.tolist(), k=5_000)
    tiny_dataset.read("text", order[0])
    started = time.process_time()
    for item in order:
        tiny_dataset.read("text", item)
    assert len(order) / (time.process_time() - started) > 20_000


def test_threads_share_one_reader(many_shards):
    root, locations = many_shards
    reader = ShardReader(root)
    order = random.Random(1).choices(locations, k=5_000)
    with ThreadPoolExecutor(8) as pool:
        assert [len(data) for data in pool.map(reader.read, order)] == [location.size for location in order]
