"""A build that can be killed: units of work done by any executor, each committed by a rename and a line in a ledger.

Beside the dataset to be made, ``OUT.build/`` holds::

    build.json      what is built: settings, tables, files. Another one starts anew.
    ledger.jsonl    a line for each finished unit, written when its files are on the disk
    units/          unit-00000.tar, unit-00000.parquet (facts of its items), unit-00000.errors.parquet
    lock            held by the process that builds

The same command goes on after the last line; the folder goes away when the dataset is complete.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from mmrec.data.build_plan import BuildPlan
from mmrec.data.executors import Executor
from mmrec.data.manifest import MEDIA_FIELDS, MEDIA_MODALITIES
from mmrec.data.units import Fault, UnitResult, UnitSettings
from mmrec.errors import DataError

__all__ = ["ERROR_COLUMNS", "BuildFolder", "run_build", "unit_facts"]

ERROR_COLUMNS = ("item_id", "modality", "stage", "error", "message")
_TYPES = {
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
}


class BuildFolder:
    """The folder of a build that goes on where it was killed.

    Args:
        out: the dataset to be made.
        key: of what is built.
    """

    def __init__(self, out: Path, key: str) -> None:
        self.path = out.with_name(f"{out.name}.build")
        self.units = self.path / "units"
        self.key = key
        self.records: dict[int, dict[str, Any]] = {}

    @contextmanager
    def locked(self) -> Iterator[BuildFolder]:
        """Take the folder, throw away what belongs to another build, and read the ledger.

        Raises: DataError if another process is building.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"another process is building in {self.path}; wait for it, or give another --out"
                ) from error
            self._take_up()
            yield self

    def _take_up(self) -> None:
        known = self.path / "build.json"
        if not known.exists() or json.loads(known.read_text())["key"] != self.key:
            shutil.rmtree(self.units, ignore_errors=True)
            (self.path / "ledger.jsonl").unlink(missing_ok=True)
            _write(known, json.dumps({"key": self.key}))
        self.units.mkdir(exist_ok=True)
        for scratch in self.units.glob(".unit-*"):  # of a process that was killed
            scratch.unlink()
        ledger = self.path / "ledger.jsonl"
        lines = ledger.read_text().split("\n") if ledger.exists() else []
        for line in lines[:-1]:  # what follows the last end of line was not written out
            record = json.loads(line)
            shard = record["shard"]
            if shard is None or (self.units / shard).is_file():
                self.records[record["number"]] = record
        if lines and lines[-1]:
            _write(ledger, "".join(f"{line}\n" for line in lines[:-1]))

    def commit(self, result: UnitResult) -> None:
        """Write what is known of a unit, then its line."""
        name = f"unit-{result.number:05d}"
        columns = {
            f"{modality}.{column}": pl.Series(values, dtype=_TYPES[column])
            for modality, group in result.facts.items()
            for column, values in group.items()
        }
        for file, table in (
            (f"{name}.parquet", pl.DataFrame(columns)),
            (f"{name}.errors.parquet", pl.DataFrame(result.faults, schema=dict.fromkeys(ERROR_COLUMNS, pl.String))),
        ):
            table.write_parquet(self.units / f".{file}")
            _flush(self.units / f".{file}")
            (self.units / f".{file}").replace(self.units / file)
        _flush(self.units)
        record = {
            "number": result.number,
            "shard": result.shard,
            "bytes": result.bytes,
            "sha256": result.sha256,
            "num_stored": result.num_stored,
        }
        with (self.path / "ledger.jsonl").open("a") as ledger:
            ledger.write(json.dumps(record) + "\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        self.records[result.number] = record

    def remove(self) -> None:
        """The dataset is complete."""
        shutil.rmtree(self.path)


def run_build(
    folder: BuildFolder, plan: BuildPlan, first_key: int, settings: UnitSettings, executor: Executor
) -> list[dict[str, Any]]:
    """Do the units that are not done yet; the ledger's records in the order of units."""
    missing = [number for number in range(plan.num_units) if number not in folder.records]
    for result in executor((plan.unit(number, first_key) for number in missing), settings):
        folder.commit(result)
    return [folder.records[number] for number in range(plan.num_units)]


def unit_facts(folder: BuildFolder, plan: BuildPlan, records: list[dict[str, Any]]) -> tuple[pl.DataFrame, list[Fault]]:
    """Columns of items.parquet for all items, and their faults; what is equal has the place of the one that is stored.

    Shards are numbered from 0 on, without those that came out empty.
    """
    tables, faults = [], []
    shard = 0
    for record in records:
        name = folder.units / f"unit-{record['number']:05d}"
        table = pl.read_parquet(f"{name}.parquet")
        for modality in MEDIA_MODALITIES:
            stored = pl.col(f"{modality}.offset").is_not_null()
            table = table.with_columns(pl.when(stored).then(pl.lit(shard, pl.Int32)).alias(f"{modality}.shard"))
        shard += record["shard"] is not None
        tables.append(table)
        faults += pl.read_parquet(f"{name}.errors.parquet").to_dicts()
    table = pl.concat(tables)
    by_item: dict[tuple[str, str], Fault] = {(fault["item_id"], fault["modality"]): fault for fault in faults}
    columns = []
    for modality in MEDIA_MODALITIES:
        names = [f"{modality}.{name}" for name in ("shard", "offset", "size", "xxh3", "ext", "status")]
        group = table.select(*names, *(f"{modality}.{name}" for name in MEDIA_FIELDS[modality]))
        if modality in plan.owner:
            owner = plan.owner[modality]
            for item, other in enumerate(owner.tolist()):
                fault = by_item.get((plan.item_ids[other], modality)) if 0 <= other != item else None
                if fault is not None:
                    reason = fault["message"].removeprefix(f"{plan.paths[modality][other]}: ")
                    again = {"item_id": plan.item_ids[item], "message": f"{plan.paths[modality][item]}: {reason}"}
                    faults.append({**fault, **again})
            rows = pl.Series(
                [other if other >= 0 else item for item, other in enumerate(owner.tolist())], dtype=pl.UInt32
            )
            group = group[rows]
        columns.append(group)
    return pl.concat(columns, how="horizontal"), faults


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text)
    _flush(scratch)
    scratch.replace(path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
