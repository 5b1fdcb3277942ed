"""A dataset folder at a URL: copied as far as needed, kept within bounds, wary of what the network and disks do."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmrec.data import remote, store
from mmrec.data.block_cache import BlockCache
from mmrec.data.dataset import Dataset, verify_dataset
from mmrec.data.stream import stream_items
from mmrec.errors import ConfigError, DataError, MediaError
from tests.data.s3_server import s3_server

MEDIA = ("image", "text", "audio", "video")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, blocks of 8 KB (a dozen a shard), and pauses that take no time."""
    monkeypatch.setenv("MMREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "BLOCK_BYTES", 8 << 10)
    monkeypatch.setattr(store, "BACKOFF_S", 0.0001)
    return tmp_path / "cache"


@pytest.fixture
def url(tiny_dataset_path: Path) -> Iterator[str]:
    """The tiny dataset in fsspec's memory."""
    upload(tiny_dataset_path, "memory://bucket/tiny")
    yield "memory://bucket/tiny"
    MemoryFileSystem.store.clear()


def upload(folder: Path, url: str) -> None:
    files, root = fsspec.core.url_to_fs(url)
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{root}/{path.relative_to(folder)}", path.read_bytes())


def everything(dataset: Dataset) -> list[tuple[str, int, bytes | str]]:
    return [(name, i, dataset.read(name, i)) for name in MEDIA for i in np.flatnonzero(dataset.present(name)).tolist()]


def assert_equal(dataset: Dataset, local: Dataset) -> None:
    assert everything(dataset) == everything(local)
    assert dataset.fingerprint == local.fingerprint
    assert list(dataset.item_ids) == list(local.item_ids)
    np.testing.assert_array_equal(dataset.sequences.item_idx, local.sequences.item_idx)
    np.testing.assert_array_equal(dataset.features("vec"), local.features("vec"))
    assert list(stream_items(dataset)) == list(stream_items(local))


@pytest.mark.parametrize(
    ("given", "url"),
    {
        "s3://bucket/a/b": "s3://bucket/a/b",
        "s3://bucket/a/": "s3://bucket/a",
        "memory://bucket": "memory://bucket",
        "https://host/a": "https://host/a",
        "file:///tmp/a": "file:///tmp/a",
        "data/shop": None,
        "/data/shop": None,
        "c:/data": None,
        "shop:2": None,
        "s3://": None,
    }.items(),
)
def test_urls_are_told_from_folders_and_survive_a_path(given, url):
    assert store.url_of(given) == url
    assert store.url_of(Path(given)) == url


def test_a_url_that_went_through_a_path_is_still_one(url, tiny_dataset):
    assert_equal(Dataset.open(Path(url)), tiny_dataset)
    assert verify_dataset(Path(url)) == []


def test_a_dataset_at_a_url_is_the_dataset_on_the_disk(url, tiny_dataset):
    dataset = Dataset.open(url)
    assert_equal(dataset, tiny_dataset)
    assert (dataset.path / "errors.parquet").read_bytes() == (tiny_dataset.path / "errors.parquet").read_bytes()
    assert_equal(pickle.loads(pickle.dumps(dataset)), tiny_dataset)


def test_only_what_is_needed_comes_to_this_machine(url, cache):
    dataset = Dataset.open(url + "/", verify=True)
    assert dataset.path == cache / "datasets" / dataset.fingerprint
    assert not list(cache.glob("blocks/*/*"))
    assert not (dataset.path / "features" / "vec.npy").exists()
    dataset.features("vec")
    assert (dataset.path / "features" / "vec.npy").is_file()
    item = int(np.flatnonzero(dataset.present("text"))[0])
    dataset.read("text", item)
    assert [path.stat().st_size for path in cache.glob("blocks/*/*")] == [8 << 10]


def test_what_is_in_the_cache_is_not_fetched_again(url, tiny_dataset):
    assert_equal(Dataset.open(url), tiny_dataset)
    again = Dataset.open(url)
    for name in tiny_dataset.manifest["files"]:
        MemoryFileSystem().pipe_file(f"/bucket/tiny/{name}", b"")
    assert everything(again) == everything(tiny_dataset)


def test_the_cache_of_blocks_keeps_to_its_bound_and_keeps_what_was_used_last(tmp_path):
    blocks = BlockCache(tmp_path, max_bytes=50_000)
    fetched = []

    def read(number: int) -> bytes:
        def fetch() -> bytes:
            fetched.append(number)
            return bytes([number]) * 10_000

        return blocks.read(f"shard/{number}", 10_000, 1, 3, fetch)

    for number in (0, 1, 2, 3, 0, 4, 5):
        assert read(number) == bytes([number]) * 2
    assert fetched == [0, 1, 2, 3, 4, 5]
    kept = {path.name for path in tmp_path.glob("shard/*")}
    assert kept == {"0", "3", "4", "5"}, "down to nine tenths: 1 and 2 were the oldest, 0 was used again"
    for number in range(40):
        read(number % 7)
        assert sum(path.stat().st_size for path in tmp_path.glob("shard/*")) <= 50_000


def test_blocks_that_are_cut_off_or_damaged_on_this_machine_are_fetched_again(url, cache, tiny_dataset):
    everything(Dataset.open(url))
    for number, path in enumerate(sorted(cache.glob("blocks/*/*"))):
        data = path.read_bytes()
        path.write_bytes(data[:-1] if number % 2 else bytes(len(data)))
    assert everything(Dataset.open(url)) == everything(tiny_dataset)


def test_threads_that_want_one_block_fetch_it_once(url, cache, tiny_dataset, monkeypatch):
    dataset = Dataset.open(url)
    asked = []
    cat_file = MemoryFileSystem.cat_file
    monkeypatch.setattr(
        MemoryFileSystem, "cat_file", lambda self, path, **given: asked.append(given) or cat_file(self, path, **given)
    )
    with ThreadPoolExecutor(8) as pool:
        assert all(found == everything(tiny_dataset) for found in pool.map(lambda _: everything(dataset), range(8)))
    assert len(asked) == len(list(cache.glob("blocks/*/*"))) > 5


READ_ALL = """
import hashlib, sys
import numpy as np
from mmrec.data import remote
from mmrec.data.dataset import Dataset
remote.BLOCK_BYTES = 8 << 10
dataset = Dataset.open(sys.argv[1])
pairs = [(m, i) for m in sys.argv[3:] for i in np.flatnonzero(dataset.present(m)).tolist()] * 5
found = {pairs[n]: dataset.read(*pairs[n]) for n in np.random.default_rng(int(sys.argv[2])).permutation(len(pairs))}
print(hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest())
"""


def test_processes_share_a_cache_that_is_too_small_for_them(tiny_dataset, cache):
    """Room for three blocks, and two processes that read everything five times in other orders."""
    command = [sys.executable, "-c", READ_ALL, f"file://{tiny_dataset.path}"]
    environment = os.environ | {"MMREC_CACHE_GB": "0.000025"}
    running = [
        subprocess.Popen([*command, seed, *MEDIA], env=environment, stdout=subprocess.PIPE, text=True)
        for seed in ("0", "1")
    ]
    whole = sorted({(name, item): data for name, item, data in everything(tiny_dataset)}.items())
    expected = hashlib.sha256(repr(whole).encode()).hexdigest()
    assert [process.communicate(timeout=60)[0].strip() for process in running] == [expected, expected]
    assert sum(path.stat().st_size for path in cache.glob("blocks/*/*")) <= 25_000
    assert not list(cache.rglob("*.tmp-*"))


def test_a_count_of_the_cache_that_is_damaged_is_counted_anew(tmp_path):
    """The file in which processes share the size of all blocks, as a machine that went down may leave it."""
    blocks = BlockCache(tmp_path, max_bytes=50_000)
    for number, left in enumerate((b"\0" * 16, "²³".encode(), b"-5", b"\xff\xfe", b"9" * 100)):
        (tmp_path / "size").write_bytes(left)
        for part in range(8):
            name = f"shard/{number}-{part}"
            assert blocks.read(name, 10_000, 0, 2, lambda: bytes(10_000)) == bytes(2)
        assert sum(path.stat().st_size for path in tmp_path.glob("shard/*")) <= 50_000


def test_a_copy_that_was_damaged_on_this_machine_is_fetched_again(url, cache, tiny_dataset):
    """Of the same size, so that only its hash tells: a page that a disk has lost."""
    Dataset.open(url).features("vec")
    copies = [path for path in (cache / "datasets").rglob("*") if path.is_file()]
    assert len(copies) == 5
    for path in copies:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert_equal(Dataset.open(url), tiny_dataset)


def test_a_download_that_was_killed_leaves_nothing_that_stays(url, cache, tiny_dataset):
    """What others left is removed when it is an hour old: until then its owner may be at work."""
    folder = Dataset.open(url).path
    block = cache / "blocks" / "0123" / "000000.tmp-0123"
    block.parent.mkdir(parents=True)
    old, fresh = folder / "items.parquet.tmp-00000000", folder / "items.parquet.tmp-11111111"
    for path in (old, fresh, block):
        path.write_bytes(b"half")
    for path in (old, block):
        os.utime(path, (1, 1))
    (folder / "errors.parquet").unlink()
    assert_equal(Dataset.open(url), tiny_dataset)
    assert not old.exists()
    assert fresh.exists()
    BlockCache(cache / "blocks", max_bytes=1)._remove_oldest()
    assert not block.exists()


def test_a_full_disk_is_one_line_that_says_what_to_do(url, cache):
    """A limit on the size of files stands for the disk."""
    Dataset.open(url)
    program = (
        "import resource, sys\n"
        "import numpy as np\n"
        "from mmrec.data.dataset import Dataset\n"
        "from mmrec.errors import DataError\n"
        "dataset = Dataset.open(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "for read in (lambda: dataset.read('image', int(np.flatnonzero(dataset.present('image'))[0])),\n"
        "             lambda: Dataset.open(sys.argv[1]).features('vec')):\n"
        "    try:\n"
        "        read()\n"
        "    except DataError as error:\n"
        "        print(error)\n"
    )
    tiny = next(cache.glob("datasets/*"))
    shutil.rmtree(tiny / "features", ignore_errors=True)
    source = f"file://{on_disk(url, cache)}"
    done = subprocess.run([sys.executable, "-c", program, source], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    blocks, small = done.stdout.splitlines()
    assert (
        blocks
        == f"cannot keep blocks in {cache}/blocks: File too large; make room, or set MMREC_CACHE and MMREC_CACHE_GB"
    )
    assert "cannot keep" in small
    assert small.endswith("File too large; make room, or set MMREC_CACHE")
    assert not list(cache.rglob("*.tmp-*"))


def on_disk(url: str, cache: Path) -> Path:
    """A folder with the files of ``url``."""
    folder = cache.parent / "on_disk"
    files, root = fsspec.core.url_to_fs(url)
    for path in files.find(root):
        target = folder / path.removeprefix(f"{root}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files.cat_file(path))
    return folder


def test_a_dataset_that_is_replaced_while_it_is_read_is_noticed(url, tiny_dataset, tmp_path):
    """Shards of another dataset under the same names: not one medium of it is served, and the run is told why."""
    dataset = Dataset.open(url)
    item = int(np.flatnonzero(dataset.present("image"))[0])
    files = MemoryFileSystem()
    former = {path: files.cat_file(path) for path in files.find("/bucket/tiny")}
    name = "/bucket/tiny/media/shard-00000.tar"
    manifest = "/bucket/tiny/manifest.json"
    sha256 = dataset.manifest["files"]["media/shard-00000.tar"]["sha256"]
    files.pipe_file(
        manifest, former[manifest].replace(sha256.encode(), hashlib.sha256(b"another").hexdigest().encode())
    )
    told = rf"{url} was replaced or removed while it was read; give the command again"
    for tar in (bytes(len(former[name])), former[name][:1000]):  # of the same size, and a shorter one
        files.pipe_file(name, tar)
        with pytest.raises(DataError, match=told):
            dataset.read("image", item)
        with pytest.raises(DataError, match=told):
            list(stream_items(dataset))
    files.rm("/bucket/tiny", recursive=True)
    with pytest.raises(DataError, match=told):
        dataset.read("image", item)
    for path, data in former.items():
        files.pipe_file(path, data)
    assert_equal(dataset, tiny_dataset)


class FlakyFileSystem(MemoryFileSystem):
    """A store whose every request fails some times, in turn with an error, a time-out and a short answer."""

    protocol = "flaky"
    failures: ClassVar[int] = 0
    requests: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    def _fails(self) -> int:
        type(self).requests += 1
        return self.requests % (self.failures + 1)

    def info(self, path: str, **given: Any) -> dict:
        if self._fails():
            raise ConnectionResetError("connection reset by peer")
        return super().info(path, **given)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **given: Any) -> bytes:
        data = super().cat_file(path, start=start, end=end, **given)
        fault = self._fails()
        if fault == 1:
            raise TimeoutError("no answer")
        if fault:
            data = data[:-1] if start is not None else (_ for _ in ()).throw(OSError("Slow Down"))
        return data


@pytest.fixture
def flaky(url) -> Iterator[type[FlakyFileSystem]]:
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    FlakyFileSystem.requests = 0
    yield FlakyFileSystem
    FlakyFileSystem.failures = 0


def test_what_passes_is_tried_again(flaky, tiny_dataset, monkeypatch):
    monkeypatch.setattr(remote, "_THREADS", 1)  # the failures are counted over all requests
    flaky.failures = store.ATTEMPTS - 1
    assert_equal(Dataset.open("flaky://bucket/tiny"), tiny_dataset)


def test_what_does_not_pass_is_an_error_that_says_how_often_it_was_tried(flaky):
    dataset = Dataset.open("flaky://bucket/tiny")
    flaky.failures, flaky.requests = 10_000, 1
    with pytest.raises(
        DataError, match=r"flaky://bucket/tiny/media/.* cannot be read, tried 6 times: OSError: 8,191 b"
    ):
        dataset.read("text", int(np.flatnonzero(dataset.present("text"))[0]))
    assert flaky.requests == 1 + store.ATTEMPTS + 1, "and once whether the dataset is still the same"
    with pytest.raises(DataError, match=r"cannot be read, tried 6 times"):
        list(stream_items(dataset))


def test_a_medium_that_is_damaged_in_the_store_is_masked_not_served(url, tiny_dataset):
    dataset = Dataset.open(url)
    item = int(np.flatnonzero(dataset.present("image"))[0])
    where = dataset.location("image", item)
    files = MemoryFileSystem()
    tar = bytearray(files.cat_file("/bucket/tiny/media/shard-00000.tar"))
    tar[where.offset + 5] ^= 1
    files.pipe_file("/bucket/tiny/media/shard-00000.tar", bytes(tar))
    with pytest.raises(MediaError, match=rf"{url}/media/shard-00000.tar is damaged at byte {where.offset:,}"):
        dataset.read("image", item)
    samples = {sample["item_idx"]: sample for sample in stream_items(dataset)}
    assert len(samples) == 24
    assert "image" not in samples[item]
    assert verify_dataset(url) == [f"{url}/media/shard-00000.tar is damaged: its sha256 is not that of the manifest"]
    with pytest.raises(DataError, match="its sha256 is not that of the manifest; ingest"):
        Dataset.open(url, verify=True)


def test_a_damaged_small_file_is_refused_and_not_kept(url, cache):
    files = MemoryFileSystem()
    data = files.cat_file("/bucket/tiny/items.parquet")
    files.pipe_file("/bucket/tiny/items.parquet", data[:-1] + b"?")
    with pytest.raises(DataError, match=rf"{url}/items.parquet is damaged: its sha256"):
        Dataset.open(url)
    assert not list(cache.rglob("items.parquet*"))
    files.pipe_file("/bucket/tiny/items.parquet", data)
    assert Dataset.open(url).num_items == 24


def test_a_folder_that_is_incomplete_or_no_dataset_is_refused(url, tiny_dataset):
    files = MemoryFileSystem()
    tar = files.cat_file("/bucket/tiny/media/shard-00000.tar")
    files.pipe_file("/bucket/tiny/media/shard-00000.tar", tar[:-1])
    with pytest.raises(DataError, match=r"shard-00000.tar is damaged: [\d,]+ bytes, the manifest says [\d,]+; ingest"):
        Dataset.open(url)
    files.rm_file("/bucket/tiny/media/shard-00000.tar")
    with pytest.raises(DataError, match=r"shard-00000.tar is missing; ingest"):
        Dataset.open(url)
    with pytest.raises(DataError, match=r"memory://bucket/other has no manifest.json, so it is no finished dataset"):
        Dataset.open("memory://bucket/other")
    files.pipe_file("/bucket/tiny/manifest.json", b"{}")
    assert verify_dataset(url)[0].startswith(f"{url}/manifest.json does not describe a dataset")


def test_a_manifest_cannot_name_files_outside_of_the_cache(url):
    files = MemoryFileSystem()
    manifest = files.cat_file("/bucket/tiny/manifest.json")
    for name in (b"../../errors.parquet", b"/etc/errors.parquet"):
        files.pipe_file("/bucket/tiny/manifest.json", manifest.replace(b'"errors.parquet"', b'"' + name + b'"'))
        with pytest.raises(DataError, match=r"is damaged: its entry .* is none that mmrec writes"):
            Dataset.open(url)


def test_settings_that_make_no_sense_are_refused(url, monkeypatch):
    with pytest.raises(ConfigError, match=r"carrier-pigeon://x cannot be opened: Protocol not known"):
        Dataset.open("carrier-pigeon://x")
    for given in ("much", "0", "nan"):
        monkeypatch.setenv("MMREC_CACHE_GB", given)
        with pytest.raises(ConfigError, match=f"MMREC_CACHE_GB is '{given}'; it must be a number of gigabytes above 0"):
            Dataset.open(url)


@pytest.fixture
def s3() -> Iterator[str]:
    with s3_server() as bucket:
        yield bucket


def test_a_dataset_on_s3_is_the_dataset_on_the_disk(s3, tiny_dataset, tiny_dataset_path):
    upload(tiny_dataset_path, f"{s3}/some/tiny")
    dataset = Dataset.open(f"{s3}/some/tiny", verify=True)
    assert_equal(dataset, tiny_dataset)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == everything(tiny_dataset) for found in pool.map(lambda _: everything(dataset), range(8)))
    with pytest.raises(DataError, match=rf"{s3}/none has no manifest.json"):
        Dataset.open(f"{s3}/none")


def test_a_forked_worker_reads_from_s3(s3, tiny_dataset, tiny_dataset_path):
    """Connections of the parent are of no use in a child: it makes its own."""
    upload(tiny_dataset_path, f"{s3}/tiny")
    dataset = Dataset.open(f"{s3}/tiny")
    item = int(np.flatnonzero(dataset.present("image"))[0])
    whole = tiny_dataset.read("image", item)
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=lambda: os._exit(0 if dataset.read("image", item) == whole else 1), daemon=True)
    worker.start()
    worker.join(timeout=20)
    assert worker.exitcode == 0
    shutil.rmtree(dataset.path.parents[1] / "blocks")
    assert dataset.read("image", item) == whole
