"""Exports at URLs: the bytes of one in a folder, manifest last, and read from there by everything."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import mmrec
from mmrec.cli import main
from mmrec.engine import Query
from mmrec.errors import DataError
from mmrec.export_folder import ExportFolder
from tests.data.s3_server import s3_server
from tests.exporting.test_exporter import contents

URL = "memory://bucket/exports/shop"


@pytest.fixture(autouse=True)
def cache(cache_of_urls: Path) -> Path:
    return cache_of_urls


@pytest.fixture(scope="module")
def run(tiny_dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("at-url") / "run"
    assert main(["train", "id", "--data", str(tiny_dataset_path), "--out", str(out), "--max-epochs", "1"]) == 0
    return out


@pytest.fixture
def command(run, tiny_dataset_path):
    def command(out: Path | str, *options: str) -> int:
        return main(["export", str(run), "--data", str(tiny_dataset_path), "--out", str(out), *options])

    return command


def files_at(url: str) -> dict[str, bytes]:
    files, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}


def test_an_export_at_a_url_has_the_bytes_of_one_in_a_folder(command, tmp_path, cache):
    assert command(tmp_path / "folder", "--index", "--users") == 0
    assert command(URL, "--index", "--users") == 0
    assert files_at(URL) == contents(tmp_path / "folder")
    assert not [path for path in (cache / "builds").rglob("*") if path.is_file()], "nothing of it is left here"


def test_it_is_searched_and_evaluated_where_it_lies(command, tiny_dataset_path, tmp_path, cache):
    assert command(tmp_path / "folder", "--index", "--users") == 0
    assert command(URL, "--index", "--users") == 0
    here, there = mmrec.load(tmp_path / "folder"), mmrec.load(URL)
    assert there.search(Query(items=("i04",)), 5) == here.search(Query(items=("i04",)), 5)
    assert not list(cache.glob("exports/*/embeddings")), "a search with an index needs no parts"
    export = ExportFolder.open(URL, verify=True)
    assert np.array_equal(export.vectors, here.export.vectors)
    assert np.array_equal(export.users.vectors, here.export.users.vectors)
    out = tmp_path / "results"
    assert (
        main(["evaluate", "--embeddings", URL, "--data", str(tiny_dataset_path), "--out", str(out), "--no-baselines"])
        == 0
    )


def test_a_store_of_s3_holds_exports_too(command, tmp_path):
    with s3_server() as bucket:
        assert command(f"{bucket}/shop", "--format", "npy", "--dtype", "int8") == 0
        assert command(tmp_path / "folder", "--format", "npy", "--dtype", "int8") == 0
        assert files_at(f"{bucket}/shop") == contents(tmp_path / "folder")
        export = ExportFolder.open(f"{bucket}/shop")
        assert np.array_equal(export.vectors, ExportFolder.open(tmp_path / "folder").vectors)


def test_an_upload_that_was_cut_short_goes_on(command, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    put, arrived = MemoryFileSystem.put_file, []

    def put_and_die(self, here, there, **given):
        put(self, here, there, **given)
        arrived.append(there)
        if len(arrived) == 4:
            raise Killed

    assert command(tmp_path / "folder") == 0
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", put_and_die)
        with pytest.raises(Killed):
            command(URL)
    with pytest.raises(DataError, match=r"is no finished export, it has no manifest\.json"):
        ExportFolder.open(URL)
    before = dict(MemoryFileSystem.store)
    assert command(URL) == 0
    assert files_at(URL) == contents(tmp_path / "folder")
    kept = [name for name, file in before.items() if MemoryFileSystem.store.get(name) is file]
    assert len(kept) >= 2, "what had arrived is not sent again"


def test_the_same_command_again_sends_nothing_and_gains_what_is_asked_for(command, tmp_path, monkeypatch):
    assert command(URL) == 0
    before = dict(MemoryFileSystem.store)
    assert command(URL) == 0
    assert MemoryFileSystem.store == before
    assert command(URL, "--index") == 0
    assert command(tmp_path / "folder", "--index") == 0
    assert files_at(URL) == contents(tmp_path / "folder")


def test_what_is_no_export_and_what_is_another_one_stay_as_they_are(command, capsys):
    files, root = fsspec.core.url_to_fs(URL)
    files.pipe_file(f"{root}/thesis.txt", b"mine")
    assert command(URL) == 2
    assert "holds something else than an export; give another --out, or remove it" in capsys.readouterr().err
    files.rm(root, recursive=True)
    assert command(URL) == 0
    before = files_at(URL)
    assert command(URL, "--dtype", "int8") == 2
    assert "choose another --out, or --overwrite replaces it" in capsys.readouterr().err
    assert files_at(URL) == before
    assert command(URL, "--dtype", "int8", "--overwrite") == 0
    assert ExportFolder.open(URL).encoding.name == "int8"


def test_a_damaged_part_at_a_url_is_named(command):
    assert command(URL) == 0
    files, root = fsspec.core.url_to_fs(URL)
    part = f"{root}/embeddings/part-00000.parquet"
    data = bytearray(files.cat_file(part))
    data[len(data) // 2] ^= 1
    files.pipe_file(part, bytes(data))
    with pytest.raises(DataError, match=r"part-00000\.parquet is damaged"):
        _ = ExportFolder.open(URL).vectors
    with pytest.raises(DataError, match=r"part-00000\.parquet is damaged"):
        ExportFolder.open(URL, verify=True)


def test_several_processes_do_not_write_to_one_url(command, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(URL) == 2
    assert "is written by one process; several share a folder: give one as --out" in capsys.readouterr().err


def test_since_takes_an_export_at_a_url(command, tmp_path, capsys):
    assert command(URL) == 0
    capsys.readouterr()
    assert command(tmp_path / "new", "--since", URL) == 0
    assert "0 encoded, 24 copied, 0 gone" in capsys.readouterr().out
