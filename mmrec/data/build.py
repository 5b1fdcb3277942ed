"""A build that can be killed: units of work done by any executor, each committed by a rename and a line in a ledger.

Beside the dataset to be made, ``OUT.build/`` holds::

    build.json      that the folder is mmrec's; at the end the hash of the manifest that OUT will have
    ledger.jsonl    a line for each finished unit, written when its files are on the disk
    units/          of each unit, by its key: KEY-0.tar and so on, KEY.parquet (facts of its items), KEY.errors.parquet
    dataset/        the dataset while it is put together; renamed to OUT when it is complete
    former/         the dataset that OUT was before --overwrite, until the new one stands there; then old/
    uploaded.jsonl  of a dataset that goes to a URL: what has arrived there
    lock            held by the process that builds

A unit is found again by the key of all that decides its bytes; the same command goes on after the last line, and
another one takes what serves it too. The folder goes away when the dataset is complete. Where OUT is a URL it lies in
the cache folder of this machine (remote.py) until everything has arrived.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from mmrec.atomic_files import flush, write_whole
from mmrec.data.build_plan import BuildPlan
from mmrec.data.error_rows import ERROR_COLUMNS
from mmrec.data.executors import Executor
from mmrec.data.manifest import MANIFEST
from mmrec.data.manifest import SCHEMA as DATASET_SCHEMA
from mmrec.data.remote import cache_folder
from mmrec.data.store import url_of
from mmrec.data.units import UnitResult, UnitSettings
from mmrec.data.upload import RemoteOut
from mmrec.errors import DataError

__all__ = ["BuildFolder", "run_build"]

_SCHEMA = "mmrec.build"
_TYPES = {
    "shard": pl.Int32,
    "offset": pl.Int64,
    "size": pl.Int64,
    "xxh3": pl.UInt64,
    "ext": pl.String,
    "status": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "sample_rate": pl.Int32,
    "num_frames": pl.Int32,
    "fps": pl.Float32,
    "duration_s": pl.Float32,
    "source_ext": pl.String,
    "source_size": pl.Int64,
    "source_xxh3": pl.UInt64,
}


class BuildFolder:
    """The folder of a build that goes on where it was killed.

    Args:
        out: the dataset to be made; a folder, or a URL.
    """

    def __init__(self, out: Path) -> None:
        url = url_of(out)
        if url is not None and url.startswith("file:///"):
            url, out = None, Path(url.removeprefix("file://"))
        self.out = out if url is None else cache_folder() / "builds" / hashlib.sha256(url.encode()).hexdigest()[:16]
        self.path = self.out.with_name(f"{self.out.name}.build")
        self._remote = None if url is None else RemoteOut(url, self.path / "uploaded.jsonl")
        self.units = self.path / "units"
        self.dataset = self.path / "dataset"
        self.records: dict[str, dict[str, Any]] = {}
        self._facts, self._ledger = self.path / "build.json", self.path / "ledger.jsonl"
        self._former, self._old = self.path / "former", self.path / "old"

    def seems_published(self) -> bool:
        """Whether ``out`` is what was made here, so that nothing but the folder's removal is left to do.

        Of a folder that is empty already this cannot be told for sure.

        Raises: DataError if the folder is not mmrec's, or damaged.
        """
        if not self.path.exists():
            return False
        facts, manifest = self._read_facts(), self.standing_manifest()
        return manifest is not None and (not facts or facts.get("manifest") == hashlib.sha256(manifest).hexdigest())

    def standing_manifest(self) -> bytes | None:
        """That of the dataset which stands at ``out``; None if there is none.

        Raises: DataError if a URL holds something else, or does not answer.
        """
        if self._remote is not None:
            return self._remote.manifest()
        file = self.out / MANIFEST
        return file.read_bytes() if file.is_file() else None

    def refuse_existing(self, *, overwrite: bool) -> None:
        """Raises: DataError if something stands at ``out`` that may not be replaced."""
        manifest = self.standing_manifest()
        place = self.out if self._remote is None else self._remote.url
        if manifest is None if self._remote is not None else not self.out.exists():
            return
        if not overwrite:
            raise DataError(f"{place} exists; give another --out, or --overwrite to replace it")
        ours = manifest is not None and DATASET_SCHEMA.encode() in manifest
        if not ours and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise DataError(f"{place} is no dataset folder, and --overwrite replaces nothing else; give another --out")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Take the folder, bring back what ``out`` was if its replacement was cut short, and read the ledger.

        Raises: DataError if another process is building, the folder is not mmrec's, or damaged, or nothing can be
        written to a URL.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._read_facts()
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"another process is building in {self.path}; wait for it, or give another --out"
                ) from error
            if not self._facts.exists():
                write_whole(self._facts, json.dumps({"schema": _SCHEMA}))
            if self._former.exists() and not self.out.exists():
                self._former.rename(self.out)
            shutil.rmtree(self._old, ignore_errors=True)
            self.units.mkdir(exist_ok=True)
            self._read_ledger()
            if self._remote is not None:
                self._remote.try_writing()
            yield

    def _read_facts(self) -> dict[str, Any]:
        """build.json; empty if there is none yet. Raises: DataError if the folder is somebody else's, or damaged."""
        if not self._facts.is_file():
            # A process that was killed on its way in or out leaves these.
            known = {"lock", f".{self._facts.name}.tmp"}
            if self.path.exists() and not {path.name for path in self.path.iterdir()} <= known:
                raise DataError(
                    f"{self.path}, where the build would go, holds something else; move it away or give another --out"
                )
            return {}
        try:
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
        except ValueError:
            facts = None
        if not isinstance(facts, dict) or facts.get("schema") != _SCHEMA:
            raise self._damaged(self._facts)
        return facts

    def _damaged(self, file: Path) -> DataError:
        return DataError(f"{file} is damaged; remove the folder {self.path} and give the command again")

    def _read_ledger(self) -> None:
        written = self._ledger.read_bytes().decode(errors="replace") if self._ledger.exists() else ""
        lines = written.split("\n")
        for line in lines[:-1]:  # what follows the last end of line was not written out
            try:
                record = json.loads(line)
                shards = {shard["name"]: shard["bytes"] for shard in record["shards"]}
                tables = [self.units / f"{record['key']}{ending}" for ending in (".parquet", ".errors.parquet")]
            except (ValueError, KeyError, TypeError) as error:
                raise self._damaged(self._ledger) from error
            whole = all(_has_size(self.units / name, size) for name, size in shards.items())
            if whole and all(table.is_file() for table in tables):
                self.records[record["key"]] = record
        if lines[-1]:
            write_whole(self._ledger, "".join(f"{line}\n" for line in lines[:-1]))

    def keep_only(self, keys: list[str]) -> None:
        """Throw away units with other keys, and what processes that were killed have left."""
        wanted = {key for key in keys if key in self.records}
        for path in self.units.iterdir():
            if path.name.partition(".")[0].partition("-")[0] not in wanted:
                path.unlink()

    def commit(self, result: UnitResult) -> None:
        """Write what is known of a unit, then its line.

        Raises: DataError if its shards are not here, because the machine that made them has another such folder.
        """
        for shard in result.shards:
            if not _has_size(self.units / shard.name, shard.bytes):
                raise DataError(
                    f"{self.units / shard.name} was written on another machine and is not to be seen on "
                    f"{socket.gethostname()}; give an --out in a folder that all machines of the cluster share"
                )
        facts = pl.DataFrame(
            {
                f"{modality}.{column}": pl.Series(values, dtype=_TYPES[column])
                for modality, group in result.facts.items()
                for column, values in group.items()
            }
        )
        faults = pl.DataFrame(result.faults, schema=dict.fromkeys(ERROR_COLUMNS, pl.String))
        for file, table in ((f"{result.key}.parquet", facts), (f"{result.key}.errors.parquet", faults)):
            table.write_parquet(self.units / f".{file}")
            flush(self.units / f".{file}")
            (self.units / f".{file}").replace(self.units / file)
        flush(self.units)
        record = {"key": result.key, "shards": [asdict(shard) for shard in result.shards]}
        with self._ledger.open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(record) + "\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        self.records[result.key] = record

    def publish(self) -> None:
        """Rename the finished ``dataset`` to ``out``, replacing what stands there, and remove the folder."""
        digest = hashlib.sha256((self.dataset / MANIFEST).read_bytes()).hexdigest()
        write_whole(self._facts, json.dumps({"schema": _SCHEMA, "manifest": digest}))
        if self._remote is not None:
            self._remote.publish(self.dataset)
        else:
            if self.out.exists():
                if self._former.exists():
                    shutil.rmtree(self._former)
                self.out.rename(self._former)
            self.dataset.rename(self.out)
            flush(self.out.parent)
        self.remove()

    def remove(self) -> None:
        """Remove the folder; what tells whose it is goes last."""
        if self._former.exists():  # half removed, it must not come back
            self._former.rename(self._old)
        last = [self.path / "lock", self._facts]
        for path in [*(path for path in self.path.iterdir() if path not in last), *last]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        with contextlib.suppress(OSError):  # another process has come in meanwhile
            self.path.rmdir()


def run_build(folder: BuildFolder, plan: BuildPlan, settings: UnitSettings, executor: Executor) -> list[dict[str, Any]]:
    """Do the units that are not done yet; the ledger's records in the order of units."""
    keys = [plan.unit_key(number) for number in range(plan.num_units)]
    folder.keep_only(keys)
    missing = [number for number, key in enumerate(keys) if key not in folder.records]
    for result in executor((plan.unit(number, keys[number]) for number in missing), settings):
        folder.commit(result)
    return [folder.records[key] for key in keys]


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
