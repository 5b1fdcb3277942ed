"""`mmrec ingest --out URL`: the same bytes as in a folder, manifest last, and every command works on them there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import polars as pl
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmrec.cli import main
from mmrec.data.audit import problems
from mmrec.data.dataset import Dataset
from mmrec.data.ingest import IngestConfig, ingest
from mmrec.errors import DataError
from tests.data.s3_server import s3_server

URL = "memory://bucket/some/shop"


@pytest.fixture(autouse=True)
def cache(cache_of_urls: Path) -> Path:
    return cache_of_urls


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def config(tiny_source: Path) -> IngestConfig:
    """The one of ``tiny_dataset``, for a URL."""
    return IngestConfig(
        items=tiny_source / "items.csv",
        interactions=tiny_source / "interactions.csv",
        features=(f"vec={tiny_source / 'vec.npy'}",),
        text_columns=("title", "description"),
        out=Path(URL),
        name="tiny",
        num_workers=2,
        shard_size_mb=1,
    )


def files_at(url: str) -> dict[str, bytes]:
    files, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("where", ["memory", "s3", "file"])
def test_a_dataset_at_a_url_has_the_bytes_of_one_in_a_folder(where, config, tmp_path, cache, request):
    url = {"memory": URL, "file": f"file://{tmp_path}/at/url"}.get(where) or f"{request.getfixturevalue('s3')}/shop"
    expected = files_in(ingest(replace(config, out=tmp_path / "folder")))
    (tmp_path / "at").mkdir()
    ingest(replace(config, out=Path(url)))
    assert files_at(url) == expected
    assert problems(url) == []
    assert not list(cache.glob("builds/*")), "nothing of the build is left on this machine"


def test_the_manifest_comes_last(config, monkeypatch):
    order = []
    put = MemoryFileSystem.put_file
    monkeypatch.setattr(
        MemoryFileSystem, "put_file", lambda self, here, there, **given: order.append(there) or put(self, here, there)
    )
    ingest(config)
    assert order[0].endswith("mmrec-trial")
    assert order[-1].endswith("/manifest.json")
    assert {name.rsplit("/", 1)[-1] for name in order[1:-1]} >= {"items.parquet", "shard-00000.tar", "vec.npy"}


def test_an_upload_that_was_cut_short_goes_on_and_nobody_opens_a_part(config, cache, monkeypatch, tmp_path):
    """Killed after each file in turn, the same command does no file twice, and ends with the same bytes."""
    expected = files_in(ingest(replace(config, out=tmp_path / "folder")))
    put = MemoryFileSystem.put_file
    arrived: list[str] = []

    class Killed(BaseException):
        pass

    def put_and_die(self, here, there, **given):
        put(self, here, there, **given)
        if not there.endswith("mmrec-trial"):
            arrived.append(there)
            raise Killed

    monkeypatch.setattr(MemoryFileSystem, "put_file", put_and_die)
    for _ in range(4):
        with pytest.raises(Killed):
            ingest(config)
        with pytest.raises(DataError, match=r"has no manifest.json, so it is no finished dataset"):
            Dataset.open(URL)
    monkeypatch.setattr(MemoryFileSystem, "put_file", put)
    before = dict(MemoryFileSystem.store)
    ingest(config)
    assert files_at(URL) == expected
    untouched = [name for name in arrived[:-1] if MemoryFileSystem.store[name] is before[name]]
    assert len(untouched) >= len(set(arrived)) - 1
    assert not list(cache.glob("builds/*"))


def test_a_build_that_died_after_its_last_file_ends_well_when_it_is_given_again(config, cache, monkeypatch):
    from mmrec.data.build import BuildFolder

    with monkeypatch.context() as patch:
        patch.setattr(BuildFolder, "remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest(config)
    assert Dataset.open(URL, verify=True).num_items == 24
    ingest(config)
    assert not list(cache.glob("builds/*"))


def test_what_stands_at_the_url_is_kept_unless_it_is_a_dataset_and_to_be_replaced(config):
    ingest(config)
    first = files_at(URL)
    with pytest.raises(DataError, match=rf"{URL} exists; give another --out, or --overwrite to replace it"):
        ingest(replace(config, seed=1))
    assert files_at(URL) == first
    ingest(replace(config, seed=1, features=(), overwrite=True))
    assert "features/vec.npy" not in files_at(URL), "files of the old dataset are removed"
    assert problems(URL) == []
    MemoryFileSystem().pipe_file("/bucket/mine/diary.txt", b"mine")
    with pytest.raises(DataError, match="memory://bucket/mine holds something else than a dataset"):
        ingest(replace(config, out=Path("memory://bucket/mine"), overwrite=True))
    assert files_at("memory://bucket/mine") == {"diary.txt": b"mine"}


def test_a_url_that_nothing_can_be_written_to_is_an_error_before_the_work(config, monkeypatch, s3, caplog):
    with pytest.raises(DataError, match=r"s3://no-such-bucket-at-all/.* cannot be written: .*bucket"):
        ingest(replace(config, out=Path("s3://no-such-bucket-at-all/shop")))

    def refuse(self, *given, **named):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    with pytest.raises(DataError, match=rf"{URL}/mmrec-trial cannot be written: Access Denied"):
        ingest(config)


@pytest.mark.parametrize("out", ["folder", URL])
def test_items_and_events_are_added_to_a_dataset_at_a_url(config, tmp_path, out):
    (tmp_path / "new").mkdir()
    pl.DataFrame({"item_id": ["new"], "title": ["A new thing"], "description": ["red"]}).write_csv(
        tmp_path / "new" / "items.csv"
    )
    events = {"user_id": ["u00", "u01"], "item_id": ["new", "new"], "timestamp": [1_700_000_000, 1_700_000_001]}
    pl.DataFrame(events).write_csv(tmp_path / "new" / "log.csv")
    added = IngestConfig(
        items=tmp_path / "new" / "items.csv", interactions=tmp_path / "new" / "log.csv", out=tmp_path / "there"
    )
    former = ingest(replace(config, out=tmp_path / "former"))
    expected = files_in(ingest(replace(added, append_to=former)))
    ingest(config)
    place = tmp_path / "folder" if out == "folder" else Path(URL)
    ingest(replace(added, append_to=Path(URL), out=place, overwrite=out == URL))
    assert (files_in(place) if out == "folder" else files_at(URL)) == expected


def test_a_damaged_shard_is_not_taken_over_into_a_new_version(config, tmp_path):
    ingest(config)
    name = "/bucket/some/shop/media/shard-00000.tar"
    data = MemoryFileSystem().cat_file(name)
    MemoryFileSystem().pipe_file(name, data[:700] + bytes([data[700] ^ 1]) + data[701:])
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu00,i00,1700000000\n")
    with pytest.raises(DataError, match=rf"{URL}/media/shard-00000.tar is damaged: its sha256"):
        ingest(IngestConfig(interactions=tmp_path / "log.csv", append_to=Path(URL), out=tmp_path / "next"))


def test_every_command_takes_a_url_and_does_what_it_does_to_a_folder(config, s3, tmp_path, capsys):
    """One epoch of training, its evaluation and its export: the same numbers and vectors from S3 as from the disk."""
    folder = ingest(replace(config, out=tmp_path / "folder"))
    url = f"{s3}/commands"
    ingest(replace(config, out=Path(url)))
    results = {}
    for name, data in (("folder", str(folder)), ("url", url)):
        run, out, export = (str(tmp_path / f"{name}-{part}") for part in ("run", "results", "export"))
        assert main(["check", data]) == 0
        assert (
            main(
                ["train", "hybrid", "--data", data, "--out", run, "--max-epochs", "1", "--model.item-encoder.dim", "16"]
            )
            == 0
        )
        assert main(["evaluate", run, "--data", data, "--out", out, "--no-baselines"]) == 0
        assert main(["export", run, "--data", data, "--out", export]) == 0
        metrics = json.loads((Path(out) / "metrics.json").read_text())["metrics"]
        vectors = pl.concat([pl.read_parquet(part) for part in sorted(Path(export).glob("embeddings/*.parquet"))])
        results[name] = metrics, vectors
    assert results["folder"][0] == results["url"][0]
    assert results["folder"][1].equals(results["url"][1])
    printed = capsys.readouterr().out
    assert f"tiny: {url}" in printed
    assert main(["check", f"{s3}/nowhere"]) == 2
    assert f"{s3}/nowhere has no manifest.json" in capsys.readouterr().out


def test_a_check_of_a_url_finds_what_a_check_of_the_folder_finds_and_leaves_nothing(config, cache, tmp_path):
    folder = ingest(replace(config, out=tmp_path / "folder"))
    tar = folder / "media" / "shard-00000.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b"JFIF") + 200] ^= 1
    tar.write_bytes(data)
    shutil.copy(tar, folder / "media" / "shard-00007.tar")
    for name, content in files_in(folder).items():
        MemoryFileSystem().pipe_file(f"/bucket/some/shop/{name}", content)
    expected = [line.replace(str(folder), URL) for line in problems(folder)]
    assert len(expected) == 3
    assert problems(URL) == expected
    assert not [name for name in os.listdir(cache) if name.startswith("check-")]
