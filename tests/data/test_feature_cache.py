"""The folder of kept features: parts that come one by one, from several processes, some of them killed."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from mmrec.data.dataset import Dataset
from mmrec.data.feature_cache import FeatureCache
from mmrec.errors import DataError

KEY = "0123456789abcdef" * 4
FORK = multiprocessing.get_context("fork")  # children touch NumPy and files alone, no threads of others


@pytest.fixture
def path(tiny_dataset_path, tmp_path) -> Path:
    # Other tests may have filled the cache of the dataset that all share.
    return shutil.copytree(tiny_dataset_path, tmp_path / "dataset", ignore=shutil.ignore_patterns("cache"))


def rows_of(item: int) -> np.ndarray:
    """One to three rows that tell the item."""
    return np.full((1 + item % 3, 4), item, dtype=np.float32)


def fill(cache: FeatureCache, items: np.ndarray, part: int) -> None:
    for start in range(0, len(items), part):
        some = items[start : start + part]
        cache.write(some, [rows_of(int(item)) for item in some])


def check(cache: FeatureCache, items: np.ndarray) -> None:
    values, mask = cache.read(items)
    for item, kept, real in zip(items.tolist(), values, mask, strict=True):
        np.testing.assert_array_equal(kept[real].numpy(), rows_of(item))


def with_text(path: Path) -> tuple[Dataset, np.ndarray]:
    dataset = Dataset.open(path)
    return dataset, np.flatnonzero(dataset.present("text"))


def test_what_is_written_is_read_in_any_order(path):
    dataset, items = with_text(path)
    cache = FeatureCache(dataset, "text", KEY)
    assert cache.missing(items).tolist() == items.tolist()
    fill(cache, items, 5)
    cache.refresh()
    assert not len(cache.missing(items))
    check(cache, items[::-1])
    check(FeatureCache(dataset, "text", KEY), items[3:9])
    assert FeatureCache(dataset, "text", "f" * 64).missing(items).tolist() == items.tolist(), "of another network"


def test_more_parts_than_a_process_may_have_files_open(path):
    dataset, items = with_text(path)
    cache = FeatureCache(dataset, "text", KEY)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fill(cache, items, 1)
    open_now = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 8, hard))
    try:
        cache.refresh()
        check(cache, items)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(items) > 2 * 8


def killed_in_its_third_part(cache: FeatureCache, items: np.ndarray) -> None:
    plain, count = np.savez, [0]

    def savez(*args, **arrays):
        plain(*args, **arrays)
        count[0] += 1
        if count[0] == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    np.savez = savez
    fill(cache, items, 4)


def test_a_killed_filling_goes_on_after_its_last_whole_part(path):
    dataset, items = with_text(path)
    process = FORK.Process(target=killed_in_its_third_part, args=(FeatureCache(dataset, "text", KEY), items))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    cache = FeatureCache(dataset, "text", KEY)
    assert cache.missing(items).tolist() == items[8:].tolist(), "two parts of four are there"
    (left,) = cache.folder.glob(".part-*")
    fill(cache, cache.missing(items), 4)
    cache.refresh()
    check(cache, items)
    FeatureCache(dataset, "text", KEY)
    assert left.exists(), "for all that is known somebody is writing there"
    os.utime(left, (time.time() - 100_000,) * 2)
    FeatureCache(dataset, "text", KEY)
    assert not left.exists()


def fill_often(cache: FeatureCache, items: np.ndarray, barrier) -> None:
    for _ in range(5):
        barrier.wait(60)
        fill(cache, items, 6)


@pytest.mark.parametrize("steps", [(1, 1), (1, -1)], ids=["the same parts", "other parts of the same items"])
def test_two_processes_fill_one_cache(path, steps):
    barrier = FORK.Barrier(2)
    dataset, items = with_text(path)
    cache = FeatureCache(dataset, "text", KEY)
    processes = [FORK.Process(target=fill_often, args=(cache, items[::step], barrier)) for step in steps]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    cache = FeatureCache(dataset, "text", KEY)
    check(cache, items)
    assert not list(cache.folder.glob(".part-*")), "whoever came second has tidied up"


@pytest.mark.parametrize("file", ["values.npy", "index.npz"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_torn_part_is_found_and_the_others_stay(path, file, share):
    dataset, items = with_text(path)
    cache = FeatureCache(dataset, "text", KEY)
    fill(cache, items, 8)
    part = sorted(cache.folder.glob("part-*"))[-1]
    whole = (part / file).read_bytes()
    (part / file).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=rf"{part.name} is damaged .*; remove it, it is computed again") as caught:
        FeatureCache(dataset, "text", KEY)
    assert "\n" not in str(caught.value)
    shutil.rmtree(part)
    cache = FeatureCache(dataset, "text", KEY)
    assert 0 < len(cache.missing(items)) <= 8
    fill(cache, cache.missing(items), 8)
    cache.refresh()
    check(cache, items)


def test_a_medium_that_cannot_be_read_is_kept_as_nothing(path):
    dataset, items = with_text(path)
    cache = FeatureCache(dataset, "text", KEY)
    cache.write(items, [np.zeros((0, 4), dtype=np.float32), *[rows_of(int(item)) for item in items[1:]]])
    cache.refresh()
    assert cache.unreadable(items).tolist() == [True] + [False] * (len(items) - 1)
    assert not len(cache.missing(items)), "nobody tries again"


def test_a_folder_that_cannot_be_written_says_so(path):
    dataset, items = with_text(path)
    cache = FeatureCache(dataset, "text", KEY)
    cache.folder.parent.mkdir(parents=True)
    cache.folder.write_bytes(b"in the way")
    with pytest.raises(DataError, match=r"cannot keep features in .*; --no-feature-cache encodes in every step"):
        cache.write(items[:1], [rows_of(0)])
