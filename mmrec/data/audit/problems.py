"""Everything that is wrong with a dataset folder: each file, each entry of its tables, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from mmrec.data.audit.error_table import error_problems, left_out_problems
from mmrec.data.audit.feature_rows import feature_problems
from mmrec.data.audit.folder import AuditedFolder
from mmrec.data.audit.histories import HistoryTable, history_problems, read_histories
from mmrec.data.audit.item_table import item_problems
from mmrec.data.audit.stored_media import media_problems
from mmrec.data.manifest import MANIFEST, MEDIA_MODALITIES
from mmrec.data.progress import progress
from mmrec.errors import DataError

__all__ = ["problems"]

AGAIN = "ingest the data again"


def problems(path: Path | str) -> list[str]:
    """One line for each thing that is wrong, with what to do; empty if all is well.

    Every byte is read, twice on this machine: once for the sha256 of files, once for the XXH3 of media; of a URL each
    file is fetched once. A folder that is no dataset, or of another version, is one problem too. What cannot be read is
    reported, and what rests on it is not judged.
    """
    try:
        with AuditedFolder.open(path) as folder:
            found = [*_files(folder), *_strays(folder), *_contents(folder)]
            return [folder.told(line) for line in found]
    except DataError as error:
        return [str(error)]


def _files(folder: AuditedFolder) -> Iterator[str]:
    """Of all files but the shards, which are judged with what is in them."""
    sizes = {name: facts["bytes"] for name, facts in folder.manifest["files"].items() if not name.startswith("media/")}
    with progress("hashing tables", sum(sizes.values()), "bytes") as advance:
        for name, size in sizes.items():
            yield from folder.fetch(name)
            advance(size)


def _strays(folder: AuditedFolder) -> Iterator[str]:
    """Shards and vectors of no one: a plain WebDataset reader of ``media/*.tar`` would take them in."""
    for name in folder.strays():
        yield f"{folder.root / name} is not in the manifest; remove it"


def _contents(folder: AuditedFolder) -> Iterator[str]:
    path, manifest = folder.root, folder.manifest
    items, fault = _table(path / "items.parquet")
    errors, other_fault = _table(path / "errors.parquet")
    yield from (line for line in (fault, other_fault) if line)
    usable = items is not None
    if items is not None:
        for line in item_problems(items, manifest):
            usable = False
            yield line
        yield from feature_problems(path, manifest, items["item_id"] if "item_id" in items.columns else None)
    yield from media_problems(folder, items if usable else None)
    if errors is not None:
        yield from error_problems(errors, items if usable else None)
    yield from left_out_problems(manifest["interactions"])
    histories, faults = read_histories(path)
    yield from faults
    if histories is not None:
        yield from history_problems(histories, manifest, None if items is None else items.height)
    yield from _counts(manifest, items, errors, histories)


def _table(file: Path) -> tuple[pl.DataFrame | None, str]:
    if not file.is_file():
        return None, ""  # the manifest's check has said so, or says so of a manifest that does not list it
    try:
        return pl.read_parquet(file), ""
    except (pl.exceptions.PolarsError, OSError) as error:
        return None, f"{file} cannot be read as Parquet ({' '.join(str(error).split())[:100]}); {AGAIN}"


def _counts(
    manifest: dict[str, Any],
    items: pl.DataFrame | None,
    errors: pl.DataFrame | None,
    histories: HistoryTable | None,
) -> Iterator[str]:
    """The numbers that the manifest states against those of the tables."""
    counts, files = manifest["counts"], manifest["files"]
    stated: list[tuple[str, Any, Any]] = []
    if items is not None:
        stated += [("items", counts.get("items"), items.height), _rows(files, "items.parquet", items.height)]
        stated += [_rows(files, f"features/{name}.npy", items.height) for name in manifest["features"]]
        for modality in MEDIA_MODALITIES:
            if f"{modality}.status" in items.columns:
                found = dict(sorted(items[f"{modality}.status"].value_counts().iter_rows()))
                stated.append((f"items by status of their {modality}", counts.get("media", {}).get(modality), found))
    if errors is not None:
        stated += [("errors", counts.get("errors"), errors.height), _rows(files, "errors.parquet", errors.height)]
    if histories is not None:
        number, kept = histories.num_users, manifest["interactions"].get("kept")
        stated += [("users", counts.get("users"), number), _rows(files, "sequences/sequences.arrow", number)]
        stated += [("events", counts.get("events"), histories.num_events), ("events kept", kept, histories.num_events)]
    for what, said, found in stated:
        if said != found:
            yield f"{MANIFEST} says {what}: {said}, the folder holds {found}; {AGAIN}"


def _rows(files: dict[str, Any], name: str, number: int) -> tuple[str, Any, int]:
    return f"n of {name}", files.get(name, {}).get("n"), number
